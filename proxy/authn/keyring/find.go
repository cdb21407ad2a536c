package keyring

import (
	"cmp"
	"context"
	"fmt"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose"
)

// Get returns the key with that kid, or with that thumbprint (RFC 7638 with SHA-256, in
// base64url); nil if the set has none.
func (r *Ring) Get(id string) *jose.Key {
	set := r.current.Load()
	if set == nil || id == "" {
		return nil
	}
	return set.Find(id)
}

// Find is Get that waits for a newer set if this one lacks the key and another may be
// had. The error is authn.ErrForeign if there is no such key, and authn.ErrUnavailable
// if that cannot be known now.
func (r *Ring) Find(ctx context.Context, id string) (*jose.Key, error) {
	if found := r.Get(id); found != nil {
		return found, nil
	}
	asked, waiting := r.await(ctx, id)
	found := r.Get(id)
	if found != nil {
		return found, nil
	}
	if err := cmp.Or(waiting, r.lastError()); err != nil {
		return nil, fmt.Errorf("%w: keyid %.64q: %w", authn.ErrUnavailable, id, err)
	}
	if asked {
		r.remember(id)
	}
	return nil, fmt.Errorf("%w: key set has no key %.64q", authn.ErrForeign, id)
}
