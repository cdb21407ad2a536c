package signedheader

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose"
	"github.com/sallyport/sallyport/proxy/authn/jwt"
	"github.com/sallyport/sallyport/proxy/authn/limit"
	"github.com/sallyport/sallyport/proxy/authn/tokencache"
)

const (
	maxToken     = 16 << 10 // bytes; a load balancer sends up to 11 KB
	cachedTokens = 64 << 20 // bytes
)

// arn is the load balancer of a signer: partition, region, the rest.
var arn = regexp.MustCompile(`^arn:(aws|aws-us-gov|aws-cn):elasticloadbalancing:([a-z0-9-]+):[0-9]{12}:loadbalancer/app/[A-Za-z0-9-]+/[0-9a-f]+$`)

func checkSigners(c Config) error {
	var errs []error
	for _, s := range c.Signers {
		if s == "" {
			continue
		}
		m := arn.FindStringSubmatch(s)
		switch {
		case m == nil:
			errs = append(errs, setting.Problemf("signers", "%q is not the ARN of an application load balancer", s))
		case m[1] == "aws-cn" && c.KeysURL == "":
			errs = append(errs, setting.Problemf("keys_url", "is missing: where the keys of %s are is not known here", m[2]))
		}
	}
	return errors.Join(errs...)
}

// keysOf returns the URL below which the keys of a signer are.
func keysOf(signer string) string {
	m := arn.FindStringSubmatch(signer)
	if m[1] == "aws-us-gov" {
		return "https://s3-" + m[2] + ".amazonaws.com/aws-elb-public-keys-prod-" + m[2]
	}
	return "https://public-keys.auth.elb." + m[2] + ".amazonaws.com"
}

// alb verifies x-amzn-oidc-data of AWS application load balancers ("Authenticate
// users using an Application Load Balancer", section user claims encoding): like a
// JWT, with padding in its base64, with what is usually a claim in the header, and
// without an audience, which is why the signer is checked.
type alb struct {
	name    string
	config  Config
	limiter *limit.Limiter
	keys    *pemKeys
	recent  *tokencache.Cache[*authz.Identity]
}

func newALB(name string, c Config, deps Deps) (*alb, error) {
	a := &alb{name: name, config: c, recent: tokencache.New[*authz.Identity](c.CacheSize, cachedTokens)}
	var err error
	if a.limiter, err = limit.New(c.VerificationLimit); err != nil {
		return nil, err
	}
	a.keys, err = newPEMKeys(c, deps)
	return a, err
}

// assertion is a value taken apart and not yet verified.
type assertion struct {
	input, signature []byte
	header, claims   map[string]any
	kid, signer      string
	expires          time.Time
}

// AuthenticateToken returns the identity that token signs.
func (a *alb) AuthenticateToken(ctx context.Context, token string, r *authn.Request) (*authz.Identity, error) {
	if id, ok := a.recent.Get(token, r.Now); ok {
		return id, nil
	}
	t, err := a.read(token, r.Now)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", authn.ErrInvalid, err)
	}
	if err := a.limiter.Allow(r.Client, r.Now); err != nil {
		return nil, err
	}
	base := strings.TrimSuffix(a.config.KeysURL, "/")
	if base == "" {
		base = keysOf(t.signer)
	}
	key, err := a.keys.get(ctx, r.Client, base+"/"+t.kid)
	if err == nil && !verifyES256(key, t.input, t.signature) {
		err = fmt.Errorf("%w: signature does not match", authn.ErrInvalid)
	}
	if err != nil {
		if errors.Is(err, authn.ErrInvalid) {
			a.limiter.Charge(r.Client, r.Now)
		}
		return nil, err
	}
	id := a.identity(t)
	until := t.expires.Add(leeway)
	if asked := r.Now.Add(freshFor); asked.Before(until) { // the key may be taken back
		until = asked
	}
	a.recent.Put(token, id, 4*len(token), until)
	return id, nil
}

func (a *alb) identity(t *assertion) *authz.Identity {
	id := &authz.Identity{
		Authenticated: true, Authenticator: a.name, Kind: Kind,
		Claims: t.claims, TokenHeader: t.header, ExpiresAt: t.expires,
	}
	id.Subject, _ = t.claims["sub"].(string) // seen to be one
	id.Issuer, _ = t.header["iss"].(string)  // seen to be one
	return id
}

// read takes the value apart and checks all but the signature.
func (a *alb) read(token string, now time.Time) (*assertion, error) {
	parts := strings.Split(token, ".")
	if len(token) > maxToken || len(parts) != 3 {
		return nil, fmt.Errorf("is not header.claims.signature of at most %d bytes", maxToken)
	}
	var raw [3][]byte
	for i, p := range parts {
		var err error
		if raw[i], err = decodePadded(p); err != nil {
			return nil, fmt.Errorf("part %d: %w", i+1, err)
		}
	}
	t := &assertion{input: []byte(parts[0] + "." + parts[1]), signature: raw[2]}
	var err error
	if t.header, err = jose.Object(raw[0]); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	if t.claims, err = jose.Object(raw[1]); err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	if err := a.checkHeader(t, now); err != nil {
		return nil, err
	}
	return t, checkClaims(t, now)
}

// decodePadded decodes one spelling of base64url: with the padding that AWS leaves
// in, or without all of it. The decoder of the standard library skips line breaks.
func decodePadded(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("line break in base64url")
	}
	if strings.Contains(s, "=") {
		return base64.URLEncoding.Strict().DecodeString(s)
	}
	return base64.RawURLEncoding.Strict().DecodeString(s)
}

// kidForm is that of a UUID: the kid becomes a part of a URL.
var kidForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// headerMembers are those that AWS documents, and typ. Any other could change what
// is verified, as crit, b64 and jku do (RFC 7515 section 4.1).
var headerMembers = []string{"typ", "alg", "kid", "signer", "iss", "client", "exp"}

func (a *alb) checkHeader(t *assertion, now time.Time) error {
	for name := range t.header {
		if !slices.Contains(headerMembers, name) {
			return fmt.Errorf("header has %.64q", name)
		}
	}
	text := func(name string) string { s, _ := t.header[name].(string); return s } // what is no string is refused as empty
	t.kid, t.signer = text("kid"), text("signer")
	switch {
	case text("alg") != "ES256":
		return fmt.Errorf("algorithm %.64q is not ES256", text("alg"))
	case !slices.Contains(a.config.Signers, t.signer):
		return fmt.Errorf("signer %.256q is not one of signers", t.signer)
	case !kidForm.MatchString(t.kid):
		return fmt.Errorf("kid %.64q is missing or not a UUID", t.kid)
	case text("iss") == "":
		return errors.New("header has no iss")
	case len(a.config.ClientIDs) > 0 && !slices.Contains(a.config.ClientIDs, text("client")):
		return fmt.Errorf("client %.64q is not one of client_ids", text("client"))
	}
	var err error
	if t.expires, err = jwt.Date(t.header, "exp"); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	if !now.Before(t.expires.Add(leeway)) {
		return fmt.Errorf("expired at %s", t.expires.UTC().Format(time.RFC3339))
	}
	return nil
}

// checkClaims looks at the provider's user info: only sub must be there, and an exp
// counts too.
func checkClaims(t *assertion, now time.Time) error {
	if s, ok := t.claims["sub"].(string); !ok || s == "" {
		return errors.New("claims have no sub")
	}
	if t.claims["exp"] == nil {
		return nil
	}
	until, err := jwt.Date(t.claims, "exp")
	if err != nil {
		return fmt.Errorf("claims: %w", err)
	}
	if !now.Before(until.Add(leeway)) {
		return fmt.Errorf("claims expired at %s", until.UTC().Format(time.RFC3339))
	}
	if until.Before(t.expires) {
		t.expires = until
	}
	return nil
}

// verifyES256 checks a signature of RFC 7518 section 3.4: two numbers of 32 bytes.
func verifyES256(key *ecdsa.PublicKey, input, signature []byte) bool {
	if len(signature) != 64 {
		return false
	}
	sum := sha256.Sum256(input)
	return ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
}

// Run works for nothing: keys are fetched when a token names one.
func (a *alb) Run(ctx context.Context) error {
	<-ctx.Done()
	a.keys.client.Close()
	return nil
}

// Prime does nothing: which keys there are shows from tokens only.
func (a *alb) Prime(context.Context) error { return nil }

// Files returns the files that Reload reads.
func (a *alb) Files() []string { return a.keys.client.Files() }

// Reload reads the files again. On error what was read before stays.
func (a *alb) Reload(context.Context) error { return a.keys.client.Reload() }
