package judge

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/problem"
	"github.com/sallyport/sallyport/proxy/ratelimit"
	"github.com/sallyport/sallyport/proxy/route"
)

// obligate carries out the obligations of an allow on f. What cannot be carried
// out is the policy's fault and denies: an obligation is never left out.
func (j *Judge) obligate(f *Forward, r *route.Route, d *authz.Decision) *authz.Fault {
	if fault := j.unsupported(r, d); fault != nil {
		return fault
	}
	if name := d.Upstream.Name; name != "" {
		if !j.cfg.Upstream(name) {
			return faultf("upstream.name: no upstream is named %q", name)
		}
		f.Upstream = name
	}
	set, fault := j.checked(d)
	if fault != nil {
		return fault
	}
	j.disown(f, d.Owned)
	f.setHeaders(d.Upstream.RemoveHeaders, set)
	f.Response = d.Response
	return nil
}

// checkedHeaders are the headers that a decision sets upstream, in the order in
// which they are set, when those of the response have been checked too.
type checkedHeaders struct {
	by  *mark
	set []authz.Header
}

// mark tells judges apart, whose configurations differ in what may be set, without
// a decision keeping a judge that was replaced in memory. It is not empty, so that
// each has an address of its own.
type mark struct{ _ byte }

// checked returns the headers that d sets upstream. A decision that requests share
// is checked once.
func (j *Judge) checked(d *authz.Decision) ([]authz.Header, *authz.Fault) {
	if known, ok := d.Memo.Load().(*checkedHeaders); ok && known.by == j.mark {
		return known.set, nil
	}
	out := &checkedHeaders{by: j.mark}
	for _, name := range sortedKeys(d.Upstream.SetHeaders) {
		set, err := j.settable(name, d.Upstream.SetHeaders[name])
		if err != nil {
			return nil, faultf("upstream.set_headers: %v", err)
		}
		out.set = append(out.set, set)
	}
	for name, value := range d.Response.SetHeaders {
		if _, err := j.settable(name, value); err != nil {
			return nil, faultf("response.set_headers: %v", err)
		}
	}
	d.Memo.Store(out)
	return out.set, nil
}

// disown removes the client's headers that are the policy's to set, also those that
// a trusted proxy passed on. Credentials stay: a route that forwards them says so. So do
// the fields that the gateway writes anew, which are not the client's.
func (j *Judge) disown(f *Forward, names []string) {
	if len(names) > 0 {
		f.Headers = slices.DeleteFunc(f.Headers, func(h authz.Header) bool {
			c := j.classes.of(h.Name)
			return (c == ordinary || c == forwarded && !rebuilt(h.Name)) && containsFold(names, h.Name)
		})
	}
}

// setHeaders removes what the policy removes, and every spelling of what it
// sets, before it adds.
func (f *Forward) setHeaders(remove []string, set []authz.Header) {
	if len(remove) > 0 {
		f.Headers = slices.DeleteFunc(f.Headers, func(h authz.Header) bool { return containsFold(remove, h.Name) })
	}
	for _, h := range set {
		f.replace(h)
	}
}

// replace removes every spelling of what it adds.
func (f *Forward) replace(set authz.Header) {
	folded := fold(set.Name)
	f.Headers = slices.DeleteFunc(f.Headers, func(h authz.Header) bool {
		return len(h.Name) == len(folded) && fold(h.Name) == folded // folding keeps the length
	})
	f.Headers = append(f.Headers, set)
}

// sortedKeys makes what a policy says come out in one order.
func sortedKeys(m map[string]string) []string {
	if len(m) == 0 {
		return nil
	}
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (j *Judge) unsupported(r *route.Route, d *authz.Decision) *authz.Fault {
	switch {
	case d.Upstream.TokenExchange != nil && !j.exchanges(r):
		return faultf("upstream.token_exchange: route %s has no token_exchange", r.Config.Name)
	case d.RateLimit != nil && j.cfg.Limiter == nil:
		return faultf("rate_limit: nothing here counts requests")
	}
	return nil
}

func (j *Judge) exchanges(r *route.Route) bool {
	if r.Index >= len(j.cfg.Outbound) {
		return false
	}
	x, ok := j.cfg.Outbound[r.Index].(Exchanger)
	return ok && x.Exchanges()
}

func faultf(format string, args ...any) *authz.Fault {
	return &authz.Fault{Kind: authz.FaultUnsupported, Detail: fmt.Sprintf(format, args...)}
}

// settable checks a header that a policy sets. Framing and hop-by-hop fields
// are the gateway's alone.
func (j *Judge) settable(name, value string) (authz.Header, error) {
	h := authz.Header{Name: strings.ToLower(name), Value: strings.Trim(value, " \t")}
	if err := checkName(strings.ReplaceAll(h.Name, "_", "-")); err != nil {
		return h, fmt.Errorf("%q is not a header name", name)
	}
	if j.classes.of(h.Name) == hop || h.Name == "x-request-id" {
		return h, fmt.Errorf("%s is not for a policy to set", h.Name)
	}
	if err := checkValue(h.Value); err != nil {
		return h, fmt.Errorf("%s: %w", h.Name, err)
	}
	return h, nil
}

// Answer is what to send to the client in place of an upstream's response.
type Answer struct {
	Status  int
	Headers []authz.Header // lower-case names; Content-Type included
	Body    []byte
}

// answerDeny turns a deny into what the policy asked for.
func (j *Judge) answerDeny(d *authz.Decision, requestID, decisionID string) (*Answer, *authz.Fault) {
	ans := &Answer{Status: denyStatus(d)}
	if ans.Status < 200 || ans.Status > 599 {
		return nil, faultf("status %d is not one to deny with", ans.Status)
	}
	for _, name := range sortedKeys(d.Headers) {
		h, err := j.settable(name, d.Headers[name])
		if err != nil {
			return nil, faultf("headers: %v", err)
		}
		ans.Headers = append(ans.Headers, h)
	}
	if d.Redirect != "" {
		if err := checkValue(d.Redirect); err != nil {
			return nil, faultf("redirect: %v", err)
		}
		ans.set("location", d.Redirect)
	}
	if d.Challenge != nil {
		challenge, err := bearerChallenge(d.Challenge)
		if err != nil {
			return nil, faultf("challenge: %v", err)
		}
		ans.set("www-authenticate", challenge)
	}
	if d.Body != nil {
		ans.Body = d.Body
		ans.setDefault("content-type", "application/json")
	} else if d.Redirect == "" {
		ans.problem(problem.Problem{Status: ans.Status, Detail: denied}, requestID, decisionID)
	}
	ans.setDefault("cache-control", "no-store")
	return ans, nil
}

// denied is the detail of every deny that says nothing itself.
const denied = "The request is denied."

func denyStatus(d *authz.Decision) int {
	switch {
	case d.Status != 0:
		return d.Status
	case d.Redirect != "":
		return http.StatusFound
	case d.Challenge != nil && d.Challenge.Error != "insufficient_scope":
		return http.StatusUnauthorized
	}
	return http.StatusForbidden
}

// bearerChallenge writes RFC 6750 section 3 and RFC 9470 section 3.
func bearerChallenge(c *authz.Challenge) (string, error) {
	var b strings.Builder
	b.WriteString("Bearer")
	sep, code := " ", c.Error
	if code == "" && (c.ACRValues != "" || c.MaxAge >= 0) {
		code = "insufficient_user_authentication"
	}
	params := [...][2]string{{"error", code}, {"scope", c.Scope}, {"acr_values", c.ACRValues}}
	for _, p := range params {
		if p[1] == "" {
			continue
		}
		if strings.ContainsAny(p[1], "\"\\") || checkValue(p[1]) != nil {
			return "", errors.New(p[0] + " has a character that cannot be quoted")
		}
		b.WriteString(sep + p[0] + `="` + p[1] + `"`)
		sep = ", "
	}
	if c.MaxAge >= 0 && (c.ACRValues != "" || code == "insufficient_user_authentication") {
		b.WriteString(sep + "max_age=" + strconv.Itoa(c.MaxAge))
	}
	return b.String(), nil
}

// answerError builds the problem that an error is answered with.
func answerError(err error, requestID, decisionID string) *Answer {
	p := problem.Of(err)
	ans := &Answer{Status: p.Status}
	if p.RetryAfter > 0 {
		ans.set("retry-after", strconv.Itoa(p.RetryAfter))
	}
	ans.problem(p, requestID, decisionID)
	ans.set("cache-control", "no-store")
	return ans
}

// limit tells the client what the limit is that it ran into.
func (a *Answer) limit(err error) {
	var fields []authz.Header
	if l := (*authn.TooManyError)(nil); errors.As(err, &l) {
		fields = limitFields(string(l.Of), ratelimit.Left{Quota: l.Quota, Window: int64(problem.WholeSeconds(l.Window)), Next: l.RetryAfter})
	}
	if l := (*ratelimit.LimitedError)(nil); errors.As(err, &l) {
		fields = limitFields(requests, l.Left)
	}
	for _, h := range fields {
		a.set(h.Name, h.Value)
	}
}

func (a *Answer) problem(p problem.Problem, requestID, decisionID string) {
	a.Body = p.AppendJSON(make([]byte, 0, 256), requestID, decisionID)
	a.setDefault("content-type", problem.ContentType)
}

func (a *Answer) set(name, value string) {
	a.Headers = slices.DeleteFunc(a.Headers, func(h authz.Header) bool { return h.Name == name })
	a.Headers = append(a.Headers, authz.Header{Name: name, Value: value})
}

func (a *Answer) setDefault(name, value string) {
	if !slices.ContainsFunc(a.Headers, func(h authz.Header) bool { return h.Name == name }) {
		a.Headers = append(a.Headers, authz.Header{Name: name, Value: value})
	}
}
