// Package dpop checks that whoever presents an access token has the key that the
// token is bound to (RFC 9449): a proof for this request, signed by that key, and
// never seen before. It owns the rules for proofs and the nonces; proxy/authn/replay
// remembers those that were presented.
//
// It reads no token: it serves every mechanism whose tokens say which key they are
// bound to.
package dpop

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/replay"
)

// Scheme is the authentication scheme of bound tokens (RFC 9449 section 7.1).
const Scheme = "DPoP"

// What is wrong with a proof, as clients are told (RFC 9449 sections 7.1 and 9).
// Both come with authn.ErrInvalid.
var (
	ErrProof = errors.New("DPoP proof is not acceptable")
	ErrNonce = errors.New("DPoP proof needs a nonce of this gateway")
)

const (
	// HeaderName carries the proof (RFC 9449 section 4.1), in lower case.
	HeaderName = "dpop"
	// maxProof bounds a proof in bytes: one with an RSA key of 4096 bits has two
	// kilobytes.
	maxProof = 8 << 10
	maxJTI   = 512 // bytes
)

// Verifier checks proofs. It is safe for concurrent use.
type Verifier struct {
	cfg    Config
	leeway time.Duration
	seen   *replay.Memory
	nonces *nonces
	count  outcomes
}

// Deps are what a Verifier uses of others.
type Deps struct {
	Name    string          // of the authenticator, for metrics
	Metrics *meter.Registry // nil: nobody sees them
}

// New makes a verifier. Clocks of clients may be off by leeway. It reads files and connects
// to nothing.
func New(c Config, leeway time.Duration, deps Deps) (*Verifier, error) {
	c = c.Filled()
	seen, err := replay.New(replay.Config{
		Kind: "dpop", Name: deps.Name, Room: replay.Room{All: c.ReplayEntries, PerKey: c.ReplayEntriesPerKey}, Redis: c.ReplayRedis,
	})
	if err != nil {
		return nil, err
	}
	return &Verifier{
		cfg: c, leeway: leeway, seen: seen, nonces: newNonces(c.Window),
		count: newOutcomes(deps.Name, deps.Metrics),
	}, nil
}

// Inherit takes over what prev remembers, so that a reload makes no proof good
// for a second time. Call it before the first request.
func (v *Verifier) Inherit(prev *Verifier) {
	v.seen.Inherit(prev.seen)
	v.nonces.root = prev.nonces.root
}

// Files returns the files that Reload reads.
func (v *Verifier) Files() []string { return v.seen.Files() }

// Reload reads the files again. What could not be read stays as it was.
func (v *Verifier) Reload() error { return v.seen.Reload() }

// Close closes the connections, if there are any, once requests that began before a reload
// need them no more.
func (v *Verifier) Close() { v.seen.Close() }

// Required reports whether tokens that are not bound to a key are refused.
func (v *Verifier) Required() bool { return v.cfg.Required }

// Check reports whether the request shows possession of the key with the
// thumbprint jkt, to which token is bound (RFC 9449 section 4.3). The error is
// authn.ErrInvalid with ErrProof or ErrNonce, authn.ErrTooMany for a key that has
// shown as many proofs as are remembered of one, or authn.ErrUnavailable.
func (v *Verifier) Check(ctx context.Context, r *authn.Request, token, jkt string) error {
	r.Spend(HeaderName) // it is for this request alone
	err := v.check(ctx, r, token, jkt)
	v.count.of(err).Add(1)
	switch {
	case err == nil, errors.Is(err, authn.ErrUnavailable), errors.Is(err, authn.ErrInvalid), errors.Is(err, authn.ErrTooMany):
		return err
	case errors.Is(err, ErrNonce):
		return fmt.Errorf("%w: %w", authn.ErrInvalid, err)
	}
	return fmt.Errorf("%w: %w: %w", authn.ErrInvalid, ErrProof, err)
}

func (v *Verifier) check(ctx context.Context, r *authn.Request, token, jkt string) error {
	text, err := proofOf(r)
	if err != nil {
		return err
	}
	p, err := open(text, v.cfg.Algorithms)
	if err != nil {
		return err
	}
	if p.typ != "dpop+jwt" {
		return fmt.Errorf("typ is %.64q", p.typ)
	}
	if p.thumbprint != jkt {
		return errors.New("is of another key than the token")
	}
	hash := sha256.Sum256([]byte(token))
	if p.claims["ath"] != base64.RawURLEncoding.EncodeToString(hash[:]) {
		return errors.New("ath is missing or the hash of another token")
	}
	if err := checkTarget(p.claims, r); err != nil {
		return err
	}
	made, err := v.checkTime(p.claims, r.Now)
	if err != nil {
		return err
	}
	if err := v.checkNonce(p.claims, r); err != nil {
		return err
	}
	jti, _ := p.claims["jti"].(string)
	if jti == "" || len(jti) > maxJTI {
		return fmt.Errorf("jti is missing, not a string or longer than %d bytes", maxJTI)
	}
	return v.spend(ctx, replay.Use{Key: jkt, ID: jti, Made: made, Oldest: v.oldest(r.Now)})
}

// spend has a proof count once.
func (v *Verifier) spend(ctx context.Context, u replay.Use) error {
	err := v.seen.Use(ctx, u)
	switch {
	case errors.Is(err, replay.ErrFull):
		return fmt.Errorf("%w; raise dpop.replay_entries", err)
	case errors.Is(err, authn.ErrTooMany):
		return fmt.Errorf("the key has shown %d DPoP proofs, as many as are remembered of one; raise dpop.replay_entries_per_key: %w", v.cfg.ReplayEntriesPerKey, err)
	}
	return err
}

// proofOf returns the one proof of the request.
func proofOf(r *authn.Request) (proof string, err error) {
	n := 0
	for i := range r.Headers {
		if r.Headers[i].Name == HeaderName {
			n++
			proof = r.Headers[i].Value
		}
	}
	switch {
	case n != 1:
		return "", fmt.Errorf("request has %d DPoP headers, not one", n)
	case len(proof) > maxProof:
		return "", fmt.Errorf("is longer than %d bytes", maxProof)
	}
	return proof, nil
}

// checkTarget compares method and URI with those that the client used.
func checkTarget(claims map[string]any, r *authn.Request) error {
	if htm, ok := claims["htm"].(string); !ok || htm != r.Method {
		return errors.New("htm is missing or another method")
	}
	htu, _ := claims["htu"].(string)
	asked, err := normalURI(htu)
	if err != nil {
		return err
	}
	used, err := normalURI(r.Scheme + "://" + r.Host + r.Path)
	if err != nil {
		return fmt.Errorf("the request's own URI: %w", err)
	}
	if asked != used {
		return fmt.Errorf("htu is %.128q, the request is for %.128q", asked, used)
	}
	return nil
}

// checkTime returns the second in which the proof was made.
func (v *Verifier) checkTime(claims map[string]any, now time.Time) (int64, error) {
	n, ok := claims["iat"].(json.Number)
	if !ok {
		return 0, errors.New("iat is missing or not a number")
	}
	f, err := n.Float64()
	if err != nil || f < 0 || f > 1<<40 {
		return 0, errors.New("iat is not a time")
	}
	made := int64(math.Floor(f))
	switch {
	case made < v.oldest(now):
		return 0, errors.New("is too old")
	case time.Unix(made, 0).After(now.Add(v.leeway)):
		return 0, errors.New("was made in the future")
	}
	return made, nil
}

// oldest is the second before which no proof was made.
func (v *Verifier) oldest(now time.Time) int64 { return now.Add(-v.cfg.Window - v.leeway).Unix() }

// checkNonce hands out a nonce whenever the client has none or not the newest
// (RFC 9449 section 8.2).
func (v *Verifier) checkNonce(claims map[string]any, r *authn.Request) error {
	if !v.cfg.Nonce {
		return nil
	}
	nonce, _ := claims["nonce"].(string)
	if current := v.nonces.at(r.Now); nonce != current {
		r.Response = append(r.Response, authz.Header{Name: "dpop-nonce", Value: current})
	}
	if !v.nonces.good(nonce, r.Now) {
		return ErrNonce
	}
	return nil
}

// Challenge is the WWW-Authenticate value of RFC 9449 section 7.1 for realm. Err
// is nil when no credential of the scheme was presented.
func (v *Verifier) Challenge(realm string, err error) string {
	value := Scheme + ` realm="` + realm + `", algs="` + strings.Join(v.cfg.Algorithms, " ") + `"`
	switch {
	case err == nil:
		return value
	case errors.Is(err, authn.ErrInsufficientScope):
		return value + `, error="insufficient_scope"`
	case errors.Is(err, ErrNonce):
		return value + `, error="use_dpop_nonce", error_description="The DPoP proof needs the nonce of this response"`
	case errors.Is(err, ErrProof):
		return value + `, error="invalid_dpop_proof", error_description="The DPoP proof is not acceptable"`
	}
	return value + `, error="invalid_token", error_description="The access token is not acceptable"`
}
