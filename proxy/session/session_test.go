package session

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
)

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// jar is a browser: it keeps cookies and sends them.
type jar map[string]string

// visit makes a request as the browser would.
func (j jar) visit(at time.Time) *authn.Request {
	var pairs []string
	for name, value := range j {
		pairs = append(pairs, name+"="+value)
	}
	slices.Sort(pairs)
	r := &authn.Request{Now: at, Scheme: "https", Host: "app.example", Method: "GET"}
	if len(pairs) > 0 {
		r.Headers = []authz.Header{{Name: "cookie", Value: strings.Join(pairs, "; ")}}
	}
	return r
}

// take keeps what the response sets.
func (j jar) take(r *authn.Request) {
	for _, h := range r.Response {
		if h.Name != "set-cookie" {
			continue
		}
		pair, attributes, _ := strings.Cut(h.Value, ";")
		name, value, _ := strings.Cut(pair, "=")
		if delete(j, name); !strings.Contains(attributes, "Max-Age=0") {
			j[name] = value
		}
	}
}

func newBrowser(t *testing.T, name string, change func(*Config), now func() time.Time) *Browser {
	t.Helper()
	c := Default()
	if change != nil {
		change(&c)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	keys, err := NewKeys(c.KeysFiles)
	if err != nil {
		t.Fatal(err)
	}
	if now == nil {
		now = func() time.Time { return epoch }
	}
	return NewBrowser(name, c, keys, Deps{Now: now})
}

func someone(filler int) *Session {
	return &Session{
		Provider: "login", Issuer: "https://idp.example", Subject: "alice", SID: "s1",
		Claims: map[string]any{"email": "a@example.com", "filler": strings.Repeat("x", filler)}, Scopes: []string{"openid"},
		IDToken: "header.payload.signature", AccessToken: "at1", RefreshToken: "rt1", AccessEnds: epoch.Add(time.Minute).Unix(),
	}
}

// logIn creates a session and returns the browser that has it.
func logIn(t *testing.T, b Store, s *Session, at time.Time) jar {
	t.Helper()
	j := jar{}
	r := j.visit(at)
	if err := b.Create(t.Context(), r, s); err != nil {
		t.Fatal(err)
	}
	j.take(r)
	return j
}

func load(t *testing.T, b Store, j jar, at time.Time) (*Session, error) {
	t.Helper()
	return b.Load(t.Context(), j.visit(at))
}

func TestSessionsComeBack(t *testing.T) {
	for _, filler := range []int{0, 3000, 9000} {
		b := newBrowser(t, "login", nil, nil)
		s := someone(filler)
		j := logIn(t, b, s, epoch)
		if want := 1 + filler*4/3/chunkSize; len(j) < want {
			t.Errorf("%d bytes: %d cookies, want at least %d", filler, len(j), want)
		}
		r := j.visit(epoch.Add(time.Minute))
		got, err := b.Load(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(s, got, cmpopts.IgnoreUnexported(Session{})); d != "" {
			t.Error(d)
		}
		_, spent := r.Spent()
		if len(spent) != len(j) {
			t.Errorf("%d cookies of %d end at the gateway", len(spent), len(j))
		}
	}
}

func TestCookieAttributes(t *testing.T) {
	for _, tc := range []struct {
		scheme, host, domain, name, attributes string
	}{
		{"https", "app.example", "", "__Host-sallyport-login", "; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=3600"},
		{"https", "app.example.com", "example.com", "__Secure-sallyport-login", "; Path=/; HttpOnly; SameSite=Lax; Secure; Domain=example.com; Max-Age=3600"},
		{"http", "127.0.0.1:8080", "", "sallyport-insecure-login", "; Path=/; HttpOnly; SameSite=Lax; Max-Age=3600"},
	} {
		b := newBrowser(t, "login", func(c *Config) { c.CookieDomain = tc.domain }, nil)
		r := &authn.Request{Now: epoch, Scheme: tc.scheme, Host: tc.host}
		if err := b.Create(t.Context(), r, someone(0)); err != nil {
			t.Fatal(err)
		}
		name, rest, _ := strings.Cut(r.Response[0].Value, "=")
		_, attributes, _ := strings.Cut(rest, ";")
		if name != tc.name || ";"+attributes != tc.attributes {
			t.Errorf("%s%s: cookie %s with %q, want %s with %q", tc.scheme, tc.host, name, ";"+attributes, tc.name, tc.attributes)
		}
		if !slices.Contains(r.Response, authz.Header{Name: "cache-control", Value: `no-cache="set-cookie"`}) {
			t.Error("a shared cache may keep the cookie")
		}
	}
	if a, b := NewCookies("a.b", ""), NewCookies("a_2eb", ""); a.secure == b.secure {
		t.Error("two names become one cookie")
	}
}

func TestProtected(t *testing.T) {
	for at, want := range map[string]bool{
		"https app.example": true, "http app.example": false, "http localhost": true, "http localhost:8080": true, "http 127.0.0.1": true,
		"http 127.9.9.9:1": true, "http [::1]": true, "http [::1]:80": true, "http localhost.example": false, "http 10.0.0.1:80": false,
		"http 127.0.0.1.example": false,
	} {
		scheme, host, _ := strings.Cut(at, " ")
		if got := Protected(&authn.Request{Scheme: scheme, Host: host}); got != want {
			t.Errorf("%s: %v, want %v", at, got, want)
		}
	}
}

// TestNoSession: what a browser may send that is no session.
func TestNoSession(t *testing.T) {
	const name = "__Host-sallyport-login"
	b := newBrowser(t, "login", nil, nil)
	whole := logIn(t, b, someone(9000), epoch)
	other := logIn(t, b, someone(9000), epoch)
	if len(whole) < 3 {
		t.Fatalf("%d cookies; the rows below need 3", len(whole))
	}
	change := func(f func(jar)) jar {
		j := jar{}
		maps.Copy(j, whole)
		f(j)
		return j
	}
	flip := func(s string, i int) string {
		c := byte('A')
		if s[i] == c {
			c = 'B'
		}
		return s[:i] + string(c) + s[i+1:]
	}
	rows := map[string]jar{
		"nothing":             {},
		"empty":               {name: ""},
		"no count":            {name: "abc"},
		"count of nothing":    change(func(j jar) { j[name] = "0." + j[name][2:] }),
		"count too small":     change(func(j jar) { j[name] = "1." + j[name][2:] }),
		"count too large":     change(func(j jar) { j[name] = "9." + j[name][2:] }),
		"negative count":      change(func(j jar) { j[name] = "-3." + j[name][2:] }),
		"last one missing":    change(func(j jar) { delete(j, fmt.Sprintf("%s.%d", name, len(whole)-1)) }),
		"one in between":      change(func(j jar) { delete(j, name+".1") }),
		"first one missing":   change(func(j jar) { delete(j, name) }),
		"one is empty":        change(func(j jar) { j[name+".1"] = "" }),
		"truncated":           change(func(j jar) { j[name+".2"] = j[name+".2"][:len(j[name+".2"])-1] }),
		"longer":              change(func(j jar) { j[name+".2"] += "A" }),
		"padded":              change(func(j jar) { j[name+".2"] += "=" }),
		"exchanged":           change(func(j jar) { j[name+".1"], j[name+".2"] = j[name+".2"], j[name+".1"] }),
		"of another session":  change(func(j jar) { j[name+".1"] = other[name+".1"] }),
		"twice":               change(func(j jar) { j[name+".01"] = j[name+".1"] }),
		"one too many":        change(func(j jar) { j[name+".7"] = "x" }),
		"version":             change(func(j jar) { j[name] = j[name][:2] + flip(j[name][2:], 0) }),
		"key id":              change(func(j jar) { j[name] = j[name][:2] + flip(j[name][2:], 3) }),
		"nonce":               change(func(j jar) { j[name] = j[name][:2] + flip(j[name][2:], 20) }),
		"text":                change(func(j jar) { j[name] = j[name][:2] + flip(j[name][2:], 1000) }),
		"text in the middle":  change(func(j jar) { j[name+".1"] = flip(j[name+".1"], 100) }),
		"tag":                 change(func(j jar) { j[name+".2"] = flip(j[name+".2"], len(j[name+".2"])-10) }),
		"under another name":  {"__Host-sallyport-other": whole[name]},
		"under the plain one": {"sallyport-insecure-login": whole[name]},
	}
	for row, j := range rows {
		if s, err := load(t, b, j, epoch); !errors.Is(err, ErrNone) || s != nil {
			t.Errorf("%s: got %v, %v; want no session", row, s, err)
		}
	}
	if _, err := load(t, b, whole, epoch); err != nil {
		t.Errorf("the session itself: %v", err)
	}
	doubled := whole.visit(epoch)
	doubled.Headers[0].Value += "; " + name + "=" + other[name]
	if _, err := b.Load(t.Context(), doubled); !errors.Is(err, ErrNone) {
		t.Errorf("a second cookie of that name: %v", err)
	}
	if _, err := load(t, newBrowser(t, "login", nil, nil), whole, epoch); !errors.Is(err, ErrNone) {
		t.Errorf("another gateway's: %v", err)
	}
	namesake := NewBrowser("other", Default(), b.keys, Deps{})
	if _, err := load(t, namesake, jar{"__Host-sallyport-other": logIn(t, b, someone(0), epoch)[name]}, epoch); !errors.Is(err, ErrNone) {
		t.Errorf("another authenticator's with the same keys: %v", err)
	}
}

func TestTooLarge(t *testing.T) {
	b := newBrowser(t, "login", nil, nil)
	r := jar{}.visit(epoch)
	s := someone(0)
	s.IDToken = strings.Repeat("i", chunkSize*maxChunks)
	if err := b.Create(t.Context(), r, s); err != nil || s.IDToken != "" {
		t.Errorf("a large ID token is not needed: %v", err)
	}
	if err := b.Create(t.Context(), r, someone(chunkSize*maxChunks)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
}

func TestLimits(t *testing.T) {
	b := newBrowser(t, "login", func(c *Config) { c.Lifetime, c.IdleTimeout = 2*time.Hour, time.Hour }, nil)
	j := logIn(t, b, someone(0), epoch)
	for after, alive := range map[time.Duration]bool{
		0: true, time.Hour - time.Second: true, time.Hour: false, 24 * time.Hour: false, -30 * time.Second: true, -2 * time.Minute: false,
	} {
		if _, err := load(t, b, j, epoch.Add(after)); (err == nil) != alive {
			t.Errorf("after %s: %v", after, err)
		}
	}
	noted := 0
	// In use it lives to the end of its lifetime, and no longer.
	for after := 5 * time.Minute; after < 3*time.Hour; after += 5 * time.Minute {
		r := j.visit(epoch.Add(after))
		s, err := b.Load(t.Context(), r)
		if (err == nil) != (after < 2*time.Hour) {
			t.Fatalf("after %s: %v", after, err)
		}
		if err != nil {
			continue
		}
		if err := b.Touch(t.Context(), r, s); err != nil {
			t.Fatal(err)
		}
		if len(r.Response) > 0 {
			noted++
		}
		j.take(r)
	}
	if noted != 11 { // a tenth of the idle time is 6 minutes: every second request
		t.Errorf("the use was noted %d times", noted)
	}
	r := logIn(t, b, someone(0), epoch).visit(epoch.Add(time.Minute))
	s, err := b.Load(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Touch(t.Context(), r, s); err != nil || len(r.Response) > 0 {
		t.Errorf("a minute after the login: %v, %v; want no cookie", r.Response, err)
	}
}

func TestKeysAreExchanged(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	first := base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))
	second := strings.Repeat("0f", 32)
	a, z := file("a", first+"\n"), file("z", second)
	b := newBrowser(t, "login", func(c *Config) { c.KeysFiles = []string{a} }, nil)
	replica := newBrowser(t, "login", func(c *Config) { c.KeysFiles = []string{z, a} }, nil)
	j := logIn(t, b, someone(0), epoch)
	if _, err := load(t, replica, j, epoch); err != nil {
		t.Errorf("the old key opens: %v", err)
	}
	fresh := logIn(t, replica, someone(0), epoch)
	if _, err := load(t, b, fresh, epoch); !errors.Is(err, ErrNone) {
		t.Errorf("sealed with a key that is not there: %v", err)
	}
	if _, err := load(t, b, j, epoch); err != nil {
		t.Fatal(err)
	}
	file("a", second)
	if err := b.keys.Reload(); err != nil {
		t.Fatal(err)
	}
	if _, err := load(t, b, j, epoch); !errors.Is(err, ErrNone) {
		t.Errorf("the key was taken away: %v", err)
	}
	if _, err := load(t, b, fresh, epoch); err != nil {
		t.Errorf("the key came: %v", err)
	}
	file("a", "short")
	if err := b.keys.Reload(); err == nil {
		t.Error("a broken key was taken")
	}
	if _, err := load(t, b, fresh, epoch); err != nil {
		t.Errorf("after a reload that failed: %v", err)
	}
}

func TestKeyFiles(t *testing.T) {
	thirtyTwo := strings.Repeat("k", 32)
	for text, ok := range map[string]bool{
		base64.StdEncoding.EncodeToString([]byte(thirtyTwo)): true, base64.RawURLEncoding.EncodeToString([]byte(thirtyTwo)): true,
		strings.Repeat("aB", 32): true, "": false, thirtyTwo: false, strings.Repeat("ab", 31): false, base64.StdEncoding.EncodeToString([]byte("password")): false,
		base64.StdEncoding.EncodeToString([]byte(thirtyTwo + "k")): false,
	} {
		if _, err := parseKey(text); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := NewKeys([]string{"/nonexistent"}); err == nil {
		t.Error("a missing file was taken")
	}
	path := filepath.Join(t.TempDir(), "k")
	if err := os.WriteFile(path, []byte(strings.Repeat("ab", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewKeys([]string{path, path}); err == nil {
		t.Error("one key was taken twice")
	}
}

// TestSealedForOnePurpose: a login that began is no session.
func TestSealedForOnePurpose(t *testing.T) {
	k, err := NewKeys(nil)
	if err != nil {
		t.Fatal(err)
	}
	sealed := k.Seal("login", []byte("text"))
	if text, err := k.Open("login", sealed); err != nil || string(text) != "text" {
		t.Errorf("got %q, %v", text, err)
	}
	for _, other := range []string{"session", "login2", ""} {
		if _, err := k.Open(other, sealed); err == nil {
			t.Errorf("opened for %q", other)
		}
	}
}

func TestTokens(t *testing.T) {
	k, err := NewKeys(nil)
	if err != nil {
		t.Fatal(err)
	}
	token := k.Token("logout", "s1")
	for _, tc := range []struct {
		purpose, of, token string
		ok                 bool
	}{
		{"logout", "s1", token, true},
		{"logout", "s2", token, false},
		{"login", "s1", token, false},
		{"logout", "s1", "", false},
		{"logout", "s1", token + "A", false},
		{"logout", "s1", token[:20], false},
	} {
		if got := k.CheckToken(tc.purpose, tc.of, tc.token); got != tc.ok {
			t.Errorf("%+v: %v", tc, got)
		}
	}
}

// TestEndedSessionsStayEnded: a copy of the cookie is good for nothing.
func TestEndedSessionsStayEnded(t *testing.T) {
	now := epoch
	b := newBrowser(t, "login", nil, func() time.Time { return now })
	for name, end := range map[string]func(jar, *Session) error{
		"logout":     func(j jar, s *Session) error { return b.End(t.Context(), j.visit(now), s) },
		"new login":  func(j jar, _ *Session) error { return b.Create(t.Context(), j.visit(now), someone(0)) },
		"by sid":     func(jar, *Session) error { return b.Revoke(t.Context(), "https://idp.example", "s1", "") },
		"by subject": func(jar, *Session) error { return b.Revoke(t.Context(), "https://idp.example", "", "alice") },
		"by sid that is known": func(jar, *Session) error {
			return b.RevokeKnown(t.Context(), "https://idp.example", "s1")
		},
		"renewal refused": func(j jar, s *Session) error {
			_, err := b.Renew(t.Context(), j.visit(now), s, func(context.Context, *Session) (*Session, error) { return nil, ErrNone })
			if !errors.Is(err, ErrNone) {
				return fmt.Errorf("got %w", err)
			}
			return nil
		},
	} {
		now = now.Add(time.Minute)
		j := logIn(t, b, someone(0), now)
		s, err := load(t, b, j, now)
		if err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Second)
		if err := end(j, s); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := load(t, b, j, now); !errors.Is(err, ErrNone) {
			t.Errorf("%s: the cookie is still good: %v", name, err)
		}
		after := newBrowser(t, "login", nil, func() time.Time { return now })
		after.keys.Adopt(b.keys)
		after.Adopt(b)
		if _, err := load(t, after, j, now); !errors.Is(err, ErrNone) {
			t.Errorf("%s: the cookie is good again after a reload: %v", name, err)
		}
		now = now.Add(time.Second)
		if _, err := load(t, after, logIn(t, b, someone(0), now), now); err != nil {
			t.Errorf("%s: a new login: %v", name, err)
		}
	}
}

func TestRevocationsOfOthers(t *testing.T) {
	b := newBrowser(t, "login", nil, func() time.Time { return epoch.Add(time.Second) })
	j := logIn(t, b, someone(0), epoch)
	for name, err := range map[string]error{
		"another sid":     b.Revoke(t.Context(), "https://idp.example", "s2", ""),
		"another subject": b.Revoke(t.Context(), "https://idp.example", "", "bob"),
		"another issuer":  b.Revoke(t.Context(), "https://other.example", "s1", ""),
		"unknown sid":     b.RevokeKnown(t.Context(), "https://idp.example", "s9"),
	} {
		if _, loadErr := load(t, b, j, epoch.Add(2*time.Second)); err != nil || loadErr != nil {
			t.Errorf("%s: %v, %v", name, err, loadErr)
		}
	}
	if n := len(b.memory.revoked.entries); n != 3 {
		t.Errorf("%d revocations are noted; one of a sid that nobody knows must not be", n)
	}
}

func TestCookiesThatAreTooManyGo(t *testing.T) {
	b := newBrowser(t, "login", nil, nil)
	j := logIn(t, b, someone(9000), epoch)
	r := j.visit(epoch)
	if err := b.Create(t.Context(), r, someone(0)); err != nil {
		t.Fatal(err)
	}
	if j.take(r); len(j) != 1 {
		t.Errorf("cookies %v, want one", len(j))
	}
	if _, err := load(t, b, j, epoch); err != nil {
		t.Error(err)
	}
	r = j.visit(epoch)
	if err := b.End(t.Context(), r, nil); err != nil {
		t.Fatal(err)
	}
	if j.take(r); len(j) != 0 {
		t.Errorf("cookies %v, want none", j)
	}
	r = jar{"__Host-sallyport-login\x00": "x", "__Host-sallyport-login.": "y"}.visit(epoch)
	b.cookies.Clear(r)
	for _, h := range r.Response {
		if strings.ContainsAny(h.Value, "\x00\r\n") {
			t.Errorf("the response has what the client wrote: %q", h.Value)
		}
	}
}

// TestLedgerIsBounded: when it is full it takes too much for noted, never too little.
func TestLedgerIsBounded(t *testing.T) {
	l := newLedger(100)
	for i := range 1000 {
		at := epoch.Add(time.Duration(i) * time.Second)
		l.note(digestOf(fmt.Sprint(i)), at, at.Add(time.Hour), at)
	}
	if len(l.entries) > 100 || len(l.queue) > 100 {
		t.Errorf("%d entries", len(l.entries))
	}
	for _, i := range []int{0, 500, 899, 900, 999} {
		at := epoch.Add(time.Duration(i) * time.Second)
		if !l.covers(at, digestOf(fmt.Sprint(i))) {
			t.Errorf("note %d is forgotten", i)
		}
	}
	if l.covers(epoch.Add(950*time.Second), digestOf("other")) || l.covers(epoch.Add(1000*time.Second), digestOf("999")) {
		t.Error("what is younger counts as noted")
	}
	late := epoch.Add(48 * time.Hour)
	l = newLedger(100)
	l.note(digestOf("a"), epoch, epoch.Add(time.Hour), epoch)
	l.note(digestOf("b"), late, late.Add(time.Hour), late)
	if len(l.entries) != 1 || l.floor != 0 {
		t.Errorf("what is over is kept: %v, floor %d", l.entries, l.floor)
	}
}

func TestOnce(t *testing.T) {
	b := newBrowser(t, "login", nil, nil)
	for i, want := range []bool{true, false, false} {
		if got, err := b.Seen(t.Context(), "k", epoch); got == want || err != nil {
			t.Errorf("seen before time %d: %v %v", i, got, err)
		}
		if got, err := b.Once(t.Context(), "k", epoch, time.Minute); got != want || err != nil {
			t.Errorf("time %d: %v %v", i, got, err)
		}
	}
	for i := range maxOnce + 10 {
		_, _ = b.Once(t.Context(), fmt.Sprint(i), epoch.Add(time.Duration(i)*time.Millisecond), time.Hour)
	}
	if got, _ := b.Once(t.Context(), "k", epoch, time.Minute); got {
		t.Error("a key that was forgotten for want of room is new again")
	}
	if got, _ := b.Seen(t.Context(), "k", epoch); !got {
		t.Error("a key that was forgotten for want of room has not been seen")
	}
}

// TestRenewalHappensOnce: many requests come with the old cookie.
func TestRenewalHappensOnce(t *testing.T) {
	b := newBrowser(t, "login", nil, nil)
	j := logIn(t, b, someone(0), epoch)
	var asked atomic.Int64
	gate := make(chan struct{})
	renew := func(_ context.Context, s *Session) (*Session, error) {
		asked.Add(1)
		<-gate
		next := s.Copy()
		next.AccessToken = "at2"
		return next, nil
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			r := j.visit(epoch)
			s, err := b.Load(t.Context(), r)
			if err == nil {
				s, err = b.Renew(t.Context(), r, s, renew)
			}
			if err != nil || s.AccessToken != "at2" || len(r.Response) == 0 {
				t.Errorf("got %v, %v", s, err)
			}
		})
	}
	close(gate)
	wg.Wait()
	if asked.Load() != 1 {
		t.Errorf("renewed %d times", asked.Load())
	}
	// One who comes late with the old cookie gets the new session too, unless it ended.
	s, err := load(t, b, j, epoch)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.End(t.Context(), jar{}.visit(epoch), s); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Renew(t.Context(), j.visit(epoch), s, renew); !errors.Is(err, ErrNone) {
		t.Errorf("a session that ended was renewed: %v", err)
	}
}

func TestRenewalThatFails(t *testing.T) {
	now := epoch
	b := newBrowser(t, "login", nil, func() time.Time { return now })
	j := logIn(t, b, someone(0), epoch)
	s, err := load(t, b, j, epoch)
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	renew := func(context.Context, *Session) (*Session, error) {
		asked++
		if asked == 2 {
			panic("renewal")
		}
		return nil, authn.ErrUnavailable
	}
	for _, step := range []struct {
		after time.Duration
		asked int
	}{{0, 1}, {time.Second, 1}, {unreachableFor, 2}, {time.Second, 2}, {unreachableFor, 3}} {
		now = now.Add(step.after)
		if _, err := b.Renew(t.Context(), j.visit(now), s, renew); err == nil || errors.Is(err, ErrNone) || asked != step.asked {
			t.Errorf("asked %d times, want %d: %v", asked, step.asked, err)
		}
	}
	if _, err := load(t, b, j, now); err != nil {
		t.Errorf("the session ended although the provider was away: %v", err)
	}
}

func TestConfig(t *testing.T) {
	for name, c := range map[string]Config{
		"lifetime": {Lifetime: time.Second}, "idle_timeout": {IdleTimeout: time.Second}, "cookie_domain": {CookieDomain: "com"},
		"cookie_domain: \"10.0.0.1\"": {CookieDomain: "10.0.0.1"}, "cookie_domain: \"a.example;\"": {CookieDomain: "a.example;"},
		"cookie_domain: \"co.uk\"": {CookieDomain: "co.uk"}, "cookie_domain: \"github.io\"": {CookieDomain: "github.io"},
	} {
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if c := Default(); len(c.Insecure()) != 1 {
		t.Errorf("a generated key is not told: %v", c.Insecure())
	}
}
