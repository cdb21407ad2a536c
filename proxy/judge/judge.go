// Package judge is the one place where a request is judged: its shape is
// checked, it is routed, its sender is established, the policy is asked, and
// what the policy obliges the gateway to do is carried out on what will be
// forwarded or answered. Every front, the explain verb and the tests use it.
//
// It is front-neutral: it knows neither connections nor fasthttp, forwards
// nothing and writes nothing.
package judge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/certs"
	"github.com/sallyport/sallyport/proxy/problem"
	"github.com/sallyport/sallyport/proxy/ratelimit"
	"github.com/sallyport/sallyport/proxy/route"
)

// Decider asks the policy. An error means that there is no decision, and closes.
type Decider interface {
	Decide(ctx context.Context, in *authz.Input) (*authz.Decision, error)
}

// Chain establishes who sends a request; it is one route's authenticators.
type Chain interface {
	Authenticate(ctx context.Context, r *authn.Request) (*authz.Identity, error)
	// Challenges returns WWW-Authenticate values for the error of Authenticate.
	Challenges(err error) []string
}

// Stepper is a Chain that can have people authenticate again. StepUp returns what to
// answer in place of the challenge of a denial, nil if that is for the sender to read.
type Stepper interface {
	StepUp(ctx context.Context, r *authn.Request, id *authz.Identity, c *authz.Challenge) *authn.Answer
}

// Inviter is a Chain whose authenticators have more to say of how to authenticate than
// challenges do: further fields of a 401.
type Inviter interface {
	Invitations(r *authn.Request) []authz.Header
}

// Config is what requests are judged by. All of it is immutable.
type Config struct {
	Routes *route.Table
	// Chains holds the authenticators of each route, by its index.
	Chains []Chain
	// Upstream reports whether an upstream of that name is configured.
	Upstream func(name string) bool
	Decider  Decider
	// Endpoints are what mechanisms serve themselves, before any route.
	Endpoints []authn.Endpoint
	// Outbound gets what the upstream of a route is shown of the identity, by the
	// route's index; nil, also for a single route: nothing.
	Outbound []Outbound
	// Limiter takes the tokens of the policy's rate limits; nil: what has one is denied.
	Limiter Limiter
	// ResourceMetadata returns the URL of the metadata of the protected resource that
	// a request to host and path belongs to, empty without one; nil: there is none.
	ResourceMetadata func(host, path string) string
	// CredentialHeaders are further header names that carry credentials: a policy
	// does not see them unless its route asks for them by name.
	CredentialHeaders []string
	// AssertedHeaders are those of CredentialHeaders that are forwarded only when an
	// authenticator has taken them.
	AssertedHeaders []string
	// Vouchers report whether the peer of a request is a proxy that is believed what it
	// says of its client's certificate. With any, no upstream hears of it from others.
	Vouchers []func(r *authn.Request) bool
	// IdentityHeaders are further header names that clients may not send.
	IdentityHeaders []string
	// Tracer makes the spans of authenticating and deciding; nil: none.
	Tracer trace.Tracer
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Outbound obtains what an upstream is shown of the caller: a token of its own, a
// signed identity. It runs after the policy allowed, and an error closes: with
// the class that it is of, else with 500. A *authz.Fault is the policy's and denies.
type Outbound interface {
	Headers(ctx context.Context, o *Outgoing) ([]authz.Header, error)
}

// Exchanger is an Outbound that can carry out a policy's upstream.token_exchange.
type Exchanger interface {
	Exchanges() bool
}

// Limiter takes the tokens of rate limits. The error of a request that does not pass is
// a *ratelimit.LimitedError or ratelimit.ErrFull.
type Limiter interface {
	Take(key string, b authz.Bucket, now time.Time) (ratelimit.Left, error)
}

// Owner is an Outbound with header names of its own, in lower case: what clients
// send under them is dropped, also from requests for which it sets none.
type Owner interface {
	Owned() []string
}

// Outgoing is what was allowed.
type Outgoing struct {
	Input    *authz.Input
	Decision *authz.Decision
	Caller   *authn.Request // with the token that stands for the caller
}

// Judge judges requests. It is safe for concurrent use.
type Judge struct {
	cfg       Config
	classes   classes
	mark      *mark
	endpoints map[string][]authn.Endpoint // by path
	owned     [][]string                  // by route: what only its upstream does not get from clients
}

// own takes the names that outbound headers have from clients: everywhere those
// that exist for upstreams alone, since an upstream may be behind several routes,
// and on the route itself those that requests carry for other reasons too.
func (j *Judge) own() [][]string {
	owned := make([][]string, len(j.cfg.Outbound))
	for i, o := range j.cfg.Outbound {
		owner, ok := o.(Owner)
		if !ok {
			continue
		}
		for _, name := range owner.Owned() {
			if j.classes.of(name) == ordinary && !everyday(name) {
				j.classes[fold(name)] = identity
			}
			if j.classes.of(name) != identity {
				owned[i] = append(owned[i], name)
			}
		}
	}
	return owned
}

// New returns a judge.
func New(cfg Config) *Judge {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	j := &Judge{cfg: cfg, classes: newClasses(cfg.IdentityHeaders, cfg.CredentialHeaders), mark: &mark{}, endpoints: map[string][]authn.Endpoint{}}
	j.owned = j.own()
	for _, e := range cfg.Endpoints {
		j.endpoints[e.Path] = append(j.endpoints[e.Path], e)
	}
	return j
}

// Verdict is what came out. Exactly one of Forward and Answer is set.
type Verdict struct {
	Outcome  authz.Outcome
	Forward  *Forward
	Answer   *Answer
	Input    *authz.Input    // as far as it could be built
	Decision *authz.Decision // nil when the policy was not asked or did not decide
	// DecisionID is the decision's id in the response and the log, empty without one.
	DecisionID string
	Route      *route.Route   // nil when none was found
	Err        error          // operator's view of a refusal; never for the client
	Response   []authz.Header // further fields of the response, whoever gives it

	Authenticate, Decide time.Duration

	record authz.Record
}

// Record returns what the decision log keeps, but for what only the front knows.
// It is one value: whoever calls it a second time changes what the first has got.
func (v *Verdict) Record() *authz.Record {
	rec := &v.record
	*rec = authz.Record{
		Input: v.Input, Decision: v.Decision, DecisionID: v.DecisionID, Outcome: v.Outcome,
		Authenticate: v.Authenticate, Decide: v.Decide,
	}
	if v.Err != nil {
		rec.Error = v.Err.Error()
	}
	if v.Forward != nil {
		rec.Upstream = v.Forward.Upstream
	}
	return rec
}

// Judge judges one request.
func (j *Judge) Judge(ctx context.Context, a *Arrival) *Verdict {
	c := newCase(a)
	trusted := a.Listener.trusts(a.Peer.Addr().Unmap())
	j.describe(c.Input, a, trusted)
	if err := j.judge(ctx, a, c, trusted); err != nil {
		j.refuse(&c.Verdict, err)
		j.invite(c)
	}
	j.discover(c)
	c.Response = c.who.Response
	return &c.Verdict
}

// judged holds what one request needs, allocated at once.
type judged struct {
	Verdict
	input   authz.Input
	shape   shape
	forward Forward
	who     authn.Request

	authenticated time.Time
}

func newCase(a *Arrival) *judged {
	c := &judged{}
	c.input.Gateway = a.Listener.Gateway
	c.Input = &c.input
	return c
}

// describe fills the parts of the input that hold for any request, so that a
// record of a refused one says something.
func (j *Judge) describe(in *authz.Input, a *Arrival, trusted bool) {
	in.Request.ID = requestID(a, trusted)
	in.Request.Method = a.Method
	in.Request.Protocol = a.Protocol
	in.Request.Time = a.Time
	in.Request.ContentLength = a.ContentLength
	in.Request.Body = a.Body
	in.Source = source(a, trusted)
	if a.TLS != nil {
		if in.TLS = a.TLSInfo; in.TLS == nil {
			in.TLS = certs.TLSOf(a.TLS)
		}
	}
}

func (j *Judge) judge(ctx context.Context, a *Arrival, c *judged, trusted bool) error {
	v, s, in := &c.Verdict, &c.shape, &c.input
	if err := j.checkShape(a, s); err != nil {
		return err
	}
	a = a.admissible(j.classes, trusted)
	in.Request.Scheme = clientScheme(a, trusted)
	in.Request.Host, in.Request.Port = s.host, s.portFor(in.Request.Scheme)
	in.Request.Path, in.Request.Segments, in.Request.RawQuery = s.path, s.segments, s.query
	in.Request.ContentType = a.header("content-type")
	c.caller(a, trusted)
	if e := j.endpoint(&c.who); e != nil {
		return c.serve(ctx, e)
	}
	if err := j.route(a, s, v); err != nil {
		return err
	}
	in.Request.Headers, c.forward.Headers = j.visible(a, v.Route.Config.InputHeaders)
	if err := j.authenticate(ctx, c); err != nil {
		return err
	}
	if err := j.decide(ctx, c); err != nil {
		return err
	}
	j.forward(c, a, trusted)
	j.carryOut(v, &c.forward)
	if err := j.limit(c); err != nil {
		return err
	}
	j.stepUp(ctx, c)
	return j.outbound(ctx, c)
}

// route finds the route and rewrites the path: what follows sees only the path
// that is forwarded.
func (j *Judge) route(a *Arrival, s *shape, v *Verdict) error {
	q := route.Query{Method: a.Method, Host: s.host, Segments: s.segments, Headers: a.Headers}
	r := j.cfg.Routes.Match(&q)
	if r == nil {
		if allowed := j.cfg.Routes.Methods(&q); len(allowed) > 0 {
			return &methodError{allowed: strings.Join(allowed, ", ")}
		}
		return fmt.Errorf("%s %s: %w", clip(s.host), clip(s.path), problem.ErrNoRoute)
	}
	v.Route = r
	in := v.Input
	in.Route = authz.Route{
		Name: r.Config.Name, Params: r.Params(s.segments), Upstream: r.Config.Upstream,
		Labels: r.Config.Labels, Entrypoint: r.Config.Entrypoint, Uncached: r.Config.NoDecisionCache,
	}
	if !r.Rewrites() {
		return nil
	}
	in.Request.Path = r.Rewrite(s.path)
	var err error
	in.Request.Segments, err = checkPath(in.Request.Path, a.Listener.PathParameters, nil)
	return err
}

// methodError is a request whose method alone is not routed.
type methodError struct{ allowed string }

func (e *methodError) Error() string { return "routed methods are " + e.allowed }
func (e *methodError) Unwrap() error { return problem.ErrMethod }

func (j *Judge) authenticate(ctx context.Context, c *judged) error {
	v := &c.Verdict
	start := j.cfg.Now()
	ctx, end := j.span(ctx, "authenticate")
	c.who.Now = start
	id, err := j.cfg.Chains[v.Route.Index].Authenticate(ctx, &c.who)
	c.authenticated = j.cfg.Now()
	v.Authenticate = c.authenticated.Sub(start)
	end(err)
	if err == nil && id == nil {
		err = errors.New("authentication gave neither identity nor error")
	}
	if err == nil {
		err = require(&v.Route.Config.Require, id)
	}
	if err != nil {
		return err
	}
	v.Input.Identity = id
	return nil
}

func (j *Judge) decide(ctx context.Context, c *judged) error {
	v, start := &c.Verdict, c.authenticated
	ctx, end := j.span(ctx, "decide")
	d, err := j.cfg.Decider.Decide(ctx, v.Input)
	v.Decide = j.cfg.Now().Sub(start)
	end(err)
	if err == nil && d == nil {
		err = errors.New("the decider gave neither decision nor error")
	}
	if d != nil {
		v.Decision, v.DecisionID = d, authz.NewID(start)
	}
	return err
}

// carryOut turns the decision into a forward or an answer.
func (j *Judge) carryOut(v *Verdict, f *Forward) {
	d := v.Decision
	fault := d.Fault
	if fault == nil && d.Allow {
		if fault = j.obligate(f, v.Route, d); fault == nil {
			v.Outcome, v.Forward = authz.OutcomeAllowed, f
			return
		}
	}
	if fault == nil {
		v.Outcome = authz.OutcomeDenied
		if v.Answer, fault = j.answerDeny(d, v.Input.Request.ID, v.DecisionID); fault == nil {
			if d.Body == nil && d.Redirect == "" {
				v.dress(v.Answer, denied)
			}
			return
		}
	}
	j.fault(v, fault)
}

// fault denies for what the policy's answer has that cannot be carried out.
func (j *Judge) fault(v *Verdict, fault *authz.Fault) {
	d := *v.Decision // the decider may share its decisions
	d.Allow, d.Fault = false, fault
	v.Decision = &d
	v.Outcome, v.Err = authz.OutcomeFault, fault
	v.Answer, _ = j.answerDeny(&authz.Decision{}, v.Input.Request.ID, v.DecisionID)
	v.dress(v.Answer, denied)
}

// refuse answers for err.
func (j *Judge) refuse(v *Verdict, err error) {
	v.Err, v.Outcome = err, outcomeOf(err)
	if own := (*authn.Answer)(nil); errors.As(err, &own) {
		v.Outcome, v.Answer = authz.OutcomeUnauthenticated, answerOf(own)
		return
	}
	v.Answer = answerError(err, v.Input.Request.ID, v.DecisionID)
	v.dress(v.Answer, problem.Of(err).Detail)
	if (v.Answer.Status == http.StatusUnauthorized || errors.Is(err, authn.ErrInsufficientScope)) && v.Route != nil {
		for _, c := range j.cfg.Chains[v.Route.Index].Challenges(err) {
			v.Answer.Headers = append(v.Answer.Headers, authz.Header{Name: "www-authenticate", Value: withScope(c, &v.Route.Config.Require)})
		}
	}
	if m := (*methodError)(nil); errors.As(err, &m) {
		v.Answer.set("allow", m.allowed)
	}
	v.Answer.limit(err)
}

func outcomeOf(err error) authz.Outcome {
	switch status := problem.Of(err).Status; {
	case status == http.StatusUnauthorized:
		return authz.OutcomeUnauthenticated
	case errors.Is(err, ratelimit.ErrLimited):
		return authz.OutcomeLimited
	case errors.Is(err, authz.ErrDecisionTimeout):
		return authz.OutcomeFault
	case status >= 500 && status != http.StatusHTTPVersionNotSupported:
		return authz.OutcomeUnavailable
	}
	return authz.OutcomeRefused
}

// Refuse returns the verdict on a request that could not even be read.
func (j *Judge) Refuse(a *Arrival, err error) *Verdict {
	v := &newCase(a).Verdict
	j.describe(v.Input, a, false)
	j.refuse(v, err)
	return v
}

// RedirectToHTTPS answers for a listener that only redirects. Port is the one
// of the https listener, 0 for the scheme's own.
func (j *Judge) RedirectToHTTPS(a *Arrival, port int) *Verdict {
	c := newCase(a)
	j.describe(c.Input, a, false)
	if err := j.checkShape(a, &c.shape); err != nil {
		j.refuse(&c.Verdict, err)
		return &c.Verdict
	}
	c.Outcome, c.Answer = authz.OutcomeRefused, &Answer{Status: http.StatusPermanentRedirect}
	c.Answer.set("location", c.shape.redirectToHTTPS(port))
	return &c.Verdict
}

// Fail returns the answer for an upstream that failed after an allow.
func (v *Verdict) Fail(err error) *Answer {
	v.Err = err
	a := answerError(err, v.Input.Request.ID, v.DecisionID)
	v.dress(a, problem.Of(err).Detail)
	return a
}
