package introspection

import (
	"context"
	"errors"
	"slices"
)

// Run keeps the key set fresh, if there is one, until ctx ends, and returns nil then.
func (a *Authenticator) Run(ctx context.Context) error {
	defer a.provider.client.Close()
	defer a.possession.Proofs.Close()
	if a.reader.verifier != nil {
		return a.reader.verifier.Run(ctx)
	}
	<-ctx.Done()
	return nil
}

// Prime fetches the key set, if there is one. An error is no reason not to start:
// until the keys are there, tokens get authn.ErrUnavailable.
func (a *Authenticator) Prime(ctx context.Context) error {
	if a.reader.verifier == nil {
		return nil
	}
	return a.reader.verifier.Prime(ctx)
}

// Inherit takes over the memory of DPoP proofs of prev, the authenticator of this name
// in the configuration before, so that a reload makes no proof good for a second time.
// Call it before the first request.
func (a *Authenticator) Inherit(prev *Authenticator) {
	a.possession.Proofs.Inherit(prev.possession.Proofs)
}

// Files returns the files that Reload reads.
func (a *Authenticator) Files() []string {
	files := slices.Concat([]string{a.provider.credentials.file()}, a.provider.client.Files(), a.possession.Proofs.Files())
	if a.reader.verifier != nil {
		files = append(files, a.reader.verifier.Files()...)
	}
	slices.Sort(files)
	return slices.DeleteFunc(slices.Compact(files), func(f string) bool { return f == "" })
}

// Reload reads the files again. What could not be read stays as it was.
func (a *Authenticator) Reload(ctx context.Context) error {
	errs := []error{a.provider.credentials.reload(), a.provider.client.Reload(), a.possession.Proofs.Reload()}
	if a.reader.verifier != nil {
		errs = append(errs, a.reader.verifier.Reload(ctx))
	}
	return errors.Join(errs...)
}
