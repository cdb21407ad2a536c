package engine

import (
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/decisioncache"
)

// question is one request to the decision cache. A nil question is one that the
// cache has no part in.
type question struct {
	cache *decisioncache.Cache
	key   []byte
	now   time.Time
	until time.Time // the answer may not be kept longer
}

// newCache returns the empty cache of a snapshot, nil if it is off.
func (e *Engine) newCache() *decisioncache.Cache {
	c := &e.cfg.DecisionCache
	if c.Entries == 0 {
		return nil
	}
	return decisioncache.New(c.Entries, int64(c.MaxBytes))
}

// ask returns the question that in is, nil if its decision may not be cached: the
// cache is off, the policy can depend on more than the key can say, or the
// credential is not good any more. Whoever asks calls done.
func (e *Engine) ask(snap *snapshot, ep *entrypoint, in *authz.Input, now time.Time) *question {
	if snap.cache == nil || in.Route.Uncached || len(ep.key.off) > 0 {
		return nil
	}
	until := now.Add(e.cfg.DecisionCache.MaxAge)
	if in.Identity != nil && !in.Identity.ExpiresAt.IsZero() && in.Identity.ExpiresAt.Before(until) {
		if until = in.Identity.ExpiresAt; !now.Before(until) {
			return nil
		}
	}
	q, ok := e.questions.Get().(*question)
	if !ok {
		q = &question{}
	}
	q.cache, q.now, q.until = snap.cache, now, until
	if q.key, ok = ep.key.append(q.key[:0], in); !ok {
		e.done(q)
		return nil
	}
	return q
}

// done takes q back. A buffer that a large request made grow is not kept.
func (e *Engine) done(q *question) {
	if q == nil || cap(q.key) > maxKeyBytes {
		return
	}
	q.cache = nil
	e.questions.Put(q)
}

// answer returns the decision that is kept, nil if there is none.
func (q *question) answer() *authz.Decision {
	if q == nil {
		return nil
	}
	return q.cache.Get(q.key, q.now)
}

// keep keeps d if it may be, and returns how many others had to go. A fault is
// never kept: it can pass.
func (q *question) keep(d *authz.Decision) (evicted int) {
	if q == nil || d.Fault != nil {
		return 0
	}
	kept := *d
	kept.Cached, kept.Memo = true, &authz.Memo{}
	return q.cache.Put(q.key, &kept, q.now, q.until)
}
