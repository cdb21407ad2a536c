package oidc

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/authn"
)

const (
	sessionRevoked   = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
	credentialChange = "https://schemas.openid.net/secevent/caep/event-type/credential-change"
	deviceCompliance = "https://schemas.openid.net/secevent/caep/event-type/device-compliance-change"
	accountDisabled  = "https://schemas.openid.net/secevent/risc/event-type/account-disabled"
	verification     = "https://schemas.openid.net/secevent/ssf/event-type/verification"
)

// event is a security event token in the hands of its provider.
func (b *browser) event(body string, headers ...string) *authn.Request {
	if headers == nil {
		headers = []string{"content-type", "application/secevent+jwt"}
	}
	r := b.request("POST", "/oauth2/security-events", headers...)
	r.Body = form{body}
	return r
}

// TestSecurityEvents: which events end whose sessions, and which are refused (RFC 8935
// section 2).
func TestSecurityEvents(t *testing.T) {
	s := newSetup(t, func(c *Config) { c.SharedSignals = &SharedSignals{Audiences: []string{"https://app.example/signals"}} })
	type object = map[string]any
	user := func(sub string) object { return object{"format": "iss_sub", "iss": s.idp.URL, "sub": sub} }
	session := func(sid string) object { return object{"format": "opaque", "id": sid} }
	event := func(kind string, members object) object {
		if members == nil {
			members = object{}
		}
		return object{"events": object{kind: members}}
	}
	with := func(claims object, more ...any) object {
		for i := 0; i < len(more); i += 2 {
			claims[more[i].(string)] = more[i+1]
		}
		return claims
	}
	complexSubject := func(u, sid any) object { return object{"format": "complex", "user": u, "session": sid} }
	for _, tc := range []struct {
		name   string
		claims object // changes
		header map[string]string
		err    string // of the answer; empty: 202
		ends   bool
	}{
		{"session revoked, of the user", nil, nil, "", true},
		{"in any case of the type", nil, map[string]string{"typ": "application/SecEvent+JWT"}, "", true},
		{"of the session alone", object{"sub_id": object{"format": "complex", "session": session("s1")}}, nil, "", true},
		{"of both", object{"sub_id": complexSubject(user("alice"), session("s1"))}, nil, "", true},
		{"another session", object{"sub_id": complexSubject(user("alice"), session("s2"))}, nil, "", false},
		{"another user", object{"sub_id": user("bob")}, nil, "", false},
		{"the subject stands in the event", with(event(sessionRevoked, object{"subject": user("alice")}), "sub_id", nil), nil, "", true},
		{"a password was changed", event(credentialChange, object{"change_type": "update", "credential_type": "password"}), nil, "", true},
		{"a password was changed, in one session", with(event(credentialChange, object{"change_type": "update"}), "sub_id", complexSubject(user("alice"), session("s2"))), nil, "", true},
		{"a key was added", event(credentialChange, object{"change_type": "create"}), nil, "", false},
		{"a change that is not said", event(credentialChange, nil), nil, "", true},
		{"a device that is no longer compliant", event(deviceCompliance, object{"current_status": "not-compliant"}), nil, "", true},
		{"a device that is compliant", event(deviceCompliance, object{"current_status": "compliant"}), nil, "", false},
		{"an account is disabled", event(accountDisabled, nil), nil, "", true},
		{"whether we are there", with(event(verification, object{"state": "x"}), "sub_id", session("stream")), nil, "", false},
		{"an event that nobody here knows", event("https://example.com/event", nil), nil, "", false},
		{"two events", object{"events": object{verification: object{}, sessionRevoked: object{}}}, nil, "", true},
		{"an hour old", object{"iat": s.now().Add(-time.Hour).Unix()}, nil, "", true},
		{"one of the audiences", object{"aud": []string{"x", "https://app.example/signals"}}, nil, "", true},

		{"a subject of another issuer", object{"sub_id": object{"format": "iss_sub", "iss": "https://evil.example", "sub": "alice"}}, nil, "invalid_request", false},
		{"a subject by mail", object{"sub_id": object{"format": "email", "email": "alice@example.com"}}, nil, "invalid_request", false},
		{"no subject", object{"sub_id": nil}, nil, "invalid_request", false},
		{"a subject without name", object{"sub_id": object{"format": "iss_sub", "iss": s.idp.URL, "sub": ""}}, nil, "invalid_request", false},
		{"a session without user, of a disabled account", with(event(accountDisabled, nil), "sub_id", object{"format": "complex", "session": session("s1")}), nil, "invalid_request", false},
		{"no events", object{"events": nil}, nil, "invalid_request", false},
		{"empty events", object{"events": object{}}, nil, "invalid_request", false},
		{"an event that is no object", object{"events": object{sessionRevoked: true}}, nil, "invalid_request", false},
		{"no jti", object{"jti": nil}, nil, "invalid_request", false},
		{"no iat", object{"iat": nil}, nil, "invalid_request", false},
		{"of the future", object{"iat": s.now().Add(time.Hour).Unix()}, nil, "invalid_request", false},
		{"two days old", object{"iat": s.now().Add(-48 * time.Hour).Unix()}, nil, "invalid_request", false},
		{"expired", object{"exp": s.now().Add(-time.Hour).Unix()}, nil, "invalid_request", false},
		{"another audience", object{"aud": "web"}, nil, "invalid_audience", false},
		{"no audience", object{"aud": nil}, nil, "invalid_audience", false},
		{"another issuer", object{"iss": "https://evil.example"}, nil, "authentication_failed", false},
		{"no type", nil, map[string]string{"typ": "JWT"}, "invalid_request", false},
		{"a logout token", nil, map[string]string{"typ": "logout+jwt"}, "invalid_request", false},
		{"alg none", nil, map[string]string{"typ": "secevent+jwt", "alg": "none"}, "authentication_failed", false},
		{"an unknown key", nil, map[string]string{"typ": "secevent+jwt", "kid": "k9"}, "authentication_failed", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := s.browser()
			b.logIn("/")
			s.pass(time.Second)
			claims := with(event(sessionRevoked, nil), "iss", s.idp.URL, "aud", "https://app.example/signals", "jti", tc.name, "iat", s.now().Unix(), "sub_id", user("alice"))
			merge(claims, tc.claims)
			header := tc.header
			if header == nil {
				header = map[string]string{"typ": "secevent+jwt"}
			}
			idp := s.browser()
			idp.host = "gateway.internal"
			answer := idp.at(idp.event(s.idp.sign(t, header, claims)))
			var said struct{ Err, Description string }
			if tc.err == "" && (answer.Status != 202 || len(answer.Body) > 0) {
				t.Errorf("answered %d %s: %s", answer.Status, answer.Body, answer.Why)
			}
			if tc.err != "" && (answer.Status != 400 || json.Unmarshal(answer.Body, &said) != nil || said.Err != tc.err || said.Description == "") {
				t.Errorf("answered %d %s: %s, want %s", answer.Status, answer.Body, answer.Why, tc.err)
			}
			if b.in() == tc.ends {
				t.Errorf("ended %v: %s", !b.in(), answer.Why)
			}
			s.pass(time.Second)
			if clear(b.jar); tc.ends {
				b.logIn("/")
				if !b.in() {
					t.Error("a login afterwards does not count")
				}
			}
		})
	}
	idp := s.browser()
	get := idp.request("GET", "/oauth2/security-events")
	for name, r := range map[string]*authn.Request{
		"GET": get, "empty": idp.event(""), "garbage": idp.event("x"), "too large": idp.event(strings.Repeat("x", maxForm+1)),
		"a form": idp.event("x=y", "content-type", "application/x-www-form-urlencoded"),
	} {
		if a := idp.at(r); a.Status != 400 {
			t.Errorf("%s: %d", name, a.Status)
		}
	}
}

// TestSecurityEventsAreOff: nothing takes them that was not asked to.
func TestSecurityEventsAreOff(t *testing.T) {
	for _, e := range newSetup(t, nil).a.Endpoints() {
		if strings.Contains(e.Path, "events") {
			t.Errorf("%s is served", e.Path)
		}
	}
	for name, c := range map[string]*SharedSignals{
		"a path that is taken": {Path: "/oauth2/callback", Audiences: []string{"a"}}, "a bad path": {Path: "events", Audiences: []string{"a"}},
		"an empty audience": {Audiences: []string{""}},
	} {
		config := Default()
		config.Issuer, config.ClientID, config.SharedSignals = "https://idp.example", "web", c
		if err := config.Validate(); err == nil || !strings.Contains(err.Error(), "shared_signals") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSecurityEventsWhileKeysAreAway: the provider has to send the event again.
func TestSecurityEventsWhileKeysAreAway(t *testing.T) {
	s := newSetup(t, nil)
	s.idp.keysDown.Store(true)
	c := s.a.config
	c.SharedSignals = &SharedSignals{}
	a, err := New("login", c, Deps{Now: s.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.provider.client.Close)
	s.a = a
	b := s.browser()
	claims := map[string]any{"iss": s.idp.URL, "aud": "web", "jti": "1", "iat": s.now().Unix(), "events": map[string]any{sessionRevoked: map[string]any{}}}
	if answer := b.at(b.event(s.idp.sign(t, map[string]string{"typ": "secevent+jwt"}, claims))); answer.Status != 503 {
		t.Errorf("answered %d: %s", answer.Status, answer.Why)
	}
}
