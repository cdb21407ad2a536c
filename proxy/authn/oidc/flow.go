package oidc

import (
	"cmp"
	"crypto"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/session"
)

const (
	// flowLife is how long a login may take.
	flowLife = 10 * time.Minute
	// maxFlows is how many logins one browser may be allowed to have under way: one that
	// is started with the tabs of yesterday begins as many at once.
	maxFlows = 5
	// maxFlowBytes bounds what the older of them have in their cookies together. Other
	// sites can have a browser begin logins, for pages with long names: they must not
	// bring its requests over the limit of a header.
	maxFlowBytes = 4 << 10
)

// flow is a login that has begun. It travels sealed in a cookie of the browser that
// began it, so that no other browser can end it.
type flow struct {
	State    string `json:"state"`
	Nonce    string `json:"nonce"`
	Verifier string `json:"verifier"`
	Origin   string `json:"origin"`
	Return   string `json:"return"`
	Begun    int64  `json:"begun"` // Unix milliseconds
	demand
}

// flowPurpose has a login end at the provider, and for the client, that it began with,
// whatever the configuration has become since: another one would get the code.
func (a *Authenticator) flowPurpose() string {
	return "login " + a.name + " " + a.config.ClientID + " " + a.config.Issuer
}

// flowOf is the cookie of the login with a state.
func (a *Authenticator) flowOf(state string) *session.Cookies {
	return a.flows.Tagged(hex.EncodeToString(digest(crypto.SHA256, []byte(state))[:8]))
}

// remember gives the browser the cookie of a login, in place of the oldest if it has
// many.
func (a *Authenticator) remember(r *authn.Request, f *flow) error {
	text, err := json.Marshal(f)
	if err != nil {
		return err
	}
	a.forgetFlows(r, a.config.ConcurrentLogins-1)
	sealed := base64.RawURLEncoding.EncodeToString(a.keys.Seal(a.flowPurpose(), text))
	return a.flowOf(f.State).Write(r, sealed, flowLife)
}

// forgetFlows has the browser forget all logins that it began but the newest, and
// those that do not open.
func (a *Authenticator) forgetFlows(r *authn.Request, keep int) {
	tags := a.flows.Tags(r, 4*maxFlows)
	begun, size := make(map[string]int64, len(tags)), make(map[string]int, len(tags))
	for _, tag := range tags {
		value := a.flows.Tagged(tag).Read(r)
		if f, err := a.opened(r, value); err == nil {
			begun[tag], size[tag] = f.Begun, len(value)
		}
	}
	slices.SortFunc(tags, func(x, y string) int { return cmp.Compare(begun[y], begun[x]) })
	bytes := 0
	for i, tag := range tags {
		if bytes += size[tag]; i >= keep || begun[tag] == 0 || bytes > maxFlowBytes {
			a.flows.Tagged(tag).Clear(r)
		}
	}
}

// opened returns the flow in a cookie's value, if it can still end.
func (a *Authenticator) opened(r *authn.Request, value string) (*flow, error) {
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(value)
	if err != nil || value == "" {
		return nil, fmt.Errorf("%w: the browser has not begun it, began many others since, or took too long", errLogin)
	}
	text, err := a.keys.Open(a.flowPurpose(), sealed)
	if err != nil {
		return nil, fmt.Errorf("%w: cookie: %w", errLogin, err)
	}
	f := &flow{}
	if err := json.Unmarshal(text, f); err != nil {
		return nil, fmt.Errorf("%w: cookie: %w", errLogin, err)
	}
	begun := time.UnixMilli(f.Begun)
	if r.Now.Sub(begun) > flowLife || begun.Sub(r.Now) > time.Minute {
		return nil, fmt.Errorf("%w: it began at %s", errLogin, begun.UTC().Format(time.RFC3339))
	}
	if !a.origins.admit(f.Origin) {
		return nil, fmt.Errorf("%w: it began at %s, where nobody may log in any more", errLogin, f.Origin)
	}
	return f, nil
}

// arrived checks that the provider's answer to f came where we had it sent.
func (a *Authenticator) arrived(r *authn.Request, f *flow) error {
	if to := a.redirectOrigin(f.Origin); a.origin(r) != to {
		return fmt.Errorf("%w: it began at %s and comes back at %s://%s in place of %s", errLogin, f.Origin, r.Scheme, r.Host, to)
	}
	return nil
}
