package decisionlog

import "slices"

// Bounds of what kept remembers, for each of its two generations.
const (
	keptEntries = 4096
	keptBytes   = 4 << 20
)

// kept remembers the encodings of values that many requests share, by pointer: the
// identity behind a token, the TLS connection, the gateway. It holds the pointers
// themselves, so none can come to mean another value, and it forgets what was not
// asked for while as much as it may hold came in. What is seen once is not copied.
// It belongs to one goroutine.
type kept[K comparable] struct {
	young, old map[K][]byte // nil: seen once
	bytes      int          // about, of young
}

// get returns the encoding of key, nil if there is none.
func (k *kept[K]) get(key K) []byte {
	if text, ok := k.young[key]; ok {
		return text
	}
	if text, ok := k.old[key]; ok {
		k.add(key, text, len(text))
		return text
	}
	return nil
}

// put remembers text, which it copies, when it sees key for the second time.
func (k *kept[K]) put(key K, text []byte) {
	if len(text) > keptBytes/16 {
		return
	}
	if _, again := k.young[key]; again {
		k.add(key, slices.Clone(text), len(text))
		return
	}
	k.add(key, nil, len(text))
}

func (k *kept[K]) add(key K, text []byte, size int) {
	if len(k.young) >= keptEntries || k.bytes+size > keptBytes {
		k.young, k.old = k.old, k.young
		clear(k.young)
		k.bytes = 0
	}
	if k.young == nil {
		k.young = map[K][]byte{}
	}
	k.young[key] = text
	k.bytes += size
}
