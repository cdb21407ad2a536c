package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/exit"
	"github.com/sallyport/sallyport/engine"
	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/judge"
)

// Probe is a request that is judged and not sent.
type Probe struct {
	Method  string
	URL     string
	Headers []authz.Header // lower-case names
	Body    []byte         // nil: none
}

// Explained is what came of a probe.
type Explained struct {
	Verdict *judge.Verdict
	// Why is nil when the request was refused before the policy was asked.
	Why *engine.Explanation
}

// Explain judges a probe as a running gateway would, on the way that requests go,
// and asks the policy for its reasons. It opens no port.
func Explain(ctx context.Context, opts Options, p Probe) (*Explained, error) {
	opts.probing = true
	a, err := New(ctx, opts)
	if err != nil {
		return nil, err
	}
	a.crew = newCrew(ctx)
	g := a.current.Load()
	defer func() {
		_ = a.crew.wait(ctx)          // ends what was started below
		_ = a.telemetry.Shutdown(ctx) // nothing was exported
	}()
	a.prime(ctx, g.authenticators)
	if err := a.startPolicy(ctx, g.policy); err != nil {
		return nil, exit.With(exit.Policy, err)
	}
	arrival, err := p.arrival(g.front.Listener(g.cfg.Listeners[0].Name))
	if err != nil {
		return nil, exit.With(exit.Usage, err)
	}
	out := &Explained{Verdict: g.front.Judge().Judge(ctx, arrival)}
	if out.Verdict.Decision == nil {
		return out, nil
	}
	out.Why, err = g.policy.engine.Explain(ctx, out.Verdict.Input)
	return out, err
}

// arrival puts the probe into the form that a front gives a request.
func (p Probe) arrival(l *judge.Listener) (*judge.Arrival, error) {
	u, err := url.Parse(p.URL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("%q is not a URL such as http://127.0.0.1:8080/v1/orders", p.URL)
	}
	if u.User != nil || u.Fragment != "" {
		return nil, errors.New("a request has no user and no fragment in its URL")
	}
	a := &judge.Arrival{
		Listener: l, Method: p.Method, Target: target(p.URL, u), Protocol: "HTTP/1.1",
		Headers: append([]authz.Header{{Name: "host", Value: u.Host}}, p.Headers...),
		Peer:    netip.MustParseAddrPort("127.0.0.1:0"), Time: time.Now(),
	}
	if u.Scheme == "https" {
		a.TLS = &tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true, ServerName: u.Hostname()}
	}
	if l.TLSOptions != nil { // as a connection for this host has them
		a.TLSOptions = l.TLSOptions.Of(strings.ToLower(u.Hostname()))
	}
	if p.Body != nil {
		a.Body, a.ContentLength = body(p.Body), int64(len(p.Body))
	}
	return a, nil
}

// target is the text behind the authority, untouched: what it looks like decides
// whether the gateway takes it.
func target(text string, u *url.URL) string {
	rest := text[len(u.Scheme)+len("://"):]
	for i := range len(rest) {
		if rest[i] == '/' || rest[i] == '?' {
			if rest[i] == '?' {
				return "/" + rest[i:]
			}
			return rest[i:]
		}
	}
	return "/"
}

// body is a request body that is there already.
type body []byte

// Buffer returns the whole body.
func (b body) Buffer(context.Context) ([]byte, bool, error) { return b, false, nil }
