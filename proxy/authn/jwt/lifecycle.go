package jwt

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sallyport/sallyport/proxy/authn/jose"
)

// Run keeps the key set fresh until ctx ends, and returns nil then.
func (a *Authenticator) Run(ctx context.Context) error {
	if a.fetcher != nil {
		defer a.fetcher.client.Close()
	}
	if a.split != nil {
		defer a.split.finder.Close()
	}
	defer a.possession.Proofs.Close()
	return a.keys.run(ctx)
}

// Inherit takes over the key set of prev, the authenticator of this name in the
// configuration before, if it comes from the same place: a reload while the
// issuer is down loses no keys. Call it before Prime and the first request.
// The memory of DPoP proofs goes on in any case.
func (a *Authenticator) Inherit(prev *Authenticator) {
	a.possession.Proofs.Inherit(prev.possession.Proofs)
	set := prev.keys.current.Load()
	if a.fetcher == nil || set == nil || !a.config.sameSource(prev.config) || !a.keys.current.CompareAndSwap(nil, set) {
		return
	}
	fetched := prev.Status().Fetched
	a.keys.mu.Lock()
	defer a.keys.mu.Unlock()
	a.keys.fetched = fetched
}

// Prime fetches the key set once, if there is none. An error is no reason not to
// start: until the keys are there, the issuer's tokens get authn.ErrUnavailable.
func (a *Authenticator) Prime(ctx context.Context) error { return a.keys.prime(ctx) }

// Files returns the files that Reload reads.
func (a *Authenticator) Files() []string {
	files := slices.Concat(a.config.DecryptionKeysFiles, a.possession.Proofs.Files())
	if a.split != nil {
		files = append(files, a.split.finder.Files()...)
	}
	switch {
	case a.config.JWKSFile != "":
		return append(files, a.config.JWKSFile)
	case a.config.CAFile != "":
		return append(files, a.config.CAFile)
	}
	return files
}

// Reload reads the files again. On error what was read before of each stays.
func (a *Authenticator) Reload(ctx context.Context) error {
	err := errors.Join(a.loadOpeners(), a.possession.Proofs.Reload())
	if a.split != nil {
		err = errors.Join(err, a.split.finder.Reload())
	}
	switch {
	case a.config.JWKSFile != "":
		return errors.Join(err, a.keys.refresh(ctx))
	case a.config.CAFile != "":
		return errors.Join(err, a.fetcher.client.Reload())
	}
	return err
}

// loadOpeners reads the private keys that tokens are encrypted for.
func (a *Authenticator) loadOpeners() error {
	var all []*jose.DecryptionKey
	for _, name := range a.config.DecryptionKeysFiles {
		data, err := loadFile(name)
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

// Status is the state of the key set.
type Status struct {
	Keys    int       // 0: the issuer's tokens cannot be verified
	Fetched time.Time // last time the set was read without error
	Err     error     // of the last attempt
}

// Status returns the state of the key set, for operators.
func (a *Authenticator) Status() Status {
	k := a.keys
	k.mu.Lock()
	defer k.mu.Unlock()
	s := Status{Fetched: k.fetched, Err: k.lastErr}
	if set := k.current.Load(); set != nil {
		s.Keys = set.Len()
	}
	return s
}
