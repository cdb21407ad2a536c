package replay

import (
	"crypto/rand"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/proxy/authn"
)

// memory is what a process saw. It forgets nothing early: a key that has used up its share
// gets no more in, and when all is full, nobody does.
type memory struct {
	claimant string // the process, in Redis

	mu       sync.Mutex
	floor    int64 // Unix time; what was made before may have been forgotten
	seen     map[digest]int64
	bySecond map[int64]map[digest]*holder // by the second in which they were made
	holders  map[string]*holder
}

// holder is what one key has of the memory.
type holder struct {
	key      string
	uses     int
	bySecond map[int64]int
}

func newMemory() *memory {
	return &memory{
		claimant: rand.Text(),
		seen:     make(map[digest]int64), bySecond: make(map[int64]map[digest]*holder), holders: make(map[string]*holder),
	}
}

// add remembers a use. What was made before u.Oldest is forgotten, and refused from then
// on whatever the age that may count later.
func (m *memory) add(id digest, u Use, room Room) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forget(u.Oldest)
	if u.Made < m.floor {
		return ErrForgotten
	}
	if _, again := m.seen[id]; again {
		return ErrUsed
	}
	h := m.holders[u.Key]
	if h != nil && room.PerKey > 0 && h.uses >= room.PerKey {
		return h.exhausted(m.floor, room.PerKey)
	}
	if len(m.seen) >= room.All {
		return ErrFull
	}
	if h == nil {
		// The key may belong to a connection's buffer.
		h = &holder{key: strings.Clone(u.Key), bySecond: make(map[int64]int)}
		m.holders[h.key] = h
	}
	if m.bySecond[u.Made] == nil {
		m.bySecond[u.Made] = make(map[digest]*holder)
	}
	m.seen[id] = u.Made
	m.bySecond[u.Made][id] = h
	h.uses++
	h.bySecond[u.Made]++
	return nil
}

// exhausted says when the oldest uses of h are forgotten, and it may come again.
func (h *holder) exhausted(floor int64, share int) error {
	var oldest, newest int64
	for second := range h.bySecond {
		if newest = max(newest, second); oldest == 0 || second < oldest {
			oldest = second
		}
	}
	return &authn.TooManyError{
		Of: authn.Proofs, RetryAfter: time.Duration(oldest-floor+1) * time.Second, Quota: share,
		Window: time.Duration(newest-floor+1) * time.Second,
	}
}

// forget drops what was made before floor. It walks the seconds once in a second.
func (m *memory) forget(floor int64) {
	if floor <= m.floor {
		return
	}
	m.floor = floor
	for second, all := range m.bySecond {
		if second >= floor {
			continue
		}
		for id := range all {
			m.drop(id, second)
		}
	}
}

// remove forgets a use after all, so that it may come again.
func (m *memory) remove(id digest, made int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if at, seen := m.seen[id]; seen && at == made {
		m.drop(id, made)
	}
}

func (m *memory) drop(id digest, made int64) {
	h := m.bySecond[made][id]
	delete(m.seen, id)
	if delete(m.bySecond[made], id); len(m.bySecond[made]) == 0 {
		delete(m.bySecond, made)
	}
	if h.bySecond[made]--; h.bySecond[made] == 0 {
		delete(h.bySecond, made)
	}
	if h.uses--; h.uses == 0 {
		delete(m.holders, h.key)
	}
}
