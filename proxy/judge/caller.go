package judge

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
)

// caller fills what authenticators and endpoints look at.
func (c *judged) caller(a *Arrival, trusted bool) {
	r := &c.input.Request
	c.who = authn.Request{
		Authorization: a.header("authorization"), Headers: a.Headers, TLS: a.TLS, Now: a.Time, ID: r.ID,
		Method: a.Method, Scheme: r.Scheme, Host: c.shape.clientHost(a, trusted), Path: c.shape.path, RawQuery: c.shape.query,
		Client: c.input.Source.IP, Trusted: trusted, Body: a.Body,
	}
}

// endpoint returns what serves the path itself, nil if nothing does.
func (j *Judge) endpoint(who *authn.Request) *authn.Endpoint {
	if len(j.endpoints) == 0 {
		return nil
	}
	all := j.endpoints[who.Path]
	for i := range all {
		if ofHost(all[i].Hosts, nameOf(who)) {
			return &all[i]
		}
	}
	return nil
}

// nameOf is the host that the client asked for in lower case, without port.
func nameOf(who *authn.Request) string {
	host, _, _ := splitHost(who.Host) // it was checked
	return host
}

// ofHost reports whether hosts, as endpoints name them, have host among them.
func ofHost(hosts []string, host string) bool {
	for _, h := range hosts {
		suffix, wild := strings.CutPrefix(h, "*")
		if h == host || wild && len(host) > len(suffix) && strings.HasSuffix(host, suffix) {
			return true
		}
	}
	return len(hosts) == 0
}

// serve has an endpoint answer. None of them forwards anything.
func (c *judged) serve(ctx context.Context, e *authn.Endpoint) error {
	answer := e.Serve(ctx, &c.who)
	c.Outcome = authz.OutcomeAnswered
	c.Answer = answerOf(answer)
	return nil
}

// stepUp has somebody at a browser log in again where the policy challenges: a
// person cannot read a WWW-Authenticate header.
func (j *Judge) stepUp(ctx context.Context, c *judged) {
	if c.Outcome != authz.OutcomeDenied || c.Decision.Challenge == nil {
		return
	}
	s, ok := j.cfg.Chains[c.Route.Index].(Stepper)
	if !ok {
		return
	}
	if a := s.StepUp(ctx, &c.who, c.Input.Identity, c.Decision.Challenge); a != nil {
		c.Answer = answerOf(a)
	}
}

// invite adds to a 401 what authenticators say beside their challenges.
func (j *Judge) invite(c *judged) {
	if c.Answer.Status != http.StatusUnauthorized || c.Route == nil {
		return
	}
	if v, ok := j.cfg.Chains[c.Route.Index].(Inviter); ok {
		c.Answer.Headers = append(c.Answer.Headers, v.Invitations(&c.who)...)
	}
}

func answerOf(a *authn.Answer) *Answer {
	out := &Answer{Status: a.Status, Headers: slices.Clone(a.Headers), Body: a.Body}
	out.setDefault("cache-control", "no-store")
	return out
}

// outbound adds what the upstream is shown of the caller, in place of whatever
// the request has under these names.
func (j *Judge) outbound(ctx context.Context, c *judged) error {
	if c.Forward == nil || len(j.cfg.Outbound) == 0 || j.cfg.Outbound[c.Route.Index] == nil {
		return nil
	}
	set, err := j.cfg.Outbound[c.Route.Index].Headers(ctx, &Outgoing{Input: c.Input, Decision: c.Decision, Caller: &c.who})
	if fault := (*authz.Fault)(nil); errors.As(err, &fault) {
		c.Forward = nil
		j.fault(&c.Verdict, fault)
		return nil
	}
	if err != nil {
		c.Forward = nil
		return err
	}
	c.Forward.Outbound = set
	for _, h := range set {
		c.Forward.replace(h)
	}
	return nil
}
