package grant

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/meter/metertest"
)

// TestTokensAreCounted: what was asked of the provider, by how it ended, and not what
// was kept.
func TestTokensAreCounted(t *testing.T) {
	e := newEndpoint(t)
	x := e.exchanger(t, nil)
	c, err := NewCredentials(CredentialsConfig{Endpoint: e.config()}, Deps{Name: "machine", Now: e.clock.now, Metrics: e.metrics})
	if err != nil {
		t.Fatal(err)
	}
	id := &authz.Identity{Authenticated: true, Subject: "alice"}
	exchange := func(subject string) error {
		_, err := x.Token(t.Context(), subject, id, nil)
		return err
	}
	for range 3 {
		if err := exchange("kept"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Token(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	e.says(func(w http.ResponseWriter, form url.Values, _ int) {
		if form.Get("subject_token") == "broken" {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		say(w, http.StatusBadRequest, map[string]any{"error": "invalid_target"})
	})
	for range 2 { // a refusal is remembered, a fault is not
		for _, subject := range []string{"refused", "broken"} {
			if err := exchange(subject); err == nil {
				t.Errorf("%s: got a token", subject)
			}
		}
	}
	counts := metertest.Counts(e.metrics)
	for series, want := range map[string]int64{
		"sallyport.token.exchanges exchange=sts,outcome=granted":                   1,
		"sallyport.token.exchanges exchange=sts,outcome=refused":                   1,
		"sallyport.token.exchanges exchange=sts,outcome=error":                     2,
		"sallyport.client.credentials.fetches credentials=machine,outcome=granted": 1,
	} {
		if counts[series] != want {
			t.Errorf("%s: %d, want %d", series, counts[series], want)
		}
	}
}
