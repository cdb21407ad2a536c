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

decision := {"allow": true, "rate_limit": limit, "upstream": {"name": "x"}} if input.request.method == "GET"

decision := {"allow": true, "upstream": extra} if input.request.method == "POST"

decision := {"challenge": {"error": "e",
	"max_age": 3}} if input.request.method == "PUT"

extra := {"token_exchange": {"audience": input.identity.claims.max_age}}

limit.rate := "1/s"

members.rate_limit := 1

unreached := {"rate_limit": 1}
`
	err := engine.CheckObligations(compile(t, policy), false, "gateway/decision", "gateway/members")
	got := strings.Split(err.Error(), "\n")
	want := []string{
		"policy0.rego:3: rate_limit is not available",
		"policy0.rego:10: upstream.token_exchange is not available",
		"policy0.rego:14: rate_limit is not available",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	err = engine.CheckObligations(compile(t, policy), true, "gateway/decision", "gateway/members")
	if diff := cmp.Diff(append(want[:1:1], want[2:]...), strings.Split(err.Error(), "\n")); diff != "" {
		t.Error("where tokens can be exchanged:", diff)
	}
	var one *engine.UnsupportedObligationError
	if err := engine.CheckObligations(compile(t, policy), false, "gateway/unreached"); !errors.As(err, &one) || one.Key != "rate_limit" {
		t.Errorf("got %v", err)
	}
	if err := engine.CheckObligations(compile(t, ordersPolicy), false, "gateway/decision"); err != nil {
		t.Error(err)
	}
	if err := engine.CheckObligations(compile(t, ordersPolicy), false, "/"); err == nil {
		t.Error("a malformed entrypoint was accepted")
	}
}
