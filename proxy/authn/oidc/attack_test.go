package oidc

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/oidc/oidctest"
	"github.com/sallyport/sallyport/proxy/session"
)

// TestForgedIDTokens: every claim is right, and the signature is not the provider's.
func TestForgedIDTokens(t *testing.T) {
	s := newSetup(t, nil)
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	part := func(v any) string {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b64(text)
	}
	der, err := x509.MarshalPKIXPublicKey(&s.idp.key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	mac := func(secret []byte) func(map[string]any) string {
		return func(claims map[string]any) string {
			input := part(map[string]string{"alg": "HS256", "typ": "JWT", "kid": "k1"}) + "." + part(claims)
			h := hmac.New(sha256.New, secret)
			h.Write([]byte(input))
			return input + "." + b64(h.Sum(nil))
		}
	}
	by := func(key *ecdsa.PrivateKey, header map[string]any) func(map[string]any) string {
		return func(claims map[string]any) string {
			all := map[string]any{"alg": "ES256", "typ": "JWT", "kid": "k1"}
			maps.Copy(all, header)
			input := part(all) + "." + part(claims)
			sig, err := signECDSA(key, digest(crypto.SHA256, []byte(input)))
			if err != nil {
				t.Fatal(err)
			}
			return input + "." + b64(sig)
		}
	}
	good := by(s.idp.key, nil)
	strangers := jwksOf(stranger, "k1")["keys"].([]any)[0]
	for name, tc := range map[string]struct {
		token func(map[string]any) string
		ok    bool
	}{
		"good":                             {good, true},
		"HS256 with the client secret":     {mac([]byte("s3cret/+")), false},
		"HS256 with the public key as PEM": {mac(public), false},
		"HS256 with the public key":        {mac(der), false},
		"HS256 with nothing":               {mac(nil), false},
		"another key":                      {by(stranger, nil), false},
		"another key that comes along":     {by(stranger, map[string]any{"jwk": strangers}), false},
		"another key elsewhere":            {by(stranger, map[string]any{"jku": "https://evil.example/keys"}), false},
		"another key without name":         {by(stranger, map[string]any{"kid": ""}), false},
		"the right key, said to be RS256":  {by(s.idp.key, map[string]any{"alg": "RS256"}), false},
		"the right key, said to be ES384":  {by(s.idp.key, map[string]any{"alg": "ES384"}), false},
		"the right key, an unknown crit":   {by(s.idp.key, map[string]any{"crit": []string{"x"}, "x": 1}), false},
		"none":                             {func(c map[string]any) string { return part(map[string]string{"alg": "none"}) + "." + part(c) + "." }, false},
		"None":                             {func(c map[string]any) string { return part(map[string]string{"alg": "None"}) + "." + part(c) + "." }, false},
		"none with a signature": {func(c map[string]any) string {
			g := good(c)
			return part(map[string]string{"alg": "none"}) + g[strings.IndexByte(g, '.'):]
		}, false},
		"signature left out":  {func(c map[string]any) string { g := good(c); return g[:strings.LastIndexByte(g, '.')+1] }, false},
		"signature cut":       {func(c map[string]any) string { g := good(c); return g[:len(g)-8] }, false},
		"signature with more": {func(c map[string]any) string { return good(c) + "AAAA" }, false},
		"signature of zeros": {func(c map[string]any) string {
			g := good(c)
			return g[:strings.LastIndexByte(g, '.')+1] + b64(make([]byte, 64))
		}, false},
		"signature in DER": {func(c map[string]any) string {
			g := good(c)
			input, sig := g[:strings.LastIndexByte(g, '.')], g[strings.LastIndexByte(g, '.')+1:]
			raw, _ := base64.RawURLEncoding.DecodeString(sig)
			text, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:32]), new(big.Int).SetBytes(raw[32:])})
			if err != nil {
				t.Fatal(err)
			}
			return input + "." + b64(text)
		}, false},
		"other claims under the signature": {func(c map[string]any) string {
			parts := strings.Split(good(c), ".")
			other := maps.Clone(c)
			other["sub"] = "admin"
			return parts[0] + "." + part(other) + "." + parts[2]
		}, false},
		"JSON serialization": {func(c map[string]any) string {
			parts := strings.Split(good(c), ".")
			text, err := json.Marshal(map[string]string{"protected": parts[0], "payload": parts[1], "signature": parts[2]})
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		}, false},
		"four parts":       {func(c map[string]any) string { return good(c) + ".x" }, false},
		"five parts":       {func(c map[string]any) string { return good(c) + ".x.y" }, false},
		"line break in it": {func(c map[string]any) string { g := good(c); return g[:20] + "\n" + g[20:] }, false},
		"padded":           {func(c map[string]any) string { return good(c) + "==" }, false},
	} {
		b := s.browser()
		q := b.begin("/x")
		now := s.now()
		claims := map[string]any{
			"iss": s.idp.URL, "sub": "alice", "aud": "web", "exp": now.Add(5 * time.Minute).Unix(), "iat": now.Unix(), "nonce": q.Get("nonce"),
		}
		s.idp.set(func(f *fake) { f.answer = map[string]any{"id_token": tc.token(claims)} })
		answer := b.at(b.back(q))
		if got := answer.Status == http.StatusSeeOther; got != tc.ok || b.in() != tc.ok {
			t.Errorf("%s: answered %d: %s", name, answer.Status, answer.Why)
		}
	}
}

// TestIssuerInAnswers: a provider that does not say that it names itself need not, and
// is not taken for another one if it does (RFC 9207 section 2.4).
func TestIssuerInAnswers(t *testing.T) {
	for _, says := range []any{true, false, nil, "true"} {
		s := offering(t, map[string]any{"authorization_response_iss_parameter_supported": says}, nil)
		for iss, want := range map[string]bool{
			"&iss=" + url.QueryEscape(s.idp.URL): true, "": says != true, "&iss=": false, "&iss=https%3A%2F%2Fevil.example": false,
		} {
			b := s.browser()
			r := b.back(b.begin("/x"), "iss", "")
			r.RawQuery += iss
			if a := b.at(r); (a.Status == 303) != want || b.in() != want {
				t.Errorf("says %v, answer with %q: %d %s", says, iss, a.Status, a.Why)
			}
		}
	}
}

// TestAnswersOfAnotherProvider: two at one gateway; what one answers counts for it alone.
func TestAnswersOfAnotherProvider(t *testing.T) {
	s, evil := newSetup(t, nil), newSetup(t, nil)
	c := evil.a.config
	c.DisplayName, c.RedirectPath, c.LoginPath, c.LogoutPath, c.FrontChannelLogoutPath, c.BackChannelLogoutPath = "", "/evil/callback", "", "", "", ""
	other := s.open("evil", c)
	b := s.browser()
	at := func(r *authn.Request) *authn.Answer {
		t.Helper()
		if r.Path != c.RedirectPath {
			return b.at(r)
		}
		answer := other.callback(t.Context(), r)
		b.take(r)
		return answer
	}
	for name, change := range map[string]func(*authn.Request){
		"at the other's address": func(r *authn.Request) { r.Path = c.RedirectPath },
		"with the other's issuer": func(r *authn.Request) {
			r.RawQuery = strings.ReplaceAll(r.RawQuery, url.QueryEscape(s.idp.URL), url.QueryEscape(evil.idp.URL))
		},
		"at the other's address, as the other's": func(r *authn.Request) {
			r.Path, r.RawQuery = c.RedirectPath, strings.ReplaceAll(r.RawQuery, url.QueryEscape(s.idp.URL), url.QueryEscape(evil.idp.URL))
		},
	} {
		b.jar = map[string]string{}
		q := b.begin("/x")
		_, _, _ = b.through(other, b.request("GET", "/y")) // a login at the other is under way too
		r := b.back(q)
		change(r)
		if a := at(r); a.Status != 400 || len(s.idp.questions())+len(evil.idp.questions()) != 0 {
			t.Errorf("%s: answered %d: %s; a code was handed over", name, a.Status, a.Why)
		}
	}
}

// TestHostileReturnAddresses: a login that somebody else's link began ends at this
// origin, however browsers read the address.
func TestHostileReturnAddresses(t *testing.T) {
	s := newSetup(t, nil)
	b := s.browser()
	check := func(row string, answer *authn.Answer) {
		t.Helper()
		to := ""
		for _, h := range answer.Headers {
			if h.Name == "location" {
				to = h.Value
			}
		}
		// Browsers drop tabs and line breaks, and take backslashes for slashes.
		rest, ok := strings.CutPrefix(strings.NewReplacer("\t", "", "\n", "", "\r", "", "\\", "/").Replace(to), "https://app.example/")
		if u, err := url.Parse(to); answer.Status != http.StatusSeeOther || !ok || strings.HasPrefix(rest, "/") || err != nil || u.Host != "app.example" || u.User != nil {
			t.Errorf("%q leads to %q: %d %s", row, to, answer.Status, answer.Why)
		}
	}
	rows := append(hostileAddresses(), "/oauth2/login", "/oauth2/logout", "/oauth2/callback?code=x", "/oauth2/login?return=//evil.example", "https://app.example.evil.example/",
		"https://app.example@evil.example/", "//app.example", "///app.example@evil.example", "/;//evil.example", "/?//evil.example", "/@evil.example", "/%40evil.example", "/x?return=https://evil.example")
	for _, row := range rows {
		answer := b.at(b.request("GET", "/oauth2/login?"+url.Values{"return": {row}}.Encode()))
		q := sent(t, answer).Query()
		s.idp.set(func(f *fake) { f.nonces["code-"+q.Get("state")] = q.Get("nonce") })
		check(row, b.at(b.back(q)))
		b.jar = map[string]string{}

		if strings.HasPrefix(row, "/") { // asked for as a page
			path, query, _ := strings.Cut(row, "?")
			r := b.request("GET", "/")
			r.Path, r.RawQuery = path, query
			_, _, answer = b.through(s.a, r)
			q = sent(t, answer).Query()
			s.idp.set(func(f *fake) { f.nonces["code-"+q.Get("state")] = q.Get("nonce") })
			check(row, b.at(b.back(q)))
			b.jar = map[string]string{}
		}
	}
}

// TestCookiesCannotBeChanged: not one character of a login under way or of a session.
func TestCookiesCannotBeChanged(t *testing.T) {
	s := newSetup(t, nil)
	change := func(value string, i int) string {
		c := byte('A')
		if value[i] == c {
			c = 'B'
		}
		return value[:i] + string(c) + value[i+1:]
	}
	b := s.browser()
	q := b.begin("/x")
	for name, value := range maps.Clone(b.jar) {
		for i := range len(value) {
			b.jar = map[string]string{name: change(value, i)}
			if answer := b.at(b.back(q)); answer.Status != 400 || len(b.jar) != 0 {
				t.Errorf("login: with another character %d it answers %d: %s", i, answer.Status, answer.Why)
			}
		}
		if n := len(s.idp.questions()); n != 0 {
			t.Fatalf("the token endpoint was asked %d times", n)
		}
		b.jar = map[string]string{name: value}
	}
	if answer := b.at(b.back(q)); answer.Status != 303 || !b.in() {
		t.Fatalf("unchanged it answers %d: %s", answer.Status, answer.Why)
	}
	for name, value := range maps.Clone(b.jar) {
		for i := range len(value) {
			thief := s.browser()
			thief.jar[name] = change(value, i)
			if thief.in() {
				t.Errorf("session: it is good with another character %d", i)
			}
		}
	}
	if !b.in() {
		t.Error("unchanged it is not good any more")
	}
}

// TestCookiesOfALoginAreNoSession: what a browser has before the login is none, under
// whatever name, and does not become one.
func TestCookiesOfALoginAreNoSession(t *testing.T) {
	for name, change := range map[string]func(*Config){"in cookies": nil, "in Redis": inRedis(t, startRedis(t))} {
		t.Run(name, func(t *testing.T) {
			s := newSetup(t, change)
			b := s.browser()
			planted := session.NewID() // an attacker's choice
			b.jar["__Host-sallyport-login"] = "1." + planted
			q := b.begin("/x")
			if len(b.jar) != 2 {
				t.Fatalf("cookies %v", b.jar)
			}
			before := maps.Clone(b.jar)
			for _, value := range before {
				x := s.browser()
				x.jar["__Host-sallyport-login"] = value
				if x.in() {
					t.Error("the cookie of a login is a session")
				}
			}
			if a := b.at(b.back(q)); a.Status != 303 || !b.in() {
				t.Fatalf("answered %d: %s", a.Status, a.Why)
			}
			for _, value := range before {
				x := s.browser()
				x.jar["__Host-sallyport-login"] = value
				if x.in() || len(b.jar) != 1 || b.jar["__Host-sallyport-login"] == value {
					t.Errorf("a cookie from before the login is the session: %v", b.jar)
				}
			}
			// A second login of this browser ends the first session.
			first := s.browser()
			maps.Copy(first.jar, b.jar)
			s.pass(time.Second)
			r := b.request("GET", "/x")
			answer := s.a.begin(t.Context(), r, demand{}, "/x")
			b.take(r)
			q = sent(t, answer).Query()
			s.idp.set(func(f *fake) { f.nonces["code-"+q.Get("state")] = q.Get("nonce") })
			if a := b.at(b.back(q)); a.Status != 303 || !b.in() || first.in() {
				t.Errorf("answered %d: %s; the first session goes on: %v", a.Status, a.Why, first.in())
			}
		})
	}
}

// TestSessionAfterLogout: a copy of the cookie at this process, at another replica, and
// after a restart. With sessions in cookies the others only learn of it when they renew
// the session, with tokens that were revoked.
func TestSessionAfterLogout(t *testing.T) {
	redis := inRedis(t, startRedis(t))
	keys := func(c *Config) { redis(c); c.Session.Redis = nil }
	for name, tc := range map[string]struct {
		change    func(*Config)
		elsewhere bool // a copy is good at another replica until the access token ends
	}{"in cookies": {keys, true}, "in Redis": {redis, false}} {
		t.Run(name, func(t *testing.T) {
			s := offering(t, map[string]any{revocationEndpoint: "/revoke"}, tc.change)
			revoked := map[string]bool{}
			s.idp.set(func(f *fake) {
				f.revoke = func(_ http.ResponseWriter, q url.Values) bool { revoked[q.Get("token")] = true; return false }
				f.token = func(w http.ResponseWriter, q url.Values) bool {
					if revoked[q.Get("refresh_token")] {
						w.WriteHeader(400)
						_, _ = fmt.Fprint(w, `{"error":"invalid_grant"}`)
					}
					return revoked[q.Get("refresh_token")]
				}
			})
			replica := s.open("login", s.a.config)
			b := s.browser()
			b.logIn("/")
			copied := s.browser()
			maps.Copy(copied.jar, b.jar)
			at := func(a *Authenticator) bool {
				t.Helper()
				thief := s.browser()
				maps.Copy(thief.jar, copied.jar)
				_, id, _ := thief.through(a, thief.request("GET", "/x"))
				return id != nil
			}
			if !at(s.a) || !at(replica) {
				t.Fatal("the session is not good before")
			}
			if answer := b.logOut(); answer.Status != 303 {
				t.Fatal(answer.Why)
			}
			restarted := s.open("login", s.a.config)
			for where, a := range map[string]*Authenticator{"here": s.a, "at another replica": replica, "after a restart": restarted} {
				if got, want := at(a), tc.elsewhere && a != s.a; got != want {
					t.Errorf("%s: good is %v, want %v", where, got, want)
				}
			}
			s.pass(time.Minute)
			for where, a := range map[string]*Authenticator{"here": s.a, "at another replica": replica, "after a restart": restarted} {
				if at(a) {
					t.Errorf("%s: it is good after the access token's end", where)
				}
			}
		})
	}
}

// TestStolenCode: somebody else's code is good for nothing in a login of one's own, and
// no code is good twice; a certified provider says so, by PKCE.
func TestStolenCode(t *testing.T) {
	s := newCertifiedSite(t)
	a := s.use(oidctest.StartLogin(t, s.URL, nil).Issuer, nil)
	begin := func(v *oidctest.Browser) url.Values { // until the provider sends the browser back
		t.Helper()
		var back url.Values
		v.Client.Transport = stopping{v.Client.Transport, func(u *url.URL) bool {
			if u.Path == a.config.RedirectPath {
				back = u.Query()
			}
			return back != nil
		}}
		s.logIn(v)
		v.Client.Transport = v.Client.Transport.(stopping).RoundTripper
		if back.Get("code") == "" || back.Get("state") == "" || back.Get("iss") != a.config.Issuer {
			t.Fatalf("the provider sent %v", back)
		}
		return back
	}
	victim, attacker := s.visitor(), s.visitor()
	theirs, own := begin(victim), begin(attacker)
	injected := maps.Clone(own)
	injected["code"] = theirs["code"]
	at := func(v *oidctest.Browser, q url.Values) oidctest.Page {
		t.Helper()
		return v.Get(s.URL + a.config.RedirectPath + "?" + q.Encode())
	}
	if got := at(attacker, injected); got.Status != 403 {
		t.Errorf("another person's code: %d %s", got.Status, got.Text)
	}
	if got := at(attacker, own); got.Status != 400 {
		t.Errorf("the login that failed goes on: %d %s", got.Status, got.Text)
	}
	if got := at(attacker, theirs); got.Status != 400 {
		t.Errorf("another person's answer: %d %s", got.Status, got.Text)
	}

	fresh := s.visitor()
	q := begin(fresh)
	if got := at(fresh, q); got.Status != 200 || got.Text != "hello alice" {
		t.Fatalf("a login: %d %s", got.Status, got.Text)
	}
	if got := at(fresh, q); got.Status != 400 {
		t.Errorf("the answer again: %d %s", got.Status, got.Text)
	}
	m, err := a.provider.metadata(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.client.ask(t.Context(), m, s.URL+a.config.RedirectPath, q.Get("code"), url.Values{"code_verifier": {strings.Repeat("v", 43)}}); !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("the code again: %v", err)
	}
}

// stopping answers in place of the server where the browser is to stop.
type stopping struct {
	http.RoundTripper
	here func(*url.URL) bool
}

func (s stopping) RoundTrip(r *http.Request) (*http.Response, error) {
	if s.here(r.URL) {
		return &http.Response{StatusCode: http.StatusTeapot, Body: http.NoBody, Request: r, Header: http.Header{}}, nil
	}
	return s.RoundTripper.RoundTrip(r)
}
