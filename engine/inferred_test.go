package engine_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/engine/authz"
)

// TestHeadersOfEveryAnswerAreOwned: the answer that sets nothing owns what the
// others set, whoever builds them.
func TestHeadersOfEveryAnswerAreOwned(t *testing.T) {
	for name, tc := range map[string]struct {
		policy string
		want   []string
	}{
		"literal": {`package gateway
default decision := {"allow": true}
decision := {"allow": true, "upstream": {"set_headers": {"x-user": input.identity.subject, "X-Role": "a"}}} if input.identity.authenticated`, []string{"X-Role", "x-user"}},
		"built by a function": {`package gateway
allowed(tenant) := {"allow": true, "upstream": {"set_headers": {"x-tenant": tenant}}}
decision := allowed(input.identity.claims.tenant) if input.identity.authenticated
else := {"allow": true}`, []string{"x-tenant"}},
		"built by a rule": {`package gateway
decision := {"allow": true, "upstream": upstream} if input.identity.authenticated
else := {"allow": true}
upstream := {"name": "other", "set_headers": {"x-a": "1"}}`, []string{"x-a"}},
		"handed to a function": {`package gateway
forwarding(decision, headers) := object.union(decision, {"upstream": {"set_headers": headers}})
answering(decision, headers) := object.union(decision, {"response": {"set_headers": headers}})
decision := answering(forwarding({"allow": true}, {"x-tenant": input.identity.claims.tenant}), {"x-frame-options": "DENY"}) if input.identity.authenticated
else := {"allow": true}`, []string{"x-tenant"}},
		"united": {`package gateway
decision := object.union({"allow": true}, {"upstream": {"set_headers": {"x-a": input.identity.subject}}}) if input.identity.authenticated
else := {"allow": true}`, []string{"x-a"}},
		"none": {`package gateway
decision := true`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			e := active(t, `{}`, tc.policy)
			d := decide(t, e, &authz.Input{})
			if !d.Allow {
				t.Fatalf("got %+v", d)
			}
			if diff := cmp.Diff(tc.want, d.Owned); diff != "" {
				t.Error(diff)
			}
		})
	}
}
