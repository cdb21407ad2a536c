package apikey

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/limit"
)

var testNow = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func newTest(t *testing.T, keys string, change func(*Config)) *Authenticator {
	t.Helper()
	c := Default()
	c.File = filepath.Join(t.TempDir(), "keys.yaml")
	write(t, c.File, keys)
	if change != nil {
		change(&c)
	}
	a, err := New("partners", c)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func header(values ...string) *authn.Request {
	r := &authn.Request{Now: testNow, Client: "192.0.2.1"}
	for _, v := range values {
		r.Headers = append(r.Headers, authz.Header{Name: "x-api-key", Value: v})
	}
	return r
}

func TestAuthenticate(t *testing.T) {
	good, hash := Generate()
	early, earlyHash := Generate()
	late, lateHash := Generate()
	other, _ := Generate()
	file := fmt.Sprintf(`
- {id: acme-1, sha256: %s, subject: acme, scopes: [orders:read, orders:write], claims: {tier: gold, limit: 10}, expires_at: 2026-06-01T00:00:00Z}
- {id: early, sha256: %s, subject: acme, not_before: 2026-05-02T00:00:00Z}
- {id: late, sha256: %s, subject: acme, expires_at: 2026-05-01T12:00:00Z}
`, hash, strings.ToUpper(earlyHash), lateHash)
	a := newTest(t, file, nil)
	id, err := a.Authenticate(t.Context(), header(good))
	if err != nil {
		t.Fatal(err)
	}
	want := &authz.Identity{
		Authenticated: true, Authenticator: "partners", Kind: "api_key", Subject: "acme", Scopes: []string{"orders:read", "orders:write"},
		Claims:    map[string]any{"tier": "gold", "limit": json.Number("10"), "key_id": "acme-1"},
		ExpiresAt: time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC),
	}
	if d := cmp.Diff(want, id, cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".memo" }, cmp.Ignore())); d != "" {
		t.Error(d)
	}
	long := header(strings.Repeat("a", maxKey+1))
	for name, tt := range map[string]struct {
		request *authn.Request
		want    error
	}{
		"no key":                   {header(), authn.ErrNotMine},
		"empty":                    {header(""), authn.ErrInvalid},
		"unknown":                  {header(other), authn.ErrInvalid},
		"the hash itself":          {header(hash), authn.ErrInvalid},
		"other case":               {header(strings.ToUpper(good)), authn.ErrInvalid},
		"with a space":             {header(good + " "), authn.ErrInvalid},
		"with more":                {header(good + "a"), authn.ErrInvalid},
		"cut":                      {header(good[:len(good)-1]), authn.ErrInvalid},
		"too long":                 {long, authn.ErrInvalid},
		"not good yet":             {header(early), authn.ErrInvalid},
		"good from now on":         {&authn.Request{Headers: header(early).Headers, Now: testNow.Add(12 * time.Hour)}, nil},
		"expired now":              {header(late), authn.ErrInvalid},
		"good a moment before":     {&authn.Request{Headers: header(late).Headers, Now: testNow.Add(-1)}, nil},
		"twice":                    {header(good, good), authn.ErrInvalid},
		"two in one":               {header(good + ", " + good), authn.ErrInvalid},
		"as a bearer token":        {&authn.Request{Authorization: "Bearer " + good, Now: testNow}, authn.ErrNotMine},
		"in another header":        {&authn.Request{Headers: []authz.Header{{Name: "api-key", Value: good}}, Now: testNow}, authn.ErrNotMine},
		"in the query, not set up": {&authn.Request{RawQuery: "x-api-key=" + good, Now: testNow}, authn.ErrNotMine},
	} {
		if _, err := a.Authenticate(t.Context(), tt.request); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
	}
	r := header(good)
	_, _ = a.Authenticate(t.Context(), r) // seen above
	if spent, _ := r.Spent(); !cmp.Equal(spent, []string{"x-api-key"}) || !cmp.Equal(a.CredentialHeaders(), spent) {
		t.Errorf("spent %q, hidden %q", spent, a.CredentialHeaders())
	}
}

// TestShortKeys: what could be a password is refused although the file lists it.
func TestShortKeys(t *testing.T) {
	// The SHA-256 of the 21 characters below.
	a := newTest(t, `
- {id: short, sha256: 9028ea0d15decaa35b2da21c0290af3b1a5ba0a30a591906f89b5074e209ea72, subject: a}
`, nil)
	if _, err := a.Authenticate(t.Context(), header("correct horse battery")); !errors.Is(err, authn.ErrInvalid) || !strings.Contains(err.Error(), "21 characters") {
		t.Errorf("got %v", err)
	}
}

func TestQuery(t *testing.T) {
	good, hash := Generate()
	a := newTest(t, fmt.Sprintf("- {id: a, sha256: %s, subject: acme}", hash), func(c *Config) { c.InsecureQueryParameter = "key" })
	both := header(good)
	both.RawQuery = "key=" + good
	for name, tt := range map[string]struct {
		request *authn.Request
		want    error
	}{
		"first":           {&authn.Request{RawQuery: "key=" + good + "&a=b"}, nil},
		"last":            {&authn.Request{RawQuery: "a=b&key=" + good}, nil},
		"none":            {&authn.Request{RawQuery: "a=key&xkey=" + good}, authn.ErrNotMine},
		"twice":           {&authn.Request{RawQuery: "key=" + good + "&key=" + good}, authn.ErrInvalid},
		"also in a field": {both, authn.ErrInvalid},
		"empty":           {&authn.Request{RawQuery: "key"}, authn.ErrInvalid},
	} {
		if _, err := a.Authenticate(t.Context(), tt.request); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
	}
}

// TestGuesserIsLimited: unknown keys are counted; the good one passes all the same.
func TestGuesserIsLimited(t *testing.T) {
	good, hash := Generate()
	a := newTest(t, fmt.Sprintf("- {id: a, sha256: %s, subject: acme}", hash), func(c *Config) {
		c.VerificationLimit = limit.Config{Failures: 1, Burst: 3}
	})
	for i := range 10 {
		want := authn.ErrInvalid
		if i >= 3 {
			want = authn.ErrTooMany
		}
		guess, _ := Generate()
		if _, err := a.Authenticate(t.Context(), header(guess)); !errors.Is(err, want) {
			t.Fatalf("guess %d: got %v, want %v", i, err, want)
		}
		if _, err := a.Authenticate(t.Context(), header(good)); err != nil {
			t.Fatalf("the good key after guess %d: %v", i, err)
		}
	}
}

func TestFiles(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	for name, tt := range map[string]struct{ text, problem string }{
		"JSON":              {`[{"id": "a", "sha256": "` + sum + `", "subject": "s", "expires_at": "2027-01-01T00:00:00Z", "claims": {"a": [1, null]}}]`, ""},
		"a day":             {"- {id: a, sha256: " + sum + ", subject: s, expires_at: 2027-01-01}", ""},
		"none":              {"[]", ""},
		"empty":             {"", ""},
		"no list":           {"a: b", "not a list"},
		"no YAML":           {"[", "not a list"},
		"two documents":     {"[]\n---\n[]", "more than one document"},
		"unknown key":       {"- {id: a, sha256: " + sum + ", subject: s, expires: 2027-01-01}", "line 1: field expires not found"},
		"key twice":         {"- {id: a, id: b, sha256: " + sum + ", subject: s}", "line 1: mapping key \"id\" already defined"},
		"no id":             {"- {sha256: " + sum + ", subject: s}", "id is missing"},
		"no subject":        {"- {id: a, sha256: " + sum + "}", "subject is missing"},
		"no hash":           {"- {id: a, subject: s}", "sha256 is not"},
		"short hash":        {"- {id: a, sha256: abcd, subject: s}", "sha256 is not"},
		"long hash":         {"- {id: a, sha256: " + sum + "00, subject: s}", "sha256 is not"},
		"the key itself":    {"- {id: a, sha256: spk_kbe7p3qqo6gzxfutjc6hi4ajom4723dl, subject: s}", "sha256 is not"},
		"id twice":          {"- {id: a, sha256: " + sum + ", subject: s}\n- {id: a, sha256: " + strings.Repeat("cd", 32) + ", subject: s}", `line 2: id "a" stands twice`},
		"hash twice":        {"- {id: a, sha256: " + sum + ", subject: s}\n- {id: b, sha256: " + sum + ", subject: s}", "sha256 of another"},
		"ends before":       {"- {id: a, sha256: " + sum + ", subject: s, not_before: 2027-01-01, expires_at: 2026-01-01}", "expires_at is not after"},
		"no time":           {"- {id: a, sha256: " + sum + ", subject: s, expires_at: soon}", "line 1"},
		"scope with spaces": {"- {id: a, sha256: " + sum + ", subject: s, scopes: [a b]}", `scope "a b"`},
		"claim of ours":     {"- {id: a, sha256: " + sum + ", subject: s, claims: {key_id: b}}", "set by the gateway"},
		"claim not JSON":    {"- {id: a, sha256: " + sum + ", subject: s, claims: {a: .nan}}", "claims"},
	} {
		_, err := parse("partners", []byte(tt.text))
		if tt.problem == "" && err != nil || tt.problem != "" && (err == nil || !strings.Contains(err.Error(), tt.problem)) {
			t.Errorf("%s: got %v, want %q", name, err, tt.problem)
		}
	}
}

// TestReload: a key that was taken out is refused, and a broken file changes nothing.
func TestReload(t *testing.T) {
	one, oneHash := Generate()
	two, twoHash := Generate()
	a := newTest(t, fmt.Sprintf("- {id: a, sha256: %s, subject: acme}", oneHash), nil)
	check := func(key string, want error) {
		t.Helper()
		if _, err := a.Authenticate(t.Context(), header(key)); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	check(one, nil)
	write(t, a.Files()[0], fmt.Sprintf("- {id: b, sha256: %s, subject: acme}", twoHash))
	if err := a.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	check(one, authn.ErrInvalid)
	check(two, nil)
	write(t, a.Files()[0], "- {id: c")
	if err := a.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "keys.yaml") {
		t.Errorf("broken file: got %v", err)
	}
	check(two, nil)
	write(t, a.Files()[0], strings.Repeat("#", maxFile+1))
	if err := a.Reload(t.Context()); err == nil {
		t.Error("a file over the limit was read")
	}
	if err := os.Remove(a.Files()[0]); err != nil {
		t.Fatal(err)
	}
	if err := a.Reload(t.Context()); err == nil {
		t.Error("a missing file was read")
	}
	check(two, nil)
}

func TestValidate(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Config)
		keys   []string
	}{
		"as it is":        {func(*Config) {}, nil},
		"other header":    {func(c *Config) { c.Header = "X-Partner-Key" }, nil},
		"no file":         {func(c *Config) { c.File = "" }, []string{"file"}},
		"header of ours":  {func(c *Config) { c.Header = "Authorization" }, []string{"header"}},
		"forwarded":       {func(c *Config) { c.Header = "X-Forwarded-Key" }, []string{"header"}},
		"no header name":  {func(c *Config) { c.Header = "a b" }, []string{"header"}},
		"no query name":   {func(c *Config) { c.InsecureQueryParameter = "a&b" }, []string{"insecure_query_parameter"}},
		"negative limit":  {func(c *Config) { c.VerificationLimit.Burst = -1 }, []string{"verification_limit.burst"}},
		"realm in quotes": {func(c *Config) { c.Realm = `"` }, []string{"realm"}},
	} {
		c := Default()
		c.File = "keys.yaml"
		tt.change(&c)
		var keys []string
		for _, p := range setting.Problems(c.Validate()) {
			keys = append(keys, p.Key)
		}
		if d := cmp.Diff(tt.keys, keys); d != "" {
			t.Errorf("%s:\n%s", name, d)
		}
	}
	c := Default()
	if c.Insecure() != nil {
		t.Error("the default is called insecure")
	}
	c.InsecureQueryParameter = "key"
	if c.Insecure()["insecure_query_parameter"] == "" {
		t.Error("a key in the URL is not called insecure")
	}
}

func TestGenerate(t *testing.T) {
	form := regexp.MustCompile(`^spk_[a-z2-7]{32}$`)
	a, hash := Generate()
	b, _ := Generate()
	if a == b || !form.MatchString(a) || !form.MatchString(b) || len(hash) != 64 {
		t.Errorf("got %q, %q and %q", a, b, hash)
	}
}

func TestChallenge(t *testing.T) {
	a := newTest(t, "[]", nil)
	if got, want := a.Challenge(nil), `Key realm="sallyport", header="x-api-key"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := a.Challenge(authn.ErrInsufficientScope); got != "" {
		t.Errorf("for a scope that lacks: got %s; another key is no remedy that the client has", got)
	}
}

// TestNotMineIsFree pins that requests without a key cost no memory.
func TestNotMineIsFree(t *testing.T) {
	a := newTest(t, "[]", func(c *Config) { c.InsecureQueryParameter = "key" })
	r := &authn.Request{Headers: []authz.Header{{Name: "accept", Value: "*/*"}}, RawQuery: "a=b&c=d", Now: testNow}
	if n := testing.AllocsPerRun(100, func() {
		if _, err := a.Authenticate(t.Context(), r); !errors.Is(err, authn.ErrNotMine) {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
