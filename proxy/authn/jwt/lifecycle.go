package jwt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/sallyport/sallyport/proxy/authn/jose"
	"github.com/sallyport/sallyport/proxy/authn/keyring"
)

// Run keeps the key set fresh until ctx ends, and returns nil then.
func (a *Authenticator) Run(ctx context.Context) error {
	if a.split != nil {
		defer a.split.finder.Close()
	}
	defer a.possession.Proofs.Close()
	return a.keys.Run(ctx)
}

// Inherit takes over the key set of prev, the authenticator of this name in the
// configuration before, if it comes from the same place: a reload while the
// issuer is down loses no keys. Call it before Prime and the first request.
// The memory of DPoP proofs goes on in any case.
func (a *Authenticator) Inherit(prev *Authenticator) {
	a.possession.Proofs.Inherit(prev.possession.Proofs)
	a.keys.Inherit(prev.keys)
}

// Prime fetches the key set once, if there is none. An error is no reason not to
// start: until the keys are there, the issuer's tokens get authn.ErrUnavailable.
func (a *Authenticator) Prime(ctx context.Context) error { return a.keys.Prime(ctx) }

// Files returns the files that Reload reads.
func (a *Authenticator) Files() []string {
	files := slices.Concat(a.config.DecryptionKeysFiles, a.possession.Proofs.Files())
	if a.split != nil {
		files = append(files, a.split.finder.Files()...)
	}
	return append(files, a.keys.Files()...)
}

// Reload reads the files again. On error what was read before of each stays.
func (a *Authenticator) Reload(ctx context.Context) error {
	err := errors.Join(a.loadOpeners(), a.possession.Proofs.Reload())
	if a.split != nil {
		err = errors.Join(err, a.split.finder.Reload())
	}
	return errors.Join(err, a.keys.Reload(ctx))
}

// loadOpeners reads the private keys that tokens are encrypted for.
func (a *Authenticator) loadOpeners() error {
	var all []*jose.DecryptionKey
	for _, name := range a.config.DecryptionKeysFiles {
		data, err := os.ReadFile(name) //nolint:gosec // the operator names the file
		if err != nil {
			return fmt.Errorf("decryption_keys_files: %w", err)
		}
		keys, err := jose.ReadDecryptionKeys(name, data)
		if err != nil {
			return fmt.Errorf("decryption_keys_files: %w", err)
		}
		all = append(all, keys...)
	}
	a.openers.Store(&all)
	return nil
}

// Status returns the state of the key set, for operators.
func (a *Authenticator) Status() keyring.Status { return a.keys.Status() }
