package httpsignature

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"errors"
	"fmt"

	"github.com/dunglas/httpsfv"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
)

const contentDigest = "content-digest"

// body says what is known of a body.
type body int

const (
	noBody     body = iota
	unsigned        // the signature does not cover it
	unverified      // the signature covers its digest, and it is too long to be compared
	verified        // it is the one that was signed
)

// checkBody compares the body with the digest that was signed. What it reads is still
// forwarded. It comes last, so that only who may sign makes the gateway read.
func (a *Authenticator) checkBody(ctx context.Context, r *authn.Request, covered bool) (body, error) {
	if r.Body == nil {
		if covered {
			return noBody, checkDigest(r, nil)
		}
		return noBody, nil
	}
	if !covered && a.config.InsecureUnsignedBody {
		return unsigned, nil
	}
	data, truncated, err := r.Body.Buffer(ctx)
	switch {
	case err != nil:
		return noBody, &authn.BodyError{Err: err}
	case !covered && len(data) == 0 && !truncated:
		return noBody, nil
	case !covered:
		return noBody, fmt.Errorf("%w: the signature does not cover the body: sign content-digest", authn.ErrInvalid)
	case truncated && a.config.InsecureUnverifiedBody:
		return unverified, nil
	case truncated:
		return noBody, &authn.BodyError{Err: fmt.Errorf("its signed digest cannot be compared before it is forwarded; raise policy.max_body_bytes: %w", authz.ErrBodyTooLarge)}
	}
	return verified, checkDigest(r, data)
}

// checkDigest compares data with each digest that the Content-Digest field has of it by
// an algorithm that is fit for that (RFC 9530 sections 2 and 5); it must have one.
func checkDigest(r *authn.Request, data []byte) error {
	value, err := fieldValue(r, contentDigest)
	if err != nil {
		return fmt.Errorf("%w: content-digest %w", authn.ErrInvalid, err)
	}
	if err := compareDigest(value, data); err != nil {
		return fmt.Errorf("%w: content-digest: %w", authn.ErrInvalid, err)
	}
	return nil
}

func compareDigest(value string, data []byte) error {
	d, err := dictionary(value)
	if err != nil {
		return err
	}
	compared := 0
	for _, name := range d.Names() {
		var sum []byte
		switch name {
		case "sha-256":
			s := sha256.Sum256(data)
			sum = s[:]
		case "sha-512":
			s := sha512.Sum512(data)
			sum = s[:]
		default:
			continue
		}
		member, _ := d.Get(name) // it is there by its name
		item, _ := member.(httpsfv.Item)
		if got, ok := item.Value.([]byte); !ok || subtle.ConstantTimeCompare(got, sum) != 1 {
			return fmt.Errorf("%s is not the digest of the body", name)
		}
		compared++
	}
	if compared == 0 {
		return errors.New("has neither sha-256 nor sha-512")
	}
	return nil
}
