// Package problem owns what a client is told when the gateway answers by
// itself: the refusal classes of the edge, the one table that maps a class to a
// status, and the RFC 9457 body. A class is a sentinel error; the error that
// carries it may say more for the log, and none of that reaches the client.
//
// It does not decide when to refuse.
package problem

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/ratelimit"
)

// The classes that the edge itself refuses or fails with.
var (
	// ErrMalformed: the request breaks HTTP/1.1 (RFC 9112).
	ErrMalformed = errors.New("malformed request")
	// ErrAmbiguous: the request is legal but two readers may see two requests.
	ErrAmbiguous = errors.New("ambiguous request")
	// ErrMisdirected: the request is for another host than the connection (RFC 9110 section 15.5.20).
	ErrMisdirected = errors.New("misdirected request")
	// ErrVersion: neither HTTP/1.1 nor HTTP/1.0.
	ErrVersion = errors.New("unsupported protocol version")
	// ErrExpectation: an Expect other than 100-continue (RFC 9110 section 10.1.1).
	ErrExpectation = errors.New("unsupported expectation")
	// ErrRequestTimeout: the client did not send its request in time.
	ErrRequestTimeout = errors.New("request was not received in time")
	// ErrHeadTooLarge: the request head passed the listener's limit.
	ErrHeadTooLarge = errors.New("request head exceeds the limit")
	// ErrBusy: the listener has all the connections that it may have, or no
	// configuration to serve them by.
	ErrBusy = errors.New("too many connections")
	// ErrNoRoute: no route matches.
	ErrNoRoute = errors.New("no route matches")
	// ErrMethod: routes match the request but for its method.
	ErrMethod = errors.New("method is not routed")
	// ErrUnreachable: no connection to the upstream, or it broke before a response.
	ErrUnreachable = errors.New("upstream cannot be reached")
	// ErrUpstreamProtocol: the upstream's response is not one.
	ErrUpstreamProtocol = errors.New("upstream sent an invalid response")
	// ErrUpstreamTimeout: the upstream did not respond in time.
	ErrUpstreamTimeout = errors.New("upstream did not respond in time")
	// ErrUpstreamBusy: the upstream has all the connections that it may have.
	ErrUpstreamBusy = errors.New("upstream has no free connection")
	// ErrNoToken: the token that the upstream is to be shown cannot be had now.
	ErrNoToken = errors.New("no token for the upstream")
	// ErrTokenRefused: the provider does not grant the caller such a token.
	ErrTokenRefused = errors.New("provider refuses a token for the upstream")
)

// Problem is one answer of the gateway.
type Problem struct {
	Status     int
	Detail     string // text of the class; never what went wrong inside
	RetryAfter int    // seconds; 0: no Retry-After header
}

// classes is the one place where an error becomes a status. The first match
// counts; an error of no class is a 500 that says nothing.
var classes = []struct {
	err error
	Problem
}{
	{ErrAmbiguous, Problem{http.StatusBadRequest, "The request is ambiguous.", 0}},
	{ErrMalformed, Problem{http.StatusBadRequest, "The request is malformed.", 0}},
	{ErrMisdirected, Problem{http.StatusMisdirectedRequest, "The connection is for another host.", 0}},
	{ErrVersion, Problem{http.StatusHTTPVersionNotSupported, "The protocol version is not supported.", 0}},
	{ErrExpectation, Problem{http.StatusExpectationFailed, "The expectation is not supported.", 0}},
	{ErrRequestTimeout, Problem{http.StatusRequestTimeout, "The request was not received in time.", 0}},
	{ErrHeadTooLarge, Problem{http.StatusRequestHeaderFieldsTooLarge, "The request head is too large.", 0}},
	{ErrBusy, Problem{http.StatusServiceUnavailable, "The gateway cannot take the connection now.", 1}},
	{ErrNoRoute, Problem{http.StatusNotFound, "Nothing is here.", 0}},
	{ErrMethod, Problem{http.StatusMethodNotAllowed, "The method is not allowed here.", 0}},
	{authn.ErrInsufficientScope, Problem{http.StatusForbidden, "A scope is missing.", 0}},
	{authn.ErrUnavailable, Problem{http.StatusServiceUnavailable, "The credential cannot be verified now.", 5}},
	{authn.ErrTooMany, Problem{http.StatusTooManyRequests, "Too many credentials were sent.", 1}},
	{ratelimit.ErrLimited, Problem{http.StatusTooManyRequests, "Too many requests.", 1}},
	{ratelimit.ErrFull, Problem{http.StatusServiceUnavailable, "The request cannot be counted now.", 1}},
	{authn.ErrInvalid, Problem{http.StatusUnauthorized, "The credential is not valid.", 0}},
	{authn.ErrNoCredential, Problem{http.StatusUnauthorized, "A credential is needed.", 0}},
	{authn.ErrNotMine, Problem{http.StatusUnauthorized, "A credential is needed.", 0}},
	{authz.ErrNoPolicy, Problem{http.StatusServiceUnavailable, "The gateway is not ready.", 5}},
	{authz.ErrDecisionTimeout, Problem{http.StatusForbidden, "The request is denied.", 0}},
	{authz.ErrBodyTooLarge, Problem{http.StatusRequestEntityTooLarge, "The request body is too large.", 0}},
	{authz.ErrBodyRead, Problem{http.StatusBadRequest, "The request body could not be read.", 0}},
	{ErrUpstreamTimeout, Problem{http.StatusGatewayTimeout, "The upstream did not respond in time.", 0}},
	{ErrUpstreamBusy, Problem{http.StatusServiceUnavailable, "The upstream is busy.", 1}},
	{ErrUnreachable, Problem{http.StatusBadGateway, "The upstream cannot be reached.", 0}},
	{ErrUpstreamProtocol, Problem{http.StatusBadGateway, "The upstream sent an invalid response.", 0}},
	{ErrNoToken, Problem{http.StatusServiceUnavailable, "The upstream's credential cannot be had now.", 5}},
	{ErrTokenRefused, Problem{http.StatusForbidden, "The request is denied.", 0}},
	// Whoever gave the request up: it was neither allowed nor denied.
	{context.Canceled, Problem{http.StatusServiceUnavailable, "The request was given up before it was decided.", 1}},
	{context.DeadlineExceeded, Problem{http.StatusServiceUnavailable, "The request was given up before it was decided.", 1}},
}

// Of returns the problem to answer err with.
func Of(err error) Problem {
	for i := range classes {
		if !errors.Is(err, classes[i].err) {
			continue
		}
		p := classes[i].Problem
		if p.Status == http.StatusTooManyRequests {
			p.tooMany(err)
		}
		return p
	}
	return Problem{Status: http.StatusInternalServerError}
}

// tooMany says what there was too much of and when to come back.
func (p *Problem) tooMany(err error) {
	var credentials *authn.TooManyError
	var requests *ratelimit.LimitedError
	switch {
	case errors.As(err, &credentials):
		p.tooManyCredentials(credentials.Of)
		p.RetryAfter = WholeSeconds(credentials.RetryAfter)
		p.Detail += " The next is looked at in "
	case errors.As(err, &requests):
		p.RetryAfter = WholeSeconds(requests.Next)
		p.Detail += " The next passes in "
	default:
		return
	}
	p.Detail += strconv.Itoa(p.RetryAfter) + " second"
	if p.RetryAfter > 1 {
		p.Detail += "s"
	}
	p.Detail += "."
}

func (p *Problem) tooManyCredentials(of authn.Limited) {
	switch of {
	case authn.BadCredentials:
		p.Detail = "Too many credentials from this client were not valid."
	case authn.Proofs:
		p.Detail = "Too many DPoP proofs were made with this key."
	}
}

// WholeSeconds rounds up, to one at least: nobody is told to come back at once.
func WholeSeconds(d time.Duration) int {
	return max(1, int((d+time.Second-1)/time.Second))
}

// ContentType is the media type of a problem body (RFC 9457).
const ContentType = "application/problem+json"

// AppendJSON appends the body of p. The type member is absent, which means
// "about:blank": the title is the status' own.
func (p Problem) AppendJSON(dst []byte, requestID, decisionID string) []byte {
	dst = append(dst, `{"title":`...)
	dst = appendString(dst, http.StatusText(p.Status))
	dst = append(dst, `,"status":`...)
	dst = strconv.AppendInt(dst, int64(p.Status), 10)
	for _, m := range [...]struct{ name, value string }{
		{"detail", p.Detail}, {"request_id", requestID}, {"decision_id", decisionID},
	} {
		if m.value == "" {
			continue
		}
		dst = append(dst, `,"`...)
		dst = append(dst, m.name...)
		dst = append(dst, `":`...)
		dst = appendString(dst, m.value)
	}
	return append(dst, "}\n"...)
}

const hexDigits = "0123456789abcdef"

// appendString appends s as a JSON string; bytes that are not UTF-8 become
// U+FFFD, so that the body is always valid.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r < 0x20 || r == '<' || r == '>' || r == '&':
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[r>>4&15], hexDigits[r&15])
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return append(dst, '"')
}
