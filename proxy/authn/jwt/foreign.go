package jwt

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"github.com/sallyport/sallyport/proxy/authn"
)

const (
	foreignWays = 4       // slots that a token may be in: one cache line
	maxForeign  = 1 << 20 // slots: 16 MiB
)

// foreign remembers tokens of other issuers, so that in a chain of several
// issuers those asked first do not take the others' tokens apart each time. The
// answer never changes: a token keeps its issuer, an authenticator too. Anybody
// can fill it, hence a few slots per hash, and the next token takes one of them. With
// one, a fifth of a thousand tokens would drive each other out for ever.
//
// Unlike the cache, it keeps no text. To compare a token of a thousand bytes with one
// that has not been read for a while costs more than all the rest of a look, and here
// what is mistaken for another is refused and never accepted. Two tokens look alike if
// their last bytes, which are their signatures', and their lengths are the same and so
// are their hashes, whose seed nobody knows.
type foreign struct {
	sets  uint64
	slots atomic.Pointer[[]stranger] // nil until the first token: most issuers never see one
	turn  atomic.Uint32              // whose place is taken next
}

// stranger is a token. Two that are written at once may leave the hash of one and the
// mark of the other, which is nobody's.
type stranger struct{ hash, mark atomic.Uint64 }

var errForeignAgain = fmt.Errorf("%w: another %w's token", authn.ErrForeign, authn.ErrIssuer)

// newForeign makes a memory of as many tokens, about, as there are of ours to keep:
// others' may come as often.
func newForeign(tokens int) *foreign {
	return &foreign{sets: uint64(max(0, min(tokens, maxForeign)))/foreignWays + 1}
}

func (f *foreign) has(token string, h uint64) bool {
	slots := f.slots.Load()
	return slots != nil && find(f.set(*slots, h), h, markOf(token)) != nil
}

func (f *foreign) add(token string, h uint64) {
	mark := markOf(token)
	if f.slots.Load() == nil {
		slots := make([]stranger, f.sets*foreignWays)
		f.slots.CompareAndSwap(nil, &slots)
	}
	set := f.set(*f.slots.Load(), h)
	if mark == free || find(set, h, mark) != nil {
		return
	}
	own := &set[f.turn.Add(1)%foreignWays]
	for i := range set {
		if set[i].mark.Load() == free {
			own = &set[i]
			break
		}
	}
	own.hash.Store(h)
	own.mark.Store(mark)
}

func (f *foreign) set(slots []stranger, h uint64) []stranger {
	first := h % f.sets * foreignWays
	return slots[first : first+foreignWays]
}

func find(set []stranger, h, mark uint64) *stranger {
	for i := range set {
		if set[i].hash.Load() == h && set[i].mark.Load() == mark && mark != free {
			return &set[i]
		}
	}
	return nil
}

// free is the mark of a slot that no token is in, and of tokens too short for a mark.
const free = 0

// markOf returns the last bytes of a token, and its length.
func markOf(token string) uint64 {
	if len(token) < 8 {
		return free
	}
	return binary.LittleEndian.Uint64([]byte(token[len(token)-8:])) + uint64(len(token))
}
