package authz

import (
	"encoding/json"
	"errors"
	"sync/atomic"
	"time"
)

// Errors that mean "no decision": the front answers and forwards nothing.
var (
	// ErrNoPolicy: no revision is active yet, or the active one is withdrawn. 503.
	ErrNoPolicy = errors.New("no policy is active")
	// ErrDecisionTimeout: evaluation passed its deadline. A deny, counted.
	ErrDecisionTimeout = errors.New("policy evaluation exceeded its deadline")
	// ErrBodyTooLarge: the body passed the listener's limit while it was read. 413.
	ErrBodyTooLarge = errors.New("request body exceeds the limit")
	// ErrBodyRead: the client did not deliver the body it announced. 400.
	ErrBodyRead = errors.New("request body could not be read")
)

// Decision is what a policy said, checked: every obligation is one that the
// gateway knows and can carry out. The zero value denies. It may be the answer to
// many requests, so it has no id, and nobody changes it.
type Decision struct {
	Allow    bool
	Reason   string            // for the log; public only if the policy also puts it in Body
	Labels   map[string]string // for log and metrics
	Revision string            // policy revision that decided
	Bundles  map[string]string // revision of each of its bundles, by name; shared, not to be changed
	Cached   bool              // taken from the decision cache
	Memo     *Memo             // of a decision that further requests get too; nil: none

	// On deny.
	Status   int               // 0: 403
	Headers  map[string]string // response headers
	Body     json.RawMessage   // response body, JSON; nil: problem+json
	Redirect string            // Location; with Status 0 it means 302

	// On allow.
	Upstream UpstreamObligation
	Response ResponseObligation
	// Owned are the upstream headers that some answer of the rule sets, as far as
	// its source names them. What a client sends under them is dropped also when
	// this answer sets none: an absent x-role must not become the client's. It is
	// shared and not to be changed.
	Owned []string

	Challenge *Challenge
	RateLimit *RateLimit
	LogDrop   bool // leave the decision out of the decision log

	// Fault is set when the policy's answer was no decision: undefined, of a
	// wrong type, with an unknown key, over its deadline. Allow is false then.
	Fault *Fault
}

// UpstreamObligation changes what is forwarded.
type UpstreamObligation struct {
	Name          string // upstream to use instead of the route's; must be configured
	SetHeaders    map[string]string
	RemoveHeaders []string
	TokenExchange *TokenExchange
}

// TokenExchange asks for an RFC 8693 exchange before forwarding.
type TokenExchange struct{ Audience, Scope string }

// ResponseObligation changes what is returned.
type ResponseObligation struct {
	SetHeaders    map[string]string
	RemoveHeaders []string
}

// Challenge asks the client for a better credential (RFC 6750, RFC 9470).
type Challenge struct {
	Error     string
	Scope     string
	ACRValues string
	MaxAge    int // seconds; negative: not asked
}

// RateLimit names the bucket that an allowed request takes a token from. Requests
// with the same key, rate and burst share it, whatever their routes.
type RateLimit struct {
	Key   string // 1 to MaxRateLimitKey bytes
	Rate  string // tokens that are earned in a unit of time, s, m, h or d: "100/m"
	Burst int    // tokens that the bucket holds; 0: as many as Rate earns in its unit
}

// FaultKind classifies a policy fault, for metrics.
type FaultKind string

// The kinds of policy fault. Each denies.
const (
	FaultUndefined   FaultKind = "undefined"   // the entrypoint had no value
	FaultType        FaultKind = "type"        // neither boolean nor object, or a member of a wrong type
	FaultUnknownKey  FaultKind = "unknown_key" // a member that the contract does not have
	FaultUnsupported FaultKind = "unsupported" // an obligation that this gateway cannot carry out
	FaultTimeout     FaultKind = "timeout"
	FaultEval        FaultKind = "eval" // evaluation error, such as conflicting rules
)

// Fault says why a policy's answer was refused.
type Fault struct {
	Kind   FaultKind
	Detail string // for the log and for explain; never for the client
}

// Error makes a Fault usable as an error by tools.
func (f *Fault) Error() string { return string(f.Kind) + ": " + f.Detail }

// Outcome is how the gateway disposed of a request.
type Outcome string

// The outcomes, also the values of the outcome label of sallyport_requests.
const (
	OutcomeAllowed         Outcome = "allowed"
	OutcomeDenied          Outcome = "denied"
	OutcomeFault           Outcome = "fault"           // policy fault
	OutcomeUnauthenticated Outcome = "unauthenticated" // no or bad credential
	OutcomeLimited         Outcome = "limited"         // allowed, and over the rate_limit of the policy
	OutcomeUnavailable     Outcome = "unavailable"     // no policy, or a dependency is gone
	OutcomeRefused         Outcome = "refused"         // malformed, ambiguous, too large, no route
	OutcomeAnswered        Outcome = "answered"        // by the gateway itself: a login, a logout, a key set
)

// Record is what happened to one request, for the decision log. It owns its
// memory: nothing in it belongs to a connection.
type Record struct {
	Input                         *Input
	DecisionID                    string    // empty with Decision
	Decision                      *Decision // nil when the request never reached the policy
	Outcome                       Outcome
	Error                         string // operator's view of what went wrong; never sent to the client
	Status                        int    // status the client got
	Upstream                      string // upstream that was used, if any
	Authenticate, Decide, Forward time.Duration
	TraceID, SpanID               string
}

// Memo is a place beside a decision that many requests share, for what one of them
// found out about it: it is not to be found out again. What is there is no part of
// the decision, and can go at any time. A nil Memo remembers nothing.
type Memo struct{ v atomic.Value }

// Load returns what was stored last, nil if nothing was.
func (m *Memo) Load() any {
	if m == nil {
		return nil
	}
	return m.v.Load()
}

// Store remembers v, of one type for all callers and not nil.
func (m *Memo) Store(v any) {
	if m != nil {
		m.v.Store(v)
	}
}

// Equal is always true: what is remembered makes no other decision.
func (*Memo) Equal(*Memo) bool { return true }
