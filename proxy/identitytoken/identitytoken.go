// Package identitytoken is the gateway's own word on who sends a request: a
// short-lived JWT for one upstream, signed with keys of the gateway's, and the key
// set by which upstreams verify it. An upstream that checks it need not trust the
// network between, nor know any of the callers' issuers.
//
// It owns the keys, their rotation, and the form of the token. It does not verify
// tokens; that is proxy/authn/jwt.
package identitytoken

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/proxy/authn"
)

// Issuer signs identity tokens. It is safe for concurrent use.
type Issuer struct {
	config Config
	ring   *ring
	cache  *cache
	now    func() time.Time
	count  signatures
}

// Deps is what an Issuer uses of others. The zero value counts nothing.
type Deps struct {
	Now     func() time.Time // nil: time.Now
	Metrics *meter.Registry  // nil: nobody sees them
}

// signatures are the series of the counter.
type signatures struct{ ok, failed *meter.Count }

func newSignatures(metrics *meter.Registry) signatures {
	if metrics == nil {
		metrics = meter.New()
	}
	c := metrics.Counter("sallyport.identity.token.signatures", "{token}",
		"Identity tokens that were signed for upstreams, by outcome: ok or error. Tokens that were kept are not counted.")
	return signatures{c.With(meter.String("outcome", "ok")), c.With(meter.String("outcome", "error"))}
}

// New makes an issuer. It goes on with the keys of old, the one of the
// configuration before, which may be nil: tokens that are around stay good, and new
// keys are published before they sign.
func New(c Config, old *Issuer, deps Deps) (*Issuer, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	now := deps.Now
	if now == nil {
		now = time.Now
	}
	var before *ring
	if old != nil {
		before = old.ring
	}
	c = c.filled()
	i := &Issuer{config: c, ring: newRing(c, before), cache: newCache(c.Lifetime), now: now, count: newSignatures(deps.Metrics)}
	if c.KeyFile != "" {
		return i, i.Reload(context.Background())
	}
	if old != nil && (old.config.KeyFile != "" || old.config.Algorithm != c.Algorithm) {
		i.ring.wanted = nil // what is wanted is of another origin or kind; what signs goes on until the new is known
	}
	_, err := i.ring.signer(now())
	return i, err
}

// Header returns the name of the header that carries the token.
func (i *Issuer) Header() string { return i.config.Header }

// Files returns the files that Reload reads.
func (i *Issuer) Files() []string {
	if i.config.KeyFile == "" {
		return nil
	}
	return []string{i.config.KeyFile}
}

// Reload reads the keys again. A broken file leaves those in force that there are.
func (i *Issuer) Reload(context.Context) error {
	keys, err := readKeys(i.config.KeyFile)
	if err != nil {
		return err
	}
	i.ring.want(keys, i.now())
	return nil
}

// Token returns the token that tells audience who id is.
func (i *Issuer) Token(id *authz.Identity, audience string) (string, error) {
	now := i.now()
	k := cacheKey{id, audience}
	if token := i.cache.get(k, now); token != "" {
		return token, nil
	}
	token, err := i.sign(id, audience, now)
	if err != nil {
		i.count.failed.Add(1)
		return "", fmt.Errorf("sign identity token: %w", err)
	}
	i.count.ok.Add(1)
	until := now.Add(i.config.Lifetime / 2)
	if !id.ExpiresAt.IsZero() && id.ExpiresAt.Before(until) {
		until = id.ExpiresAt
	}
	i.cache.put(k, token, until, now)
	return token, nil
}

func (i *Issuer) sign(id *authz.Identity, audience string, now time.Time) (string, error) {
	k, err := i.ring.signer(now)
	if err != nil {
		return "", err
	}
	claims, err := json.Marshal(i.claims(id, audience, now))
	if err != nil {
		return "", err
	}
	input := encode([]byte(`{"alg":"`+k.alg+`","kid":"`+k.id+`","typ":"JWT"}`)) + "." + encode(claims)
	signature, err := k.sign(input)
	if err != nil {
		return "", err
	}
	return input + "." + encode(signature), nil
}

// claims are those of RFC 7519 and RFC 8693 section 4.2. A subject is somebody only
// together with who established it, so that is said too.
func (i *Issuer) claims(id *authz.Identity, audience string, now time.Time) map[string]any {
	expires := now.Add(i.config.Lifetime)
	if !id.ExpiresAt.IsZero() && id.ExpiresAt.Before(expires) {
		expires = id.ExpiresAt
	}
	out := map[string]any{}
	for _, name := range i.config.Claims {
		if v, ok := id.Claims[name]; ok {
			out[name] = v
		}
	}
	out["iss"], out["aud"], out["iat"], out["exp"] = i.config.Issuer, audience, now.Unix(), expires.Unix()
	out["authenticator"] = id.Authenticator
	for name, value := range map[string]string{"sub": id.Subject, "idp": id.Issuer, "scope": strings.Join(id.Scopes, " ")} {
		if value != "" {
			out[name] = value
		}
	}
	return out
}

// Endpoints returns where the key set is served.
func (i *Issuer) Endpoints() []authn.Endpoint {
	return []authn.Endpoint{{Path: i.config.JWKSPath, Serve: i.serve}}
}

func (i *Issuer) serve(_ context.Context, r *authn.Request) *authn.Answer {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return &authn.Answer{Status: http.StatusMethodNotAllowed, Headers: []authz.Header{{Name: "allow", Value: "GET, HEAD"}}}
	}
	body, err := i.ring.keySet(i.now())
	if err != nil {
		return &authn.Answer{Status: http.StatusInternalServerError, Why: err.Error()}
	}
	seconds := strconv.FormatInt(int64(i.config.PublishAhead/time.Second), 10)
	return &authn.Answer{Status: http.StatusOK, Body: body, Headers: []authz.Header{
		{Name: "content-type", Value: "application/jwk-set+json"},
		{Name: "cache-control", Value: "public, max-age=" + seconds},
	}}
}
