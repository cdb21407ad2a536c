package jwt

import (
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/sallyport/sallyport/proxy/authn"
)

const (
	foreignSlots = 4096
	maxForeign   = 4 << 10 // bytes; with the slots, 16 MiB at most
)

// foreign remembers tokens of other issuers, so that in a chain of several
// issuers those asked first do not take the others' tokens apart each time. The
// answer never changes: a token keeps its issuer, an authenticator too. Anybody
// can fill it, hence one slot per hash, and the next token takes it.
// They are found by the hash that the cache has for them.
type foreign struct {
	slots [foreignSlots]atomic.Pointer[string]
}

var errForeignAgain = fmt.Errorf("%w: another %w's token", authn.ErrForeign, authn.ErrIssuer)

func (f *foreign) slot(h uint64) *atomic.Pointer[string] { return &f.slots[h%foreignSlots] }

func (f *foreign) has(token string, h uint64) bool {
	known := f.slot(h).Load()
	return known != nil && *known == token
}

// add copies the token, which may belong to a connection's buffer.
func (f *foreign) add(token string, h uint64) {
	if len(token) > maxForeign {
		return
	}
	own := strings.Clone(token)
	f.slot(h).Store(&own)
}
