// Package replay remembers what counts once: proofs of possession (RFC 9449 section 11.1),
// signatures with a nonce (RFC 9421 section 7.2.2). It owns the memory of a process with
// its bounds, and the one in Redis by which replicas tell each other.
//
// It forgets nothing before it is too old to count anyway, and what it cannot remember
// does not count. What is used, and how old it may be, is for the mechanism to say.
package replay

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/redis"
)

// Why something does not count. A key that has used up its share gets an
// *authn.TooManyError.
var (
	// ErrUsed: it counted before.
	ErrUsed = errors.New("was used before")
	// ErrForgotten: it is so old that nobody knows any more whether it counted.
	ErrForgotten = errors.New("is too old")
	// ErrFull: there is no room to remember it. It is authn.ErrUnavailable.
	ErrFull = fmt.Errorf("%w: the memory of what was used is full", authn.ErrUnavailable)
	// ErrUnreachable: Redis does not answer, or not in time. It is authn.ErrUnavailable.
	ErrUnreachable = fmt.Errorf("%w: Redis cannot be asked whether it was used before", authn.ErrUnavailable)
)

// skew is how far the clocks of two replicas may be apart.
const skew = time.Minute

// Config is one memory.
type Config struct {
	Kind string // of what is used, for the keys in Redis: dpop, nonce
	Name string // of the authenticator; replicas have the same
	Room Room
	// Redis has what all replicas remember; nil: each remembers what it saw itself.
	Redis *redis.Config
}

// Room is how much a process remembers at once.
type Room struct {
	All    int
	PerKey int // of All; 0: a key may have all
}

// Use is something that is used.
type Use struct {
	Key    string // whose it is: the same ID of another key is something else
	ID     string
	Made   int64 // the second in which it says that it was made, in Unix time
	Oldest int64 // the second of the oldest that may count now, in Unix time
}

// Memory is what was used. It is safe for concurrent use.
type Memory struct {
	config Config
	own    *memory
	redis  *redis.Client // nil: none
}

// New reads files and connects to nothing.
func New(c Config) (*Memory, error) {
	m := &Memory{config: c, own: newMemory()}
	if c.Redis == nil {
		return m, nil
	}
	filled := c.Redis.Filled()
	m.config.Redis = &filled
	var err error
	m.redis, err = redis.New(filled.Server, filled.Timeout)
	return m, err
}

// Inherit takes over what the process remembers for prev. Call it before the first use.
func (m *Memory) Inherit(prev *Memory) { m.own = prev.own }

// Files returns the files that Reload reads.
func (m *Memory) Files() []string {
	if m.redis == nil {
		return nil
	}
	return m.redis.Files()
}

// Reload reads the files again. What could not be read stays as it was.
func (m *Memory) Reload() error {
	if m.redis == nil {
		return nil
	}
	return m.redis.Reload()
}

// Close closes the connections once requests that began before a reload need them no
// more.
func (m *Memory) Close() {
	if m.redis != nil {
		m.redis.Retire()
	}
}

// Use returns nil for what was not used before, and remembers it. After an error none of
// all was used, unless it was before, and those that were not may come again.
func (m *Memory) Use(ctx context.Context, all ...Use) error {
	for i, u := range all {
		if err := m.use(ctx, u); err != nil {
			for _, before := range all[:i] {
				m.own.remove(m.config.identify(before), before.Made)
			}
			return err
		}
	}
	return nil
}

func (m *Memory) use(ctx context.Context, u Use) error {
	id := m.config.identify(u)
	if err := m.own.add(id, u, m.config.Room); err != nil || m.redis == nil {
		return err
	}
	err := m.tell(ctx, id, u)
	if errors.Is(err, ErrUnreachable) {
		m.own.remove(id, u.Made)
	}
	return err
}

// tell claims a use for this process. It may have claimed it before without hearing the
// answer; then nobody else has it, and this process did not let it count, or it would know.
func (m *Memory) tell(ctx context.Context, id digest, u Use) error {
	ctx, cancel := context.WithTimeout(ctx, m.config.Redis.Timeout)
	defer cancel()
	key := m.config.Redis.Prefix + m.config.Kind + ":" + hex.EncodeToString(id[:])
	left := time.Duration(u.Made-u.Oldest+1) * time.Second // until it is too old
	mine, err := m.redis.Claim(ctx, key, m.own.claimant, left+skew)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %s: %w", ErrUnreachable, m.redis.Address(), err)
	case !mine:
		return fmt.Errorf("%w, at another replica or by one that restarted", ErrUsed)
	}
	return nil
}

// digest stands for a use.
type digest [sha256.Size]byte

func (c *Config) identify(u Use) digest {
	text := make([]byte, 0, 256)
	for _, part := range []string{c.Name, u.Key, u.ID} {
		text = append(binary.BigEndian.AppendUint64(text, uint64(len(part))), part...)
	}
	return sha256.Sum256(text)
}
