package httpsignature

import (
	"crypto/sha256"
	"fmt"
	"sync"

	"github.com/sallyport/sallyport/proxy/authn"
)

// replay remembers the nonces of signatures that were accepted for as long as these
// could be shown again (RFC 9421 section 7.2.2). It forgets none early: when it is full,
// nobody else gets in.
type replay struct {
	mu       sync.Mutex
	floor    int64 // Unix time; what was created before may have been forgotten
	seen     map[nonceID]struct{}
	bySecond map[int64][]nonceID // by the second of creation
}

// nonceID stands for a nonce of one consumer's key: nobody can spend that of another.
type nonceID [sha256.Size]byte

func newReplay() *replay {
	return &replay{seen: make(map[nonceID]struct{}), bySecond: make(map[int64][]nonceID)}
}

// add remembers a nonce. Signatures from before the second floor are forgotten, and
// refused from then on whatever max_age later ones have.
func (m *replay) add(subject, keyID, nonce string, created, floor int64, limit int) error {
	id := nonceID(sha256.Sum256(fmt.Appendf(nil, "%q %q %q", subject, keyID, nonce)))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forget(floor)
	if created < m.floor {
		return fmt.Errorf("%w: %w: created too long ago", authn.ErrInvalid, authn.ErrExpired)
	}
	if _, again := m.seen[id]; again {
		return fmt.Errorf("%w: the nonce was used before", authn.ErrInvalid)
	}
	if len(m.seen) >= limit {
		return fmt.Errorf("%w: the memory of %d nonces is full; raise nonce.replay_entries", authn.ErrUnavailable, limit)
	}
	m.seen[id] = struct{}{}
	m.bySecond[created] = append(m.bySecond[created], id)
	return nil
}

// forget drops what was created before floor. It walks the seconds once in a second.
func (m *replay) forget(floor int64) {
	if floor <= m.floor {
		return
	}
	m.floor = floor
	for second, ids := range m.bySecond {
		if second >= floor {
			continue
		}
		for _, id := range ids {
			delete(m.seen, id)
		}
		delete(m.bySecond, second)
	}
}
