package basic

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/bcrypt"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/limit"
)

var testNow = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// line is a line as htpasswd -B writes it.
func line(t *testing.T, name, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return name + ":" + strings.Replace(string(hash), "$2a$", "$2y$", 1) + "\n"
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func newTest(t *testing.T, lines string, change func(*Config)) *Authenticator {
	t.Helper()
	c := Default()
	c.HtpasswdFile = filepath.Join(t.TempDir(), "htpasswd")
	write(t, c.HtpasswdFile, lines)
	if change != nil {
		change(&c)
	}
	a, err := newAuthenticator("ops", c, bcrypt.MinCost, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func encode(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func basicAuth(name, password string) *authn.Request {
	return &authn.Request{Authorization: "Basic " + encode(name+":"+password), Client: "192.0.2.1", Now: testNow}
}

func unlimited(c *Config) {
	_ = c.VerificationLimit.Failures.UnmarshalText([]byte("unlimited")) // a rate
}

func TestAuthenticate(t *testing.T) {
	long := strings.Repeat("x", maxPassword)
	file := "# users\n\n" + line(t, "alice", "pass:word") + line(t, "zoë", "pässwörd") + line(t, "long", long)
	a := newTest(t, file, unlimited)
	id, err := a.Authenticate(t.Context(), basicAuth("alice", "pass:word"))
	if err != nil {
		t.Fatal(err)
	}
	want := &authz.Identity{Authenticated: true, Authenticator: "ops", Kind: "basic", Subject: "alice"}
	if d := cmp.Diff(want, id, cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".memo" }, cmp.Ignore())); d != "" {
		t.Error(d)
	}
	good := encode("alice:pass:word")
	for name, tt := range map[string]struct {
		value string
		want  error
	}{
		"UTF-8":                    {"Basic " + encode("zoë:pässwörd"), nil},
		"scheme in lower case":     {"basic " + good, nil},
		"72 bytes":                 {"Basic " + encode("long:"+long), nil},
		"73 bytes":                 {"Basic " + encode("long:"+long+"x"), authn.ErrInvalid},
		"no header":                {"", authn.ErrNotMine},
		"another scheme":           {"Bearer " + good, authn.ErrNotMine},
		"no scheme":                {good, authn.ErrNotMine},
		"nothing":                  {"Basic", authn.ErrInvalid},
		"wrong password":           {"Basic " + encode("alice:password"), authn.ErrInvalid},
		"cut password":             {"Basic " + encode("alice:pass"), authn.ErrInvalid},
		"empty password":           {"Basic " + encode("alice:"), authn.ErrInvalid},
		"other case of the name":   {"Basic " + encode("Alice:pass:word"), authn.ErrInvalid},
		"another user's password":  {"Basic " + encode("zoë:pass:word"), authn.ErrInvalid},
		"unknown user":             {"Basic " + encode("bob:pass:word"), authn.ErrInvalid},
		"unknown, empty password":  {"Basic " + encode("bob:"), authn.ErrInvalid},
		"empty name":               {"Basic " + encode(":pass:word"), authn.ErrInvalid},
		"no colon":                 {"Basic " + encode("alice"), authn.ErrInvalid},
		"a comment's name":         {"Basic " + encode("# users:x"), authn.ErrInvalid},
		"not UTF-8":                {"Basic " + encode("zo\xeb:p\xe4ssw\xf6rd"), authn.ErrInvalid},
		"zero byte":                {"Basic " + encode("alice:pass:word\x00"), authn.ErrInvalid},
		"not base64":               {"Basic alice:pass", authn.ErrInvalid},
		"without padding":          {"Basic " + strings.TrimRight(encode("long:"+long), "="), authn.ErrInvalid},
		"URL alphabet":             {"Basic " + base64.URLEncoding.EncodeToString([]byte("alice:pass:word\xc3\xbf\xc3\xbf?")), authn.ErrInvalid},
		"another spelling of bits": {"Basic " + encode("alice:pass:wor") + "=", authn.ErrInvalid},
		"more after it":            {"Basic " + good + " x", authn.ErrInvalid},
		"two":                      {"Basic " + good + ", Basic " + good, authn.ErrInvalid},
		"too long":                 {"Basic " + encode("alice:"+strings.Repeat("x", 4000)), authn.ErrInvalid},
	} {
		_, err := a.Authenticate(t.Context(), &authn.Request{Authorization: tt.value, Now: testNow})
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
		if err != nil && (strings.Contains(err.Error(), "pass") && !strings.Contains(err.Error(), "password is wrong") && !strings.Contains(err.Error(), "name:password")) {
			t.Errorf("%s: the error shows what was sent: %v", name, err)
		}
	}
}

// TestUnknownUsers: they cost what known ones do, and have the same answer.
func TestUnknownUsers(t *testing.T) {
	a := newTest(t, line(t, "alice", "password"), unlimited)
	_, known := a.Authenticate(t.Context(), basicAuth("alice", "wrong"))
	_, unknown := a.Authenticate(t.Context(), basicAuth("bob", "wrong"))
	if known == nil || unknown == nil || known.Error() != unknown.Error() {
		t.Errorf("got %v and %v", known, unknown)
	}
	set := a.users.Load()
	dummy, err := bcrypt.Cost(set.dummy)
	cost, err2 := bcrypt.Cost(set.byName["alice"].hash)
	if err != nil || err2 != nil || dummy != cost {
		t.Errorf("unknown users cost %d, alice %d", dummy, cost)
	}
	for range cap(a.turns) {
		a.turns <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.Authenticate(ctx, basicAuth("bob", "x")); !errors.Is(err, authn.ErrUnavailable) {
		t.Errorf("an unknown user does not wait for a turn: %v", err)
	}
}

// TestVerifiedPasswordsAreNotHashedAgain: with every turn taken, only what needs
// none passes.
func TestVerifiedPasswordsAreNotHashedAgain(t *testing.T) {
	a := newTest(t, line(t, "alice", "password")+line(t, "bob", "password"), func(c *Config) { c.Concurrency = 1 })
	if _, err := a.Authenticate(t.Context(), basicAuth("alice", "password")); err != nil {
		t.Fatal(err)
	}
	a.turns <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	late := basicAuth("alice", "password")
	late.Now = testNow.Add(a.config.CacheTTL)
	for name, tt := range map[string]struct {
		request *authn.Request
		want    error
	}{
		"again":          {basicAuth("alice", "password"), nil},
		"after its time": {late, authn.ErrUnavailable},
		"wrong":          {basicAuth("alice", "passwore"), authn.ErrUnavailable},
		"other user":     {basicAuth("bob", "password"), authn.ErrUnavailable},
	} {
		if _, err := a.Authenticate(ctx, tt.request); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
	}
	<-a.turns
	write(t, a.Files()[0], line(t, "alice", "password2"))
	if err := a.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Authenticate(t.Context(), basicAuth("alice", "password")); !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("the old password after the line changed: got %v", err)
	}
}

// TestGuesserIsLimited: wrong passwords are counted, also when they come at once.
func TestGuesserIsLimited(t *testing.T) {
	a := newTest(t, line(t, "alice", "password"), func(c *Config) {
		c.VerificationLimit = limit.Config{Failures: 1.0 / 3600, Burst: 2}
		c.Concurrency = 1
	})
	if _, err := a.Authenticate(t.Context(), basicAuth("alice", "password")); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	got := map[string]int{}
	for i := range 6 {
		wg.Go(func() {
			_, err := a.Authenticate(t.Context(), basicAuth(fmt.Sprint("user", i%2), "guess"))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, authn.ErrTooMany):
				got["limited"]++
			case errors.Is(err, authn.ErrInvalid):
				got["wrong"]++
			default:
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
	if d := cmp.Diff(map[string]int{"wrong": 2, "limited": 4}, got); d != "" {
		t.Error(d)
	}
	if _, err := a.Authenticate(t.Context(), basicAuth("alice", "password")); err != nil {
		t.Errorf("a verified password of a limited client: %v", err)
	}
	other := basicAuth("alice", "wrong")
	other.Client = "192.0.2.2"
	if _, err := a.Authenticate(t.Context(), other); !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("another client: %v", err)
	}
}

func TestFiles(t *testing.T) {
	good := strings.Replace(line(t, "alice", "password"), "$04$", "$10$", 1)
	hash := strings.TrimSpace(strings.TrimPrefix(good, "alice:"))
	for name, tt := range map[string]struct{ text, problem string }{
		"$2y$":            {good, ""},
		"$2b$":            {strings.Replace(good, "$2y$", "$2b$", 1), ""},
		"line ends":       {strings.ReplaceAll(good, "\n", "\r\n"), ""},
		"no line end":     {strings.TrimSpace(good), ""},
		"nobody":          {"", ""},
		"$2a$":            {strings.Replace(good, "$2y$", "$2a$", 1), "f:1: user \"alice\": hash is not bcrypt"},
		"$2x$":            {strings.Replace(good, "$2y$", "$2x$", 1), "not bcrypt"},
		"MD5":             {good + "bob:$apr1$lZL6V/ci$eIMz/iKDkbtys/uU7LEK00\n", "f:2: user \"bob\": hash is not bcrypt"},
		"SHA-1":           {"bob:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "f:1: user \"bob\": hash is not bcrypt"},
		"SHA-256":         {"bob:$5$MKPnY3s8Vt$Qk0y1l8rcEoCJKLJLmQPpSRZHIc0d4uqSzJSxGsCYz0", "not bcrypt"},
		"crypt":           {"bob:rqXexS6ZhobKA", "not bcrypt"},
		"plain":           {"bob:secret-word", "not bcrypt"},
		"a comment above": {"# x\n\nbob:plain", "f:3:"},
		"no colon":        {"bob", "f:1: is not name:hash"},
		"no name":         {":" + hash, "is empty"},
		"control":         {"a\tb:" + hash, "control"},
		"not UTF-8":       {"a\xff:" + hash, "not UTF-8"},
		"twice":           {good + good, `f:2: user "alice" stands twice`},
		"cut":             {"a:" + hash[:59], "cut or damaged"},
		"with more":       {"a:" + hash + "x", "cut or damaged"},
		"a space after":   {"a:" + hash + " ", "cut or damaged"},
		"damaged":         {"a:" + hash[:40] + "*" + hash[41:], "cut or damaged"},
		"no cost":         {"a:$2y$xx" + hash[6:], "cut or damaged"},
		"cheap":           {"a:$2y$05" + hash[6:], "cost 5 is not between"},
		"expensive":       {"a:$2y$15" + hash[6:], "cost 15 is not between"},
	} {
		_, err := parse("ops", "f", tt.text, minCost)
		if tt.problem == "" && err != nil || tt.problem != "" && (err == nil || !strings.Contains(err.Error(), tt.problem)) {
			t.Errorf("%s: got %v, want %q", name, err, tt.problem)
		}
		if err != nil && (strings.Contains(err.Error(), "secret-word") || strings.Contains(err.Error(), hash[30:])) {
			t.Errorf("%s: the error shows the hash: %v", name, err)
		}
	}
}

func TestReload(t *testing.T) {
	a := newTest(t, line(t, "alice", "password"), nil)
	write(t, a.Files()[0], "alice:plain")
	if err := a.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "htpasswd:1:") {
		t.Errorf("broken file: got %v", err)
	}
	if _, err := a.Authenticate(t.Context(), basicAuth("alice", "password")); err != nil {
		t.Errorf("after a broken file: %v", err)
	}
	write(t, a.Files()[0], strings.Repeat("#", maxFile+1))
	if err := a.Reload(t.Context()); err == nil {
		t.Error("a file over the limit was read")
	}
	write(t, a.Files()[0], "")
	if err := a.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Authenticate(t.Context(), basicAuth("alice", "password")); !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("a user who was taken out, with a password verified before: got %v", err)
	}
	if _, err := New("ops", Config{HtpasswdFile: filepath.Join(t.TempDir(), "none")}); err == nil {
		t.Error("a missing file was read")
	}
}

func TestValidate(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Config)
		keys   []string
	}{
		"as it is":       {func(*Config) {}, nil},
		"no file":        {func(c *Config) { c.HtpasswdFile = "" }, []string{"htpasswd_file"}},
		"long cache":     {func(c *Config) { c.CacheTTL = 2 * time.Hour }, []string{"cache_ttl"}},
		"negative cache": {func(c *Config) { c.CacheSize = -1 }, []string{"cache_size"}},
		"concurrency":    {func(c *Config) { c.Concurrency = -1 }, []string{"concurrency"}},
		"limit":          {func(c *Config) { c.VerificationLimit.Clients = -1 }, []string{"verification_limit.clients"}},
		"realm":          {func(c *Config) { c.Realm = "a\"b" }, []string{"realm"}},
	} {
		c := Default()
		c.HtpasswdFile = "htpasswd"
		tt.change(&c)
		var keys []string
		for _, p := range setting.Problems(c.Validate()) {
			keys = append(keys, p.Key)
		}
		if d := cmp.Diff(tt.keys, keys); d != "" {
			t.Errorf("%s:\n%s", name, d)
		}
	}
}

func TestChallenge(t *testing.T) {
	a := newTest(t, "", nil)
	if got, want := a.Challenge(nil), `Basic realm="sallyport", charset="UTF-8"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := a.Challenge(authn.ErrInsufficientScope); got != "" {
		t.Errorf("for a scope that lacks: got %s", got)
	}
}

// TestNotMineIsFree pins that requests with other credentials cost no memory.
func TestNotMineIsFree(t *testing.T) {
	a := newTest(t, "", nil)
	r := &authn.Request{Authorization: "Bearer x.y.z", Now: testNow}
	if n := testing.AllocsPerRun(100, func() {
		if _, err := a.Authenticate(t.Context(), r); !errors.Is(err, authn.ErrNotMine) {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
