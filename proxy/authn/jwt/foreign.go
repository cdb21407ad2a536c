package jwt

import (
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/sallyport/sallyport/proxy/authn"
)

const (
	foreignSlots = 4096
	foreignWays  = 4       // slots that a token may be in
	maxForeign   = 4 << 10 // bytes; with the slots, 16 MiB at most
)

// foreign remembers tokens of other issuers, so that in a chain of several
// issuers those asked first do not take the others' tokens apart each time. The
// answer never changes: a token keeps its issuer, an authenticator too. Anybody
// can fill it, hence a few slots per hash, and the next token takes one of them. With
// one, a fifth of a thousand tokens would drive each other out for ever.
// They are found by the hash that the cache has for them.
type foreign struct {
	slots [foreignSlots]atomic.Pointer[stranger]
	turn  atomic.Uint32 // whose place is taken next
}

type stranger struct {
	hash  uint64
	token string
}

var errForeignAgain = fmt.Errorf("%w: another %w's token", authn.ErrForeign, authn.ErrIssuer)

func (f *foreign) places(h uint64) []atomic.Pointer[stranger] {
	first := h % (foreignSlots / foreignWays) * foreignWays
	return f.slots[first : first+foreignWays]
}

func (f *foreign) has(token string, h uint64) bool {
	places := f.places(h)
	for i := range places {
		if known := places[i].Load(); known != nil && known.hash == h && known.token == token {
			return true
		}
	}
	return false
}

// add copies the token, which may belong to a connection's buffer.
func (f *foreign) add(token string, h uint64) {
	if len(token) > maxForeign || f.has(token, h) {
		return
	}
	places, own := f.places(h), &stranger{hash: h, token: strings.Clone(token)}
	for i := range places {
		if places[i].CompareAndSwap(nil, own) {
			return
		}
	}
	places[f.turn.Add(1)%foreignWays].Store(own)
}
