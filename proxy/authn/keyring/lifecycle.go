package keyring

import (
	"context"
	"time"
)

// Inherit takes over the key set of prev, the ring of this name in the configuration
// before, if it comes from the same place: a reload while the issuer is down loses no
// keys. Call it before Prime and the first Verify.
func (r *Ring) Inherit(prev *Ring) {
	set := prev.current.Load()
	if r.fetcher == nil || set == nil || !r.source.same(prev.source) || !r.current.CompareAndSwap(nil, set) {
		return
	}
	fetched := prev.Status().Fetched
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fetched = fetched
}

// Files returns the files that Reload reads.
func (r *Ring) Files() []string {
	if r.fetcher == nil {
		return []string{r.source.File}
	}
	return r.fetcher.client.Files()
}

// Reload reads the files again. On error what was read before stays.
func (r *Ring) Reload(ctx context.Context) error {
	switch {
	case r.fetcher == nil:
		return r.refresh(ctx)
	case r.source.CAFile != "":
		return r.fetcher.client.Reload()
	}
	return nil
}

// Status is the state of a key set.
type Status struct {
	Keys    int       // 0: the issuer's tokens cannot be verified
	Fetched time.Time // last time the set was read without error
	Err     error     // of the last attempt
}

// Status returns the state of the key set, for operators.
func (r *Ring) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Status{Fetched: r.fetched, Err: r.lastErr}
	if set := r.current.Load(); set != nil {
		s.Keys = set.Len()
	}
	return s
}
