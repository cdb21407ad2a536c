package problem

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/ratelimit"
)

func TestEverySentinelHasItsStatus(t *testing.T) {
	tests := []struct {
		err    error
		status int
		retry  bool
	}{
		{ErrMalformed, 400, false},
		{ErrAmbiguous, 400, false},
		{ErrMisdirected, 421, false},
		{ErrVersion, 505, false},
		{ErrExpectation, 417, false},
		{ErrRequestTimeout, 408, false},
		{ErrHeadTooLarge, 431, false},
		{ErrBusy, 503, true},
		{ErrNoRoute, 404, false},
		{ErrMethod, 405, false},
		{ErrUnreachable, 502, false},
		{ErrUpstreamProtocol, 502, false},
		{ErrUpstreamTimeout, 504, false},
		{ErrUpstreamBusy, 503, true},
		{authn.ErrNoCredential, 401, false},
		{authn.ErrNotMine, 401, false},
		{authn.ErrInvalid, 401, false},
		{authn.ErrUnavailable, 503, true},
		{authn.ErrInsufficientScope, 403, false},
		{authn.ErrTooMany, 429, true},
		{ratelimit.ErrLimited, 429, true},
		{ratelimit.ErrFull, 503, true},
		{authz.ErrNoPolicy, 503, true},
		{authz.ErrDecisionTimeout, 403, false},
		{authz.ErrBodyTooLarge, 413, false},
		{authz.ErrBodyRead, 400, false},
		{ErrNoToken, 503, true},
		{ErrTokenRefused, 403, false},
		{context.Canceled, 503, true},
		{context.DeadlineExceeded, 503, true},
	}
	if len(tests) != len(classes) {
		t.Errorf("the table has %d classes, the test walks %d", len(classes), len(tests))
	}
	for _, tc := range tests {
		p := Of(fmt.Errorf("secret detail: %w", tc.err))
		if p.Status != tc.status || (p.RetryAfter > 0) != tc.retry {
			t.Errorf("%v: got %d (retry after %d), want %d (retry %v)", tc.err, p.Status, p.RetryAfter, tc.status, tc.retry)
		}
	}
}

// TestTooMany: the client is told what there was too much of, and when to come back.
func TestTooMany(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		want Problem
	}{
		"bad credentials": {
			&authn.TooManyError{Of: authn.BadCredentials, RetryAfter: 100 * time.Millisecond},
			Problem{429, "Too many credentials from this client were not valid. The next is looked at in 1 second.", 1},
		},
		"proofs": {
			fmt.Errorf("secret detail: %w", &authn.TooManyError{Of: authn.Proofs, RetryAfter: 40001 * time.Millisecond}),
			Problem{429, "Too many DPoP proofs were made with this key. The next is looked at in 41 seconds.", 41},
		},
		"anything":          {&authn.TooManyError{RetryAfter: time.Minute}, Problem{429, "Too many credentials were sent. The next is looked at in 60 seconds.", 60}},
		"nobody knows when": {&authn.TooManyError{Of: authn.Proofs}, Problem{429, "Too many DPoP proofs were made with this key. The next is looked at in 1 second.", 1}},
		"requests": {
			fmt.Errorf("secret detail: %w", &ratelimit.LimitedError{Left: ratelimit.Left{Next: 1001 * time.Millisecond}}),
			Problem{429, "Too many requests. The next passes in 2 seconds.", 2},
		},
		"requests, the sentinel itself": {fmt.Errorf("secret detail: %w", ratelimit.ErrLimited), Problem{429, "Too many requests.", 1}},
		"the sentinel itself":           {fmt.Errorf("secret detail: %w", authn.ErrTooMany), Problem{429, "Too many credentials were sent.", 1}},
	} {
		if got := Of(tc.err); got != tc.want {
			t.Errorf("%s: %+v, want %+v", name, got, tc.want)
		}
	}
}

// TestClassBeforeContext: an error of the gateway's own that came of a deadline
// keeps its class.
func TestClassBeforeContext(t *testing.T) {
	for err, want := range map[error]int{ErrUpstreamTimeout: 504, authn.ErrUnavailable: 503, authz.ErrDecisionTimeout: 403} {
		if got := Of(fmt.Errorf("%w: %w", context.DeadlineExceeded, err)); got.Status != want {
			t.Errorf("%v: got %d, want %d", err, got.Status, want)
		}
	}
}

func TestUnknownErrorIs500WithoutDetail(t *testing.T) {
	p := Of(errors.New("password in here"))
	if p.Status != http.StatusInternalServerError || p.Detail != "" {
		t.Errorf("got %+v", p)
	}
}

func TestBodyIsJSONWhateverTheIDs(t *testing.T) {
	for _, id := range []string{"abc", "", "a\"b\\c\n\x00", "\xff<script>"} {
		body := Problem{Status: 403, Detail: "The request is denied."}.AppendJSON(nil, id, "d1")
		var got map[string]any
		if err := json.Unmarshal(body, &got); err != nil {
			t.Fatalf("id %q: %v in %s", id, err, body)
		}
		if got["status"] != 403.0 || got["decision_id"] != "d1" || got["title"] != "Forbidden" {
			t.Errorf("id %q: %s", id, body)
		}
	}
}
