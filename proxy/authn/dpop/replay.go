package dpop

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"

	"github.com/sallyport/sallyport/proxy/authn"
)

// replay remembers the proofs that were accepted for as long as they could be
// shown again (RFC 9449 section 11.1). It forgets none early: when it is full,
// nobody else gets in.
type replay struct {
	mu       sync.Mutex
	floor    int64 // Unix time; what was made before may have been forgotten
	seen     map[proofID]struct{}
	bySecond map[int64][]proofID // by the second in which they were made
}

// proofID stands for a jti of one key: nobody can spend the jti of another client.
type proofID [sha256.Size]byte

func newReplay() *replay {
	return &replay{seen: make(map[proofID]struct{}), bySecond: make(map[int64][]proofID)}
}

var errSeen = errors.New("was presented before")

// add remembers the proof with this jti by the key with this thumbprint. Proofs
// made before the second floor are forgotten, and refused from then on whatever
// window later proofs have.
func (m *replay) add(thumbprint, jti string, made, floor int64, limit int) error {
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
	if len(m.seen) >= limit {
		return fmt.Errorf("%w: the memory of %d DPoP proofs is full; raise dpop.replay_entries", authn.ErrUnavailable, limit)
	}
	m.seen[id] = struct{}{}
	m.bySecond[made] = append(m.bySecond[made], id)
	return nil
}

// forget drops what was made before floor. It walks the seconds once in a second.
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
