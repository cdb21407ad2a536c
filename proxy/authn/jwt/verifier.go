package jwt

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose"
	"github.com/sallyport/sallyport/proxy/authn/keyring"
)

// Verifier verifies the JWTs of one issuer that are not a client's bearer tokens,
// such as the signed answer of an introspection endpoint or an ID token. It has the
// key set, the algorithms and the strictness of an Authenticator. What a token is
// for, for whom and how long it is good differs from use to use and is for the caller.
type Verifier struct {
	issuer  string
	allowed map[string]jose.Algorithm
	keys    *keyring.Ring
}

// Source says whose JWTs a Verifier verifies and where the keys come from, in the
// terms of Config. Empty fields have the defaults of Config.
type Source struct {
	Issuer, JWKSURL, JWKSFile, CAFile string
	Algorithms                        []string
	InsecureHTTP                      bool
	RefreshInterval                   time.Duration
}

func (s Source) config() Config {
	return Config{
		Issuer: s.Issuer, JWKSURL: s.JWKSURL, JWKSFile: s.JWKSFile, CAFile: s.CAFile,
		Algorithms: s.Algorithms, InsecureHTTP: s.InsecureHTTP, RefreshInterval: s.RefreshInterval,
	}.filled()
}

// Validate reports everything wrong with s, by the keys that Config has.
func (s Source) Validate() error {
	c := s.config()
	return errors.Join(c.validateIssuer(), c.validateSource(), c.validateAlgorithms(), c.validateLimits())
}

// Token is a JWT whose signature and issuer hold. Nothing else of it was checked.
type Token struct {
	Type   string // typ header, lower case and without "application/"; empty if there is none
	Header map[string]any
	Claims map[string]any
}

// NewVerifier makes a verifier for what the configuration calls name. It reads files
// and fetches nothing: that is for Prime and Run.
func NewVerifier(name string, s Source, deps Deps) (*Verifier, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	c := s.config()
	v := &Verifier{issuer: c.Issuer, allowed: make(map[string]jose.Algorithm, len(c.Algorithms))}
	for _, alg := range c.Algorithms {
		v.allowed[alg], _ = jose.AlgorithmOf(alg)
	}
	var err error
	if v.keys, err = keyring.New(name, c.source(), deps.keyring()); err != nil {
		return nil, err
	}
	return v, nil
}

// Verify takes text apart and checks its signature and its issuer. The error is
// authn.ErrInvalid or authn.ErrUnavailable.
func (v *Verifier) Verify(ctx context.Context, text string) (*Token, error) {
	t, err := jose.ParseJWS(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", authn.ErrInvalid, err)
	}
	claims, err := jose.Object(t.Payload)
	if err != nil {
		return nil, fmt.Errorf("%w: claims: %w", authn.ErrInvalid, err)
	}
	if claims["iss"] != v.issuer {
		return nil, fmt.Errorf("%w: issuer %.64q", authn.ErrInvalid, claims["iss"])
	}
	if _, err := v.keys.Verify(ctx, t, v.allowed); err != nil {
		return nil, err
	}
	return &Token{Type: jose.MediaType(t.Type), Header: t.Header, Claims: claims}, nil
}

// Run keeps the key set fresh until ctx ends, and returns nil then.
func (v *Verifier) Run(ctx context.Context) error { return v.keys.Run(ctx) }

// Prime fetches the key set once, if there is none.
func (v *Verifier) Prime(ctx context.Context) error { return v.keys.Prime(ctx) }

// Files returns the files that Reload reads.
func (v *Verifier) Files() []string { return v.keys.Files() }

// Reload reads the files again. On error what was read before stays.
func (v *Verifier) Reload(ctx context.Context) error { return v.keys.Reload(ctx) }
