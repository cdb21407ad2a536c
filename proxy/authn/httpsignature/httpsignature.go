// Package httpsignature authenticates requests by HTTP message signatures (RFC 9421): a
// machine signs the parts of a request that matter with a key of its own, and the gateway
// knows whose key it is. It owns the parsing of the two fields, the signature base, the
// keys of the consumers, and the comparison of bodies with their signed digest.
// proxy/authn/replay remembers nonces.
//
// The base is derived from the very request that the policy judges and the upstream gets,
// so that there is no second reading of it, and what this package does not know it refuses.
// Libraries for the whole of RFC 9421 read net/http's requests, of which there is none here:
// docs/decisions/0010-http-signatures.md.
//
// It signs nothing, and verifies no responses.
package httpsignature

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync/atomic"
	"time"

	"github.com/dunglas/httpsfv"
	lru "github.com/hashicorp/golang-lru/v2"
	"go.opentelemetry.io/otel/metric"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/limit"
	"github.com/sallyport/sallyport/proxy/authn/replay"
)

// Kind is the key of this mechanism in the configuration.
const Kind = "http_signature"

const (
	fieldInput     = "signature-input"
	fieldSignature = "signature"
	identities     = 4096 // kept
	maxShape       = 1024 // bytes of a list of components; identities of longer ones are not kept
)

// Deps is what an Authenticator uses of the process. The zero value logs and counts
// nothing.
type Deps struct {
	Logger *slog.Logger
	Meter  metric.Meter
	Now    func() time.Time // the clock of fetches; signatures are judged by Request.Now
}

// Authenticator accepts the signatures of some consumers. It is safe for concurrent use.
type Authenticator struct {
	name      string
	config    Config
	consumers []*consumer
	sources   []source
	keys      atomic.Pointer[map[string]*key] // single ones, by keyid
	limiter   *limit.Limiter
	seen      *replay.Memory
	made      *lru.Cache[identityKey, *authz.Identity]
}

// New makes an authenticator that the configuration calls name. It reads the files and
// fetches nothing: that is for Prime and Run.
func New(name string, c Config, deps Deps) (*Authenticator, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	a := &Authenticator{name: name, config: c.filled()}
	for i := range c.Consumers {
		made, err := newConsumer(&c.Consumers[i])
		if err != nil {
			return nil, fmt.Errorf("claims of %s: %w", c.Consumers[i].Subject, err)
		}
		a.consumers = append(a.consumers, made)
	}
	var err error
	room := replay.Room{All: a.config.Nonce.ReplayEntries, PerKey: c.Nonce.ReplayEntriesPerKey}
	if a.seen, err = replay.New(replay.Config{Kind: "nonce", Name: name, Room: room, Redis: c.Nonce.ReplayRedis}); err != nil {
		return nil, fmt.Errorf("nonce: %w", err)
	}
	if a.limiter, err = limit.New(a.config.VerificationLimit); err != nil {
		return nil, err
	}
	if a.made, err = lru.New[identityKey, *authz.Identity](identities); err != nil {
		return nil, err
	}
	keys, err := a.readKeys()
	if err != nil {
		return nil, err
	}
	a.keys.Store(&keys)
	return a, a.newSources(name, deps)
}

// Authenticate returns the identity of the consumer that signed the request. Signatures
// that are for somebody else are authn.ErrForeign: who sends one is not anonymous.
func (a *Authenticator) Authenticate(ctx context.Context, r *authn.Request) (*authz.Identity, error) {
	all, err := a.read(r)
	if err != nil {
		return nil, err
	}
	own := a.choose(all)
	if len(own) == 0 {
		return nil, fmt.Errorf("%w: no signature has the label and tag that are looked for", authn.ErrForeign)
	}
	var who *key
	covered := false
	for _, s := range own {
		k, err := a.verify(ctx, s, r)
		if err != nil {
			return nil, fmt.Errorf("signature %.64q: %w", s.label, err)
		}
		if who != nil && who.owner != k.owner {
			return nil, fmt.Errorf("%w: request is signed by %q and by %q; say with label or tag which counts", authn.ErrInvalid, who.owner.subject, k.owner.subject)
		}
		who, covered = k, covered || covers(s.names(), contentDigest)
	}
	b, err := a.checkBody(ctx, r, covered)
	if err != nil {
		return nil, err
	}
	if err := a.spendNonces(ctx, own, who, r.Now); err != nil {
		return nil, err
	}
	r.Spend(fieldInput)
	r.Spend(fieldSignature)
	return a.identity(own[len(own)-1], who, b), nil
}

// read parses the two fields of the request.
func (a *Authenticator) read(r *authn.Request) ([]signature, error) {
	var input, value string
	inputs, values := 0, 0
	for i := range r.Headers {
		switch h := &r.Headers[i]; h.Name {
		case fieldInput:
			input, inputs = h.Value, inputs+1
		case fieldSignature:
			value, values = h.Value, values+1
		}
	}
	switch {
	case inputs == 0 && values == 0:
		return nil, authn.ErrNotMine
	case inputs == 0: // as of drafts before the RFC, and other schemes
		return nil, fmt.Errorf("%w: there is a field signature without signature-input", authn.ErrForeign)
	case inputs > 1 || values > 1:
		return nil, fmt.Errorf("%w: %w: signature-input or signature stands twice", authn.ErrInvalid, authn.ErrMalformed)
	}
	all, err := parse(input, value, a.config.MaxSignatures)
	if err != nil {
		return nil, fmt.Errorf("%w: %w: %w", authn.ErrInvalid, authn.ErrMalformed, err)
	}
	return all, nil
}

// choose returns the signatures that are looked at. All of them must be good: of one that
// is bad beside a good one, somebody else could believe it.
func (a *Authenticator) choose(all []signature) (own []*signature) {
	for i := range all {
		s := &all[i]
		if a.config.Label != "" && s.label != a.config.Label || s.tag != a.config.Tag || s.hasTag != (a.config.Tag != "") {
			continue
		}
		own = append(own, s)
	}
	return own
}

func (s *signature) names() []string {
	out := make([]string, len(s.components))
	for i := range s.components {
		out[i] = s.components[i].name
	}
	return out
}

// verify returns the key that made the signature over this request. What costs little
// comes first.
func (a *Authenticator) verify(ctx context.Context, s *signature, r *authn.Request) (*key, error) {
	if err := a.check(s, r.Now); err != nil {
		return nil, err
	}
	keys, err := a.find(ctx, s.keyID)
	if err != nil {
		return nil, err
	}
	base, err := s.base(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", authn.ErrInvalid, err)
	}
	if err := a.limiter.Allow(r.Client, r.Now); err != nil {
		return nil, err
	}
	var made *key
	for _, k := range keys {
		if s.hasAlgorithm && s.algorithm != k.algorithm || !verifySignature(k.algorithm, k.material, base, s.value) {
			continue
		}
		if made != nil && made.owner != k.owner {
			return nil, fmt.Errorf("%w: key %.64q is one of %q and of %q", authn.ErrInvalid, s.keyID, made.owner.subject, k.owner.subject)
		}
		made = k
	}
	if made != nil {
		return made, nil
	}
	a.limiter.Charge(r.Client, r.Now)
	return nil, fmt.Errorf("%w: %w: key %.64q did not sign this request, or not with its algorithm", authn.ErrInvalid, authn.ErrSignature, s.keyID)
}

// check looks at what the signature says of itself (RFC 9421 section 3.2).
func (a *Authenticator) check(s *signature, now time.Time) error {
	names := s.names()
	for _, name := range a.config.Components {
		if !covers(names, name) {
			return fmt.Errorf("%w: does not cover %s", authn.ErrInvalid, name)
		}
	}
	switch {
	case !s.hasKeyID || s.keyID == "":
		return fmt.Errorf("%w: has no keyid", authn.ErrInvalid)
	case a.config.Nonce.Required && s.nonce == "" || s.hasNonce && s.nonce == "":
		return fmt.Errorf("%w: has no nonce", authn.ErrInvalid)
	case s.created == 0:
		return fmt.Errorf("%w: has no time of creation", authn.ErrInvalid)
	case s.created > now.Add(a.config.Leeway).Unix():
		return fmt.Errorf("%w: %w: was created in the future", authn.ErrInvalid, authn.ErrNotYetValid)
	case s.created < a.oldest(now):
		return fmt.Errorf("%w: %w: was created more than %s ago", authn.ErrInvalid, authn.ErrExpired, a.config.MaxAge)
	case s.expires != 0 && s.expires < s.created:
		return fmt.Errorf("%w: expires before it was created", authn.ErrInvalid)
	case s.expires != 0 && s.expires <= now.Add(-a.config.Leeway).Unix():
		return fmt.Errorf("%w: %w", authn.ErrInvalid, authn.ErrExpired)
	}
	return nil
}

// oldest is the second before which no signature was created.
func (a *Authenticator) oldest(now time.Time) int64 {
	return now.Add(-a.config.MaxAge - a.config.Leeway).Unix()
}

// spendNonces has the nonces of a request count once for the key of a consumer: nobody can
// spend those of another.
func (a *Authenticator) spendNonces(ctx context.Context, all []*signature, k *key, now time.Time) error {
	var uses []replay.Use
	for _, s := range all {
		if s.hasNonce {
			uses = append(uses, replay.Use{Key: k.owner.subject + "\x00" + s.keyID, ID: s.nonce, Made: s.created, Oldest: a.oldest(now)})
		}
	}
	err := a.seen.Use(ctx, uses...)
	switch {
	case errors.Is(err, replay.ErrForgotten):
		return fmt.Errorf("%w: %w: created too long ago", authn.ErrInvalid, authn.ErrExpired)
	case errors.Is(err, replay.ErrUsed):
		return fmt.Errorf("%w: the nonce %w", authn.ErrInvalid, err)
	case errors.Is(err, replay.ErrFull):
		return fmt.Errorf("%w; raise nonce.replay_entries", err)
	case errors.Is(err, authn.ErrTooMany):
		return fmt.Errorf("the key has shown %d nonces, as many as are remembered of one; raise nonce.replay_entries_per_key: %w", a.config.Nonce.ReplayEntriesPerKey, err)
	}
	return err
}

// identityKey is what an identity is made of. Clients sign the same components in each
// request, so that requests share identities, and what the engine made of them.
type identityKey struct {
	owner                             *consumer
	keyID, algorithm, components, tag string
	body                              body
}

// ownClaims are the claims that the gateway sets.
func ownClaims() []string {
	return []string{"key_id", "algorithm", "components", "tag", "body_verified"}
}

func (a *Authenticator) identity(s *signature, k *key, b body) *authz.Identity {
	ids := make([]string, len(s.components))
	for i := range s.components {
		ids[i] = s.components[i].id
	}
	at := identityKey{k.owner, s.keyID, k.algorithm, strings.Join(ids, " "), s.tag, b}
	if id, ok := a.made.Get(at); ok {
		return id
	}
	claims := map[string]any{"key_id": s.keyID, "algorithm": k.algorithm}
	covered := make([]any, len(ids))
	for i := range s.components {
		covered[i] = s.components[i].text()
	}
	claims["components"] = covered
	if s.hasTag {
		claims["tag"] = s.tag
	}
	if b != noBody {
		claims["body_verified"] = b == verified
	}
	maps.Copy(claims, k.owner.claims)
	id := &authz.Identity{
		Authenticated: true, Authenticator: a.name, Kind: Kind,
		Subject: k.owner.subject, Scopes: k.owner.scopes, Claims: claims,
	}
	if len(at.components) <= maxShape {
		a.made.Add(at, id)
	}
	return id
}

// text is the component for a policy: its name, with the parameter that it is of.
func (c *component) text() string {
	if c.of == "" {
		return c.name
	}
	return c.name + ";" + c.of
}

// CredentialHeaders returns the two fields.
func (a *Authenticator) CredentialHeaders() []string { return []string{fieldInput, fieldSignature} }

// Challenge names the scheme. There is none registered for signatures, and a 401 must
// carry a challenge (RFC 9110 section 15.5.2): Signature is what drafts before RFC 9421
// called it. What to sign is in Accept-Signature.
func (a *Authenticator) Challenge(err error) string {
	if errors.Is(err, authn.ErrInsufficientScope) {
		return ""
	}
	return `Signature realm="` + a.config.Realm + `"`
}

// Invitation returns the Accept-Signature field (RFC 9421 section 5) of a 401.
func (a *Authenticator) Invitation(r *authn.Request) []authz.Header {
	list := httpsfv.InnerList{Params: httpsfv.NewParams()}
	for _, name := range a.config.Components {
		list.Items = append(list.Items, httpsfv.NewItem(name))
	}
	if r.Body != nil && !a.config.InsecureUnsignedBody && !covers(a.config.Components, contentDigest) {
		list.Items = append(list.Items, httpsfv.NewItem(contentDigest))
	}
	list.Params.Add("created", true)
	if a.config.Tag != "" {
		list.Params.Add("tag", a.config.Tag)
	}
	label := a.config.Label
	if label == "" {
		label = "sig1"
	}
	d := httpsfv.NewDictionary()
	d.Add(label, list)
	value, err := httpsfv.Marshal(d)
	if err != nil {
		return nil // Validate has refused what cannot be written
	}
	return []authz.Header{{Name: "accept-signature", Value: value}}
}
