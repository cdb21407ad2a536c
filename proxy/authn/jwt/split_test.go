package jwt

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/engine/meter/metertest"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/anonymous"
	"github.com/sallyport/sallyport/proxy/authn/dpop"
	"github.com/sallyport/sallyport/proxy/authn/jose/josetest"
	"github.com/sallyport/sallyport/proxy/authn/limit"
	"github.com/sallyport/sallyport/proxy/authn/splittoken"
	"github.com/sallyport/sallyport/proxy/redis"
	"github.com/sallyport/sallyport/proxy/redis/redistest"
)

// shelf is a web server with the records of split tokens.
type shelf struct {
	*httptest.Server
	asked atomic.Int64
	last  atomic.Pointer[http.Header]

	mu      sync.Mutex
	records map[string]string // by hash
	status  int               // in place of an answer; 0: answer
}

func newShelf(t *testing.T) *shelf {
	t.Helper()
	s := &shelf{records: map[string]string{}}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *shelf) serve(w http.ResponseWriter, r *http.Request) {
	s.asked.Add(1)
	s.last.Store(&r.Header)
	s.mu.Lock()
	defer s.mu.Unlock()
	record, ok := s.records[strings.TrimPrefix(r.URL.Path, "/split/")]
	switch {
	case s.status != 0:
		w.WriteHeader(s.status)
	case !ok:
		http.NotFound(w, r)
	default:
		_, _ = io.WriteString(w, record)
	}
}

// answers has every question answered with a status alone; 0: with what is stored.
func (s *shelf) answers(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
}

// put stores record for a signature; an empty one takes it away.
func (s *shelf) put(signature, record string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.records[hashOf(signature)] = record; record == "" {
		delete(s.records, hashOf(signature))
	}
}

// split stores the header and the payload of token and returns its signature.
func (s *shelf) split(token string) string {
	record, signature := halves(token)
	s.put(signature, record)
	return signature
}

// hashOf is what the authorization server computes.
func hashOf(signature string) string {
	sum := sha256.Sum256([]byte(signature))
	return hex.EncodeToString(sum[:])
}

func halves(token string) (record, signature string) {
	dot := strings.LastIndexByte(token, '.')
	return token[:dot], token[dot+1:]
}

func (s *shelf) config() *splittoken.Config {
	c := splittoken.Default()
	c.URL = s.URL + "/split/{hash}"
	return &c
}

func splitting(t *testing.T, deps Deps, c *splittoken.Config, signers ...*josetest.Signer) *Authenticator {
	t.Helper()
	a := newWith(t, deps, func(all *Config) { all.SplitToken = c }, signers...)
	t.Cleanup(a.split.finder.Close)
	return a
}

func TestSplitToken(t *testing.T) {
	for _, alg := range []string{"RS256", "PS256", "ES256", "EdDSA"} {
		t.Run(alg, func(t *testing.T) {
			key, s := josetest.New(t, "k1", alg), newShelf(t)
			a := splitting(t, Deps{}, s.config(), key)
			whole := key.Sign(t, key.Header(), claims(testIssuer, nil))
			signature := s.split(whole)
			for range 2 { // the second time from the cache
				r := &authn.Request{Authorization: "Bearer " + signature, Now: testNow}
				id, err := a.Authenticate(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				if id.Subject != "alice" || id.Kind != Kind || id.TokenHeader["alg"] != alg || r.Token != whole {
					t.Errorf("identity %+v; the whole JWT stands for the caller: %v", id, r.Token == whole)
				}
			}
			if n := s.asked.Load(); n != 1 {
				t.Errorf("%d look-ups, want 1", n)
			}
			if _, err := present(t, a, whole); err != nil {
				t.Errorf("the whole JWT: %v", err)
			}
		})
	}
}

// TestSplitTokenRefused: what is joined is judged by all the rules of a JWT, and what
// is wrong about it stays refused without further look-ups.
func TestSplitTokenRefused(t *testing.T) {
	key, other, s := josetest.New(t, "k1", "RS256"), josetest.New(t, "k1", "RS256"), newShelf(t)
	strange, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	other.Private = strange
	sign := func(change map[string]any) string { return key.Sign(t, key.Header(), claims(testIssuer, change)) }
	under := func(token, record string) string {
		_, signature := halves(token)
		s.put(signature, record)
		return signature
	}
	mallory, _ := halves(sign(map[string]any{"sub": "mallory"}))
	plain, _ := halves(key.Sign(t, map[string]any{"alg": "none"}, claims(testIssuer, nil)))
	good := s.split(sign(nil))
	for _, tt := range []struct {
		name, token string
		want        error
		lookups     int64
	}{
		{"good", good, nil, 1},
		{"not stored", josetest.Base64(make([]byte, 256)), authn.ErrForeign, 1},
		{"signed by another key", s.split(other.Sign(t, key.Header(), claims(testIssuer, nil))), authn.ErrSignature, 1},
		{"payload of another token", under(sign(map[string]any{"jti": "1"}), mallory), authn.ErrSignature, 1},
		{"header says none", under(sign(map[string]any{"jti": "2"}), plain), authn.ErrInvalid, 1},
		{"expired", s.split(sign(map[string]any{"exp": testNow.Add(-time.Hour).Unix()})), authn.ErrExpired, 1},
		{"another audience", s.split(sign(map[string]any{"aud": "billing"})), authn.ErrAudience, 1},
		{"another issuer", s.split(sign(map[string]any{"iss": "https://other.example"})), authn.ErrIssuer, 1},
		{"a logout token", s.split(key.Sign(t, changed(key.Header(), map[string]any{"typ": "logout+jwt"}), claims(testIssuer, nil))), authn.ErrInvalid, 1},
		{"a byte too short", josetest.Base64(make([]byte, 255)), authn.ErrForeign, 0},
		{"an opaque token", "mF_9.B5f-4.1JqM", authn.ErrForeign, 0},
		{"not canonical", good[:len(good)-1] + "B", authn.ErrForeign, 0},
		{"with padding", good + "==", authn.ErrForeign, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := splitting(t, Deps{}, s.config(), key)
			before := s.asked.Load()
			for range 3 {
				r := &authn.Request{Authorization: "Bearer " + tt.token, Now: testNow}
				_, err := a.Authenticate(t.Context(), r)
				if !errors.Is(err, tt.want) || tt.want != nil && (errors.Is(err, authn.ErrUnavailable) || r.Token != "") {
					t.Errorf("got %v, want %v; left token %q", err, tt.want, r.Token)
				}
				if tt.want != nil && !errors.Is(err, authn.ErrForeign) && !errors.Is(err, authn.ErrInvalid) {
					t.Errorf("class of %v", err)
				}
			}
			if n := s.asked.Load() - before; n != tt.lookups {
				t.Errorf("%d look-ups, want %d", n, tt.lookups)
			}
		})
	}
}

// TestSplitTokenIsNobodys: a signature that nobody knows never falls through to
// anonymous.
func TestSplitTokenIsNobodys(t *testing.T) {
	key, s := josetest.New(t, "k1", "RS256"), newShelf(t)
	chain, err := authn.New([]authn.Named{
		{Name: "split", Authenticator: splitting(t, Deps{}, s.config(), key)},
		{Name: "anyone", Authenticator: anonymous.New("anyone", anonymous.Config{})},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	id, err := chain.Authenticate(t.Context(), &authn.Request{Authorization: "Bearer " + josetest.Base64(make([]byte, 256)), Now: testNow})
	if !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("got %+v, %v, want ErrInvalid", id, err)
	}
}

// TestSplitTokenWithoutStore: a store that does not answer, or answers nonsense, closes;
// it is asked again, and what was verified goes on.
func TestSplitTokenWithoutStore(t *testing.T) {
	key, s := josetest.New(t, "k1", "RS256"), newShelf(t)
	a := splitting(t, Deps{}, s.config(), key)
	known := s.split(key.Sign(t, key.Header(), claims(testIssuer, nil)))
	if _, err := present(t, a, known); err != nil {
		t.Fatal(err)
	}
	next := s.split(key.Sign(t, key.Header(), claims(testIssuer, map[string]any{"sub": "bob"})))
	right := maps.Clone(s.records)
	for name, spoil := range map[string]func(){
		"500":            func() { s.answers(http.StatusInternalServerError) },
		"401":            func() { s.answers(http.StatusUnauthorized) },
		"200 empty":      func() { s.answers(http.StatusOK) },
		"garbage":        func() { s.put(next, "<html>") },
		"no payload":     func() { s.put(next, "eyJ9.") },
		"huge":           func() { s.put(next, "a."+strings.Repeat("b", 17<<10)) },
		"somebody's JWT": func() { s.put(next, key.Sign(t, key.Header(), claims(testIssuer, nil))) },
	} {
		spoil()
		if _, err := present(t, a, next); !errors.Is(err, authn.ErrUnavailable) || errors.Is(err, authn.ErrInvalid) || errors.Is(err, authn.ErrNotMine) {
			t.Errorf("%s: got %v, want ErrUnavailable", name, err)
		}
		if _, err := present(t, a, known); err != nil {
			t.Errorf("%s: what was verified before: %v", name, err)
		}
		s.answers(0)
		s.put(next, right[hashOf(next)])
	}
	if _, err := present(t, a, next); err != nil {
		t.Errorf("once the store is right again: %v", err)
	}
	s.Close()
	if _, err := present(t, a, josetest.Base64(make([]byte, 256))); !errors.Is(err, authn.ErrUnavailable) {
		t.Errorf("without a server: %v, want ErrUnavailable", err)
	}
}

// TestSplitTokenAges: a record that was deleted opens until max_age and no longer, and
// none longer than its token.
func TestSplitTokenAges(t *testing.T) {
	key, s := josetest.New(t, "k1", "RS256"), newShelf(t)
	a := splitting(t, Deps{}, s.config(), key)
	gone := s.split(key.Sign(t, key.Header(), claims(testIssuer, nil)))
	short := s.split(key.Sign(t, key.Header(), claims(testIssuer, map[string]any{"exp": testNow.Unix() + 10})))
	for _, token := range []string{gone, short} {
		if _, err := present(t, a, token); err != nil {
			t.Fatal(err)
		}
	}
	s.put(gone, "")
	for _, tt := range []struct {
		name, token string
		after       time.Duration
		want        error
	}{
		{"deleted, before max_age", gone, 59 * time.Second, nil},
		{"deleted, after max_age", gone, time.Minute, authn.ErrForeign},
		{"token within its time and leeway", short, 39 * time.Second, nil},
		{"token after its time", short, 40 * time.Second, authn.ErrExpired},
	} {
		if _, err := presentAt(t, a, tt.token, testNow.Add(tt.after)); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
	always := s.config()
	always.MaxAge = 0
	a = splitting(t, Deps{}, always, key)
	token := s.split(key.Sign(t, key.Header(), claims(testIssuer, map[string]any{"sub": "carol"})))
	if _, err := present(t, a, token); err != nil {
		t.Errorf("max_age 0: %v", err)
	}
	s.put(token, "")
	if _, err := present(t, a, token); !errors.Is(err, authn.ErrForeign) {
		t.Errorf("max_age 0, deleted: %v, want ErrForeign", err)
	}
}

// TestSplitTokenLimit: a client with made-up signatures buys a number of look-ups and no
// more; what was verified passes, and other clients notice nothing. All is counted.
func TestSplitTokenLimit(t *testing.T) {
	key, s, metrics := josetest.New(t, "k1", "RS256"), newShelf(t), meter.New()
	c := s.config()
	c.LookupLimit = limit.Config{Failures: 1, Burst: 3}
	a := splitting(t, Deps{Metrics: metrics}, c, key)
	known := s.split(key.Sign(t, key.Header(), claims(testIssuer, nil)))
	fresh := s.split(key.Sign(t, key.Header(), claims(testIssuer, map[string]any{"sub": "bob"})))
	const forger, other = "192.0.2.1", "192.0.2.2"
	if _, err := from(t, a, forger, known, testNow); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		made := make([]byte, 256)
		made[0] = byte(i)
		_, err := from(t, a, forger, josetest.Base64(made), testNow)
		tooMany := (*authn.TooManyError)(nil)
		if limited := i >= 3; errors.As(err, &tooMany) != limited || errors.Is(err, authn.ErrForeign) == limited {
			t.Fatalf("made-up signature %d: %v", i, err)
		}
		if tooMany != nil && tooMany.RetryAfter <= 0 {
			t.Errorf("no time to come again: %+v", tooMany)
		}
	}
	for _, tc := range []struct {
		name, client, token string
		want                error
	}{
		{"verified before", forger, known, nil},
		{"not yet seen", forger, fresh, authn.ErrTooMany},
		{"of another client", other, fresh, nil},
	} {
		if _, err := from(t, a, tc.client, tc.token, testNow); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, err, tc.want)
		}
	}
	for outcome, want := range map[string]int64{"found": 2, "unknown": 3, "limited": 18} {
		if got := metertest.Counts(metrics)["sallyport.split.token.lookups authenticator=corp,outcome="+outcome]; got != want {
			t.Errorf("counted %d %s, want %d", got, outcome, want)
		}
	}
	if n := s.asked.Load(); n != 5 {
		t.Errorf("%d look-ups, want 5", n)
	}
}

// TestSplitTokenBound: what a split token is bound to is proven for the signature, the
// token that the client has (RFC 9449 section 4.3, ath).
func TestSplitTokenBound(t *testing.T) {
	key, holder, s := josetest.New(t, "k1", "RS256"), josetest.New(t, "", "ES256"), newShelf(t)
	a := splitting(t, Deps{}, s.config(), key)
	whole := boundToken(t, key, holder, nil)
	signature := s.split(whole)
	if _, err := a.Authenticate(t.Context(), proven(signature, prove(t, holder, signature, nil, nil))); err != nil {
		t.Errorf("proven: %v", err)
	}
	if _, err := a.Authenticate(t.Context(), proven(signature, prove(t, holder, whole, nil, nil))); !errors.Is(err, dpop.ErrProof) {
		t.Errorf("a proof for the whole JWT: %v, want ErrProof", err)
	}
	if _, err := present(t, a, signature); !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("as bearer: %v, want ErrInvalid", err)
	}
}

// TestSplitTokenCredentials: the gateway says who it is, and reads a changed file.
func TestSplitTokenCredentials(t *testing.T) {
	key, s := josetest.New(t, "k1", "RS256"), newShelf(t)
	c := s.config()
	c.BearerTokenFile = filepath.Join(t.TempDir(), "token")
	holds := func(text string) {
		t.Helper()
		if err := os.WriteFile(c.BearerTokenFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	holds("one\n")
	a := splitting(t, Deps{}, c, key)
	shown := func(n int) string {
		t.Helper()
		token := s.split(key.Sign(t, key.Header(), claims(testIssuer, map[string]any{"jti": fmt.Sprint(n)})))
		if _, err := present(t, a, token); err != nil {
			t.Fatal(err)
		}
		return s.last.Load().Get("Authorization")
	}
	if got := shown(1); got != "Bearer one" {
		t.Errorf("shown %q", got)
	}
	if !slices.Contains(a.Files(), c.BearerTokenFile) {
		t.Errorf("%s is not watched: %q", c.BearerTokenFile, a.Files())
	}
	holds("")
	if err := a.Reload(t.Context()); err == nil {
		t.Error("an empty file is taken")
	}
	if got := shown(2); got != "Bearer one" {
		t.Errorf("after a broken file: shown %q", got)
	}
	holds("two\n")
	if err := a.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := shown(3); got != "Bearer two" {
		t.Errorf("after a reload: shown %q", got)
	}
}

// TestSplitTokenInRedis looks records up in a real Redis, which lets them end.
func TestSplitTokenInRedis(t *testing.T) {
	server := redistest.Start(t, t.TempDir(), redistest.ByPassword)
	writer := server.Client()
	c := splittoken.Default()
	c.Redis = &splittoken.RedisConfig{
		Server: redis.Server{Address: server.Address, PasswordFile: server.File("password", redistest.Password+"\n")}, Prefix: "split:",
	}
	c.Timeout = 20 * time.Second // the machine may be slow
	key := josetest.New(t, "k1", "RS256")
	a := splitting(t, Deps{}, &c, key)
	store := func(sub string, life time.Duration) string {
		record, signature := halves(key.Sign(t, key.Header(), claims(testIssuer, map[string]any{"sub": sub})))
		if err := writer.Set(t.Context(), "split:"+hashOf(signature), record, life).Err(); err != nil {
			t.Fatal(err)
		}
		return signature
	}
	alice, ended := store("alice", time.Hour), store("bob", time.Millisecond)
	if id, err := present(t, a, alice); err != nil || id.Subject != "alice" {
		t.Errorf("stored: %+v, %v", id, err)
	}
	if !eventually(t, 20*time.Second, func() bool { return writer.Exists(t.Context(), "split:"+hashOf(ended)).Val() == 0 }) {
		t.Fatal("the record does not end")
	}
	if _, err := present(t, a, ended); !errors.Is(err, authn.ErrForeign) {
		t.Errorf("a record that has ended: %v, want ErrForeign", err)
	}
	carol := store("carol", time.Hour)
	server.Kill()
	if _, err := present(t, a, carol); !errors.Is(err, authn.ErrUnavailable) {
		t.Errorf("without Redis: %v, want ErrUnavailable", err)
	}
	if _, err := present(t, a, alice); err != nil {
		t.Errorf("what was verified, without Redis: %v", err)
	}
}
