package introspection

import (
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/engine/meter/metertest"
	"github.com/sallyport/sallyport/proxy/authn"
)

// TestReasons: why a token was refused is counted by a few names, and known behind the
// chain as far as clients may be told it, also when the refusal was remembered.
func TestReasons(t *testing.T) {
	p, metrics := newIDP(t), meter.New()
	c := p.config(t)
	c.Issuer, c.Audiences = "https://idp.example", []string{"orders-api"}
	a, err := New("opaque", c, Deps{Metrics: metrics})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.provider.client.Close)
	chain, err := authn.New([]authn.Named{{Name: "opaque", Authenticator: a}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	told := []error{authn.ErrMalformed, authn.ErrSignature, authn.ErrAudience, authn.ErrExpired, authn.ErrIssuer, authn.ErrNotYetValid}
	cases := map[string]struct {
		answer string
		series string
		want   error // of told
	}{
		"good":          {answerOf(nil), "outcome=active", nil},
		"inactive":      {`{"active":false}`, "outcome=inactive", nil},
		"expired":       {answerOf(map[string]any{"exp": testNow.Unix() - 31}), "outcome=refused,reason=expired", authn.ErrExpired},
		"not-yet":       {answerOf(map[string]any{"nbf": testNow.Unix() + 31}), "outcome=refused,reason=not_yet_valid", authn.ErrNotYetValid},
		"audience":      {answerOf(map[string]any{"aud": "other"}), "outcome=refused,reason=audience", authn.ErrAudience},
		"issuer":        {answerOf(map[string]any{"iss": "https://other.example"}), "outcome=refused,reason=issuer", authn.ErrIssuer},
		"refresh-token": {answerOf(map[string]any{"token_use": "refresh_token"}), "outcome=refused,reason=type", nil},
		"bound":         {answerOf(map[string]any{"cnf": map[string]any{"kid": "x"}}), "outcome=refused,reason=binding", nil},
		"sub":           {answerOf(map[string]any{"sub": 7}), "outcome=refused,reason=malformed", nil},
		"nonsense":      {`[]`, "outcome=error", nil},
	}
	want := map[string]int64{}
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		tt := cases[name]
		p.says(tt.answer)
		asked := p.asked.Load()
		for range 2 { // the second time from what was remembered
			_, err := chain.Authenticate(t.Context(), request("token-"+name))
			if (err == nil) != (name == "good") || errors.Is(err, authn.ErrUnavailable) != (name == "nonsense") {
				t.Errorf("%s: %v", name, err)
			}
			for _, reason := range told {
				if got := errors.Is(err, reason); got != (tt.want != nil && reason.Error() == tt.want.Error()) {
					t.Errorf("%s: is %q: %v (%v)", name, reason, got, err)
				}
			}
		}
		want["sallyport.introspections authenticator=opaque,"+tt.series] = p.asked.Load() - asked
	}
	got := metertest.Counts(metrics)
	maps.DeleteFunc(got, func(series string, _ int64) bool { _, known := want[series]; return !known })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("counted (-want +got):\n%s", diff)
	}
}
