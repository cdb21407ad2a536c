package httpsignature

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"
)

// Run keeps fetched key sets fresh until ctx ends, and returns nil then.
func (a *Authenticator) Run(ctx context.Context) error {
	defer a.seen.Close()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { // there may be nothing to fetch
		<-ctx.Done()
		return nil
	})
	for i := range a.sources {
		g.Go(func() error { return a.sources[i].Run(ctx) })
	}
	return g.Wait()
}

// Prime fetches the key sets that are not there yet. Until they are, signatures by keys
// that nobody knows get authn.ErrUnavailable.
func (a *Authenticator) Prime(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for i := range a.sources {
		g.Go(func() error { return a.sources[i].Prime(ctx) })
	}
	return g.Wait()
}

// Files returns the files that Reload reads.
func (a *Authenticator) Files() []string {
	files := a.seen.Files()
	for i := range a.config.Consumers {
		for _, k := range a.config.Consumers[i].Keys {
			if k.KeyID != "" {
				files = append(files, k.PublicKeyFile+k.SecretFile)
			}
		}
	}
	for i := range a.sources {
		files = append(files, a.sources[i].Files()...)
	}
	return files
}

// Reload reads the files again. If one is broken, all single keys that were read before
// stay, and so does each key set whose own file is.
func (a *Authenticator) Reload(ctx context.Context) error {
	keys, err := a.readKeys()
	if err == nil {
		a.keys.Store(&keys)
	}
	errs := []error{err, a.seen.Reload()}
	for i := range a.sources {
		errs = append(errs, a.sources[i].Reload(ctx))
	}
	return errors.Join(errs...)
}

// Inherit takes over what prev, the authenticator of this name in the configuration
// before, remembers: a reload makes no nonce good for a second time, and loses no key set
// while its server is down. Call it before the first request.
func (a *Authenticator) Inherit(prev *Authenticator) {
	a.seen.Inherit(prev.seen)
	for i := range a.sources {
		for j := range prev.sources {
			a.sources[i].Inherit(prev.sources[j].Ring)
		}
	}
}
