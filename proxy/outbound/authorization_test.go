package outbound_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/grant"
	"github.com/sallyport/sallyport/proxy/judge"
	"github.com/sallyport/sallyport/proxy/outbound"
	"github.com/sallyport/sallyport/proxy/problem"
	"github.com/sallyport/sallyport/proxy/route"
	"github.com/sallyport/sallyport/proxy/template"
)

// withProvider gives s a token endpoint, which answers with status.
func withProvider(t *testing.T, s *site) (status *atomic.Int64) {
	t.Helper()
	status = &atomic.Int64{}
	status.Store(200)
	idp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(int(status.Load()))
		token := "machine"
		if subject := r.PostFormValue("subject_token"); subject != "" {
			token = "for-" + r.PostFormValue("audience") + "-" + strings.ReplaceAll(r.PostFormValue("scope"), " ", "+")
		}
		answer := map[string]any{"access_token": token, "token_type": "Bearer", "expires_in": 60}
		if status.Load() != 200 {
			answer = map[string]any{"error": "invalid_target"}
		}
		_ = json.NewEncoder(w).Encode(answer) // a client that went away is not the test's concern
	}))
	t.Cleanup(idp.Close)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("s"), 0o600); err != nil {
		t.Fatal(err)
	}
	e := grant.Endpoint{URL: idp.URL, ClientID: "gateway", ClientSecretFile: secret}
	x, err := grant.NewExchanger(grant.ExchangeConfig{Endpoint: e, Audience: "orders", Audiences: []string{"billing"}, Scopes: []string{"read"}}, grant.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := grant.NewCredentials(grant.CredentialsConfig{Endpoint: e}, grant.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	s.deps = outbound.Deps{Exchanges: map[string]*grant.Exchanger{"sts": x}, Credentials: map[string]*grant.Credentials{"machine": c}}
	return status
}

func TestUpstreamAuthorization(t *testing.T) {
	for mode, want := range map[string]string{
		"": "", "none": "", "client": "Bearer opaque", "token": "Bearer h.p.s", "exchange": "Bearer for-orders-read", "client_credentials": "Bearer machine",
	} {
		s := newSite(route.Config{Match: route.Match{Path: "/a"}, UpstreamAuthorization: mode, TokenExchange: "sts", ClientCredentials: "machine"})
		withProvider(t, s)
		sent := authz.Header{Name: "authorization", Value: "Bearer opaque"}
		if got := strings.Join(values(s.get(t, "/a", sent), "authorization"), "|"); got != want {
			t.Errorf("%q: %q, want %q", mode, got, want)
		}
		s.decider.Upstream.TokenExchange = &authz.TokenExchange{Audience: "billing", Scope: "write read"}
		if got := strings.Join(values(s.get(t, "/a", sent), "authorization"), "|"); got != "Bearer for-billing-read+write" {
			t.Errorf("%q with the policy's exchange: %q", mode, got)
		}
	}
}

// TestWhatUpstreamsGetOfCallersWithoutToken: nothing stands in for what is missing.
func TestWhatUpstreamsGetOfCallersWithoutToken(t *testing.T) {
	for mode, status := range map[string]int{"none": 0, "token": 0, "exchange": 401, "client_credentials": 0} {
		s := newSite(route.Config{Match: route.Match{Path: "/a"}, UpstreamAuthorization: mode, TokenExchange: "sts", ClientCredentials: "machine"})
		withProvider(t, s)
		s.caller = caller{&authz.Identity{}, ""}
		v := s.get(t, "/a", authz.Header{Name: "authorization", Value: "Basic eDp5"})
		switch {
		case status != 0:
			if v.Forward != nil || v.Answer.Status != status || !errors.Is(v.Err, authn.ErrNoCredential) {
				t.Errorf("%s: %+v, %v", mode, v.Answer, v.Err)
			}
		case mode == "client_credentials":
			if got := values(v, "authorization"); !slices.Equal(got, []string{"Bearer machine"}) {
				t.Errorf("%s: %q", mode, got)
			}
		default:
			if got := values(v, "authorization"); got != nil {
				t.Errorf("%s: %q", mode, got)
			}
		}
	}
}

func TestTokensThatCannotBeHadClose(t *testing.T) {
	for _, tc := range []struct {
		mode     string
		provider int64
		by       *authz.TokenExchange
		status   int
		outcome  authz.Outcome
		err      error
	}{
		{"exchange", 500, nil, 503, authz.OutcomeUnavailable, problem.ErrNoToken},
		{"exchange", 400, nil, 403, authz.OutcomeRefused, problem.ErrTokenRefused},
		{"client_credentials", 500, nil, 503, authz.OutcomeUnavailable, problem.ErrNoToken},
		{"none", 500, &authz.TokenExchange{}, 503, authz.OutcomeUnavailable, problem.ErrNoToken},
		{"none", 200, &authz.TokenExchange{Audience: "admin"}, 403, authz.OutcomeFault, nil},
		{"none", 200, &authz.TokenExchange{Scope: "admin"}, 403, authz.OutcomeFault, nil},
	} {
		s := newSite(route.Config{Match: route.Match{Path: "/a"}, UpstreamAuthorization: tc.mode, TokenExchange: "sts", ClientCredentials: "machine"})
		withProvider(t, s).Store(tc.provider)
		s.decider.Upstream.TokenExchange = tc.by
		v := s.get(t, "/a")
		if v.Forward != nil || v.Answer == nil || v.Answer.Status != tc.status || v.Outcome != tc.outcome || !errors.Is(v.Err, tc.err) && tc.err != nil {
			t.Errorf("%+v: answer %+v, outcome %s, %v", tc, v.Answer, v.Outcome, v.Err)
		}
		if fault := v.Decision.Fault; (fault != nil) != (tc.outcome == authz.OutcomeFault) || fault != nil && v.Decision.Allow {
			t.Errorf("%+v: decision %+v", tc, v.Decision)
		}
		if len(v.Answer.Body) == 0 || strings.Contains(string(v.Answer.Body), "admin") || strings.Contains(string(v.Answer.Body), "127.0.0.1") {
			t.Errorf("%+v: body %s", tc, v.Answer.Body)
		}
	}
}

// TestPoliciesNeedAnExchange: what a route has no means for stays a policy fault.
func TestPoliciesNeedAnExchange(t *testing.T) {
	for name, r := range map[string]route.Config{
		"a plain route": {}, "one with headers": {UpstreamHeaders: []template.Header{{Name: "x-a", Value: "b"}}}, "one with another token": {UpstreamAuthorization: "token"},
	} {
		r.Match.Path = "/a"
		s := newSite(r)
		s.decider.Upstream.TokenExchange = &authz.TokenExchange{Audience: "orders"}
		v := s.get(t, "/a")
		if v.Forward != nil || v.Answer.Status != 403 || v.Outcome != authz.OutcomeFault || v.Decision.Fault == nil || !strings.Contains(v.Decision.Fault.Detail, "has no token_exchange") {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

func TestRoutesThatNameWhatIsNotThere(t *testing.T) {
	for _, r := range []route.Config{{TokenExchange: "x"}, {ClientCredentials: "x"}} {
		if _, err := outbound.New(r, outbound.Deps{}); err == nil {
			t.Errorf("%+v was taken", r)
		}
	}
}

var _ judge.Exchanger = (*outbound.Set)(nil)
