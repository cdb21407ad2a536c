package identitytoken

import (
	"sync"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
)

// maxTokens bounds each of the two halves of the cache.
const maxTokens = 32768

// cache keeps tokens while they are fresh, so that a caller's requests share one
// signature. It has a young and an old half: what is not used or signed anew until
// the halves change places twice is gone, and nobody has to look for it.
type cache struct {
	period     time.Duration // in which every token is signed anew
	mu         sync.RWMutex
	young, old map[cacheKey]cached
	turn       time.Time // when the halves change places next
}

// cacheKey: authenticators that remember a credential return one identity for it.
type cacheKey struct {
	identity *authz.Identity
	audience string
}

type cached struct {
	token string
	until time.Time
}

func newCache(lifetime time.Duration) *cache {
	return &cache{period: lifetime / 2, young: map[cacheKey]cached{}}
}

func (c *cache) get(k cacheKey, now time.Time) string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	e, ok := c.young[k]
	if !ok {
		e = c.old[k]
	}
	if !now.Before(e.until) {
		return ""
	}
	return e.token
}

func (c *cache) put(k cacheKey, token string, until, now time.Time) {
	if !now.Before(until) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !now.Before(c.turn) || len(c.young) >= maxTokens {
		c.young, c.old = make(map[cacheKey]cached), c.young
		c.turn = now.Add(c.period)
	}
	c.young[k] = cached{token, until}
}
