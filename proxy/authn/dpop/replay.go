package dpop

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/proxy/authn"
)

// replay remembers the proofs that were accepted for as long as they could be
// shown again (RFC 9449 section 11.1). It forgets none early: a key that has used up
// its share gets no more in, and when all is full, nobody does.
type replay struct {
	mu       sync.Mutex
	floor    int64 // Unix time; what was made before may have been forgotten
	seen     map[proofID]struct{}
	bySecond map[int64][]spent // by the second in which they were made
	holders  map[string]*holder
}

// proofID stands for a jti of one key: nobody can spend the jti of another client.
type proofID [sha256.Size]byte

// holder is what one key has of the memory, by its thumbprint.
type holder struct {
	thumbprint string
	proofs     int
	bySecond   map[int64]int
}

type spent struct {
	id proofID
	by *holder
}

// room is how many proofs are remembered.
type room struct{ all, perKey int }

func newReplay() *replay {
	return &replay{seen: make(map[proofID]struct{}), bySecond: make(map[int64][]spent), holders: make(map[string]*holder)}
}

var (
	errSeen = errors.New("was presented before")
	errFull = errors.New("the memory of DPoP proofs is full; raise dpop.replay_entries")
)

// add remembers the proof with this jti by the key with this thumbprint. Proofs
// made before the second floor are forgotten, and refused from then on whatever
// window later proofs have. The error is authn.ErrInvalid, authn.ErrTooMany for a key
// that has used up its share, or authn.ErrUnavailable.
func (m *replay) add(thumbprint, jti string, made, floor int64, limit room) error {
	id := proofID(sha256.Sum256([]byte(thumbprint + "\x00" + jti)))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forget(floor)
	if made < m.floor {
		return fmt.Errorf("%w: %w: is too old", authn.ErrInvalid, ErrProof)
	}
	if _, again := m.seen[id]; again {
		return fmt.Errorf("%w: %w: %w", authn.ErrInvalid, ErrProof, errSeen)
	}
	h := m.holders[thumbprint]
	if h != nil && h.proofs >= limit.perKey {
		return h.exhausted(m.floor, limit.perKey)
	}
	if len(m.seen) >= limit.all {
		return fmt.Errorf("%w: %w", authn.ErrUnavailable, errFull)
	}
	if h == nil {
		// The thumbprint may belong to a connection's buffer.
		h = &holder{thumbprint: strings.Clone(thumbprint), bySecond: make(map[int64]int)}
		m.holders[h.thumbprint] = h
	}
	m.seen[id] = struct{}{}
	m.bySecond[made] = append(m.bySecond[made], spent{id, h})
	h.proofs++
	h.bySecond[made]++
	return nil
}

// exhausted says when the oldest proofs of h are forgotten, and it may come again.
func (h *holder) exhausted(floor int64, share int) error {
	var oldest, newest int64
	for second := range h.bySecond {
		if newest = max(newest, second); oldest == 0 || second < oldest {
			oldest = second
		}
	}
	return fmt.Errorf("the key has shown %d DPoP proofs, as many as are remembered of one; raise dpop.replay_entries_per_key: %w", share, &authn.TooManyError{
		Of: authn.Proofs, RetryAfter: time.Duration(oldest-floor+1) * time.Second, Quota: share,
		Window: time.Duration(newest-floor+1) * time.Second,
	})
}

// forget drops what was made before floor. It walks the seconds once in a second.
func (m *replay) forget(floor int64) {
	if floor <= m.floor {
		return
	}
	m.floor = floor
	for second, all := range m.bySecond {
		if second >= floor {
			continue
		}
		for _, s := range all {
			delete(m.seen, s.id)
			s.by.proofs--
			delete(s.by.bySecond, second)
			if s.by.proofs == 0 {
				delete(m.holders, s.by.thumbprint)
			}
		}
		delete(m.bySecond, second)
	}
}
