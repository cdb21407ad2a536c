package engine_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/engine"
)

func TestCheckObligations(t *testing.T) {
	const policy = `package gateway

decision := {"allow": true, "rate_limit": limit, "upstream": {"name": "x", "token_exchange": {}}} if input.request.method == "GET"

decision := {"allow": true, "upstream": extra} if input.request.method == "POST"

decision := {"challenge": {"error": "e",
	"max_age": 3}} if input.request.method == "PUT"

extra := {"token_exchange": {"audience": input.identity.claims.max_age}}

limit.rate := "1/s"

members.token_exchange := 1

unreached := {"token_exchange": 1}
`
	err := engine.CheckObligations(compile(t, policy), false, "gateway/decision", "gateway/members")
	got := strings.Split(err.Error(), "\n")
	want := []string{
		"policy0.rego:3: upstream.token_exchange is not available",
		"policy0.rego:10: upstream.token_exchange is not available",
		"policy0.rego:14: upstream.token_exchange is not available",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if err := engine.CheckObligations(compile(t, policy), true, "gateway/decision", "gateway/members"); err != nil {
		t.Error("where tokens can be exchanged:", err)
	}
	var one *engine.UnsupportedObligationError
	if err := engine.CheckObligations(compile(t, policy), false, "gateway/unreached"); !errors.As(err, &one) || one.Key != "upstream.token_exchange" {
		t.Errorf("got %v", err)
	}
	if err := engine.CheckObligations(compile(t, ordersPolicy), false, "gateway/decision"); err != nil {
		t.Error(err)
	}
	if err := engine.CheckObligations(compile(t, ordersPolicy), false, "/"); err == nil {
		t.Error("a malformed entrypoint was accepted")
	}
}
