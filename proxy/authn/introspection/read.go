package introspection

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/sallyport/sallyport/proxy/authn/jose"
	"github.com/sallyport/sallyport/proxy/authn/jwt"
)

// facts are what an answer says about a token, in whatever form it came.
type facts struct {
	members map[string]any
	header  map[string]any // of a JWT that stands for the token
	token   string         // that stands for the caller from here on; empty: the one presented
}

// errInactive: the provider says that the token is none, or none any more.
var errInactive = errors.New("the provider says that the token is not active")

// reader takes answers apart.
type reader struct {
	config   Config
	verifier *jwt.Verifier // nil with format json
}

// read returns what the answer says, or errInactive. Any other error means that the
// answer is not one, which says nothing about the token.
func (r *reader) read(ctx context.Context, a *answer, now time.Time) (*facts, error) {
	switch {
	case a.status == http.StatusNoContent:
		return nil, errInactive // how Curity answers application/jwt
	case r.config.Format == formatJSON:
		return r.readJSON(a)
	case a.media == mediaJSON:
		// Without a signature only "no" is believed.
		if _, err := r.readJSON(a); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("the provider answered %s, which is not signed; check that it knows format %s for this client", mediaJSON, r.config.Format)
	case r.config.Format == formatSigned:
		return r.readSigned(ctx, a, now)
	}
	return r.readJWT(ctx, a)
}

func (r *reader) readJSON(a *answer) (*facts, error) {
	members, err := jose.Object(a.body)
	if err != nil {
		return nil, fmt.Errorf("answer of type %.64q: %w", a.media, err)
	}
	return active(&facts{members: members})
}

// active sees to the one required member. It is a boolean: "true" is not (RFC 7662
// section 2.2).
func active(f *facts) (*facts, error) {
	switch f.members["active"] {
	case true:
		return f, nil
	case false:
		return nil, errInactive
	}
	return nil, errors.New(`answer has no "active" that is true or false`)
}

// readSigned reads RFC 9701 section 5. The JWT is for the gateway; what it says about
// the token is one member of it, which keeps the two apart.
func (r *reader) readSigned(ctx context.Context, a *answer, now time.Time) (*facts, error) {
	if a.media != mediaSigned {
		return nil, fmt.Errorf("the provider answered %.64q, not %s", a.media, mediaSigned)
	}
	text := string(bytes.TrimSpace(a.body))
	t, err := r.verify(ctx, text)
	if err != nil {
		return nil, err
	}
	if t.Type != "token-introspection+jwt" {
		return nil, fmt.Errorf("answer is a JWT of type %.64q, not token-introspection+jwt", t.Type)
	}
	audiences, err := jwt.Strings(t.Claims, "aud")
	if err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	ours := func(a string) bool {
		return a == r.config.ClientID && a != "" || slices.Contains(r.config.Audiences, a)
	}
	if !slices.ContainsFunc(audiences, ours) {
		return nil, fmt.Errorf("answer is for %.64q and not for this gateway", audiences)
	}
	if err := r.checkMade(t.Claims, now); err != nil {
		return nil, err
	}
	members, ok := t.Claims["token_introspection"].(map[string]any)
	if !ok {
		return nil, errors.New("answer has no token_introspection that is an object")
	}
	return active(&facts{members: members, token: text})
}

// checkMade checks when the answer was made. It should not have an end of its own
// (RFC 9701 section 5); if it has one, it counts.
func (r *reader) checkMade(claims map[string]any, now time.Time) error {
	made, err := jwt.Date(claims, "iat")
	if err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	if now.Before(made.Add(-r.config.Leeway)) {
		return fmt.Errorf("answer was made in the future: %s", made.UTC().Format(time.RFC3339))
	}
	if _, there := claims["exp"]; !there {
		return nil
	}
	end, err := jwt.Date(claims, "exp")
	if err != nil || !now.Before(end.Add(r.config.Leeway)) {
		return errors.New("answer has expired")
	}
	return nil
}

// readJWT reads the access token in its other form: a JWT with the same meaning, which
// services behind the gateway take as well.
func (r *reader) readJWT(ctx context.Context, a *answer) (*facts, error) {
	if a.media != mediaJWT {
		return nil, fmt.Errorf("the provider answered %.64q, not %s", a.media, mediaJWT)
	}
	text := string(bytes.TrimSpace(a.body))
	t, err := r.verify(ctx, text)
	if err != nil {
		return nil, err
	}
	if !slices.Contains([]string{"at+jwt", "jwt", ""}, t.Type) {
		return nil, fmt.Errorf("answer is a JWT of type %.64q, not an access token", t.Type)
	}
	if _, there := t.Claims["exp"]; !there {
		return nil, errors.New("answer is a JWT without exp")
	}
	if on, there := t.Claims["active"]; there && on != true {
		return nil, errInactive
	}
	return &facts{members: t.Claims, header: t.Header, token: text}, nil
}

// verify checks a JWT of the provider. One that does not hold says nothing about the
// token that was asked about: it is an answer that is none.
func (r *reader) verify(ctx context.Context, text string) (*jwt.Token, error) {
	t, err := r.verifier.Verify(ctx, text)
	if err != nil {
		return nil, fmt.Errorf("answer: %v", err) //nolint:errorlint // a bad answer is not a bad token
	}
	return t, nil
}
