package oidc

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/session"
)

// FuzzCallback: of all answers that a browser may bring back to its login, only the one
// with its state, a code and the right issuer makes the gateway ask for tokens.
func FuzzCallback(f *testing.F) {
	c := Default()
	c.Issuer, c.ClientID = "https://idp.example", "web"
	now := time.Now()
	a, err := New("login", c, Deps{Now: func() time.Time { return now }})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(a.provider.client.Close)
	// Nobody is at the token endpoint: who gets there is answered with 503.
	a.provider.current.Store(&metadata{authorization: "https://idp.example/authorize", token: "http://127.0.0.1:1/token", namesIssuer: true, fetched: now})
	request := func(query, cookies string) *authn.Request {
		return &authn.Request{
			Now: now, Method: "GET", Scheme: "https", Host: "app.example", Path: c.RedirectPath, RawQuery: query, ID: "r1",
			Headers: []authz.Header{{Name: "cookie", Value: cookies}},
		}
	}
	r := request("", "")
	to, err := url.Parse(a.begin(f.Context(), r, demand{}, "/x?a=b").Headers[0].Value)
	if err != nil {
		f.Fatal(err)
	}
	sent := to.Query()
	cookie, _, _ := strings.Cut(r.Response[0].Value, ";")
	good := url.Values{"code": {"c"}, "state": {sent.Get("state")}, "iss": {c.Issuer}}.Encode()
	for _, seed := range []string{
		good, good + "&state=", good + "&iss=x", good + "&error=server_error", "code=c", "state=" + sent.Get("state"), "%", "a=b;c=d",
		"error=access_denied&error_description=<script>", "state=%00", "code=c&state=" + sent.Get("nonce"), strings.Repeat("a=b&", 200), "state[]=x&code=c",
	} {
		f.Add(seed, "")
	}
	f.Add(good, "__Host-sallyport-login-login~0=1.x; ")
	f.Fuzz(func(t *testing.T, query, cookies string) {
		a.store = session.NewBrowser("login", c.Session, a.keys, session.Deps{}) // has seen no state
		r := request(query, cookies+cookie)
		answer := a.callback(t.Context(), r)
		values, err := url.ParseQuery(query)
		right := err == nil && values.Get("state") == sent.Get("state") && values.Get("code") != "" && values.Get("iss") == c.Issuer && values.Get("error") == ""
		for _, v := range values {
			right = right && len(v) == 1
		}
		if there := strings.Contains(answer.Why, "token endpoint"); there != right && (there || cookies == "") {
			t.Errorf("%q: the code went to the provider: %v", query, there)
		}
		if answer.Status != 400 && answer.Status != 503 {
			t.Errorf("%q: answered %d: %s", query, answer.Status, answer.Why)
		}
		for _, h := range append(answer.Headers, r.Response...) {
			if strings.ContainsAny(h.Value, "\r\n\x00") {
				t.Errorf("%q: field %s is %q", query, h.Name, h.Value)
			}
		}
		if strings.Contains(string(answer.Body), "<script") {
			t.Errorf("%q: the page runs scripts: %s", query, answer.Body)
		}
	})
}
