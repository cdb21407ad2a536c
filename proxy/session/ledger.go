package session

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"
)

// ledger remembers what happened, each for a time, in bounded memory. When it is
// full it forgets the oldest, and from then on takes everything for noted that is not
// younger than what it forgot: it may refuse too much and never too little.
type ledger struct {
	limit int

	mu      sync.RWMutex
	entries map[digest]int64 // Unix milliseconds
	queue   []noted          // in the order of notes
	floor   int64            // Unix milliseconds
}

type digest [16]byte

type noted struct {
	key       digest
	at, until int64
}

func newLedger(limit int) *ledger {
	return &ledger{limit: limit, entries: make(map[digest]int64)}
}

// digestOf tells texts apart whose lengths differ, wherever one ends.
func digestOf(parts ...string) digest {
	h := sha256.New()
	for _, p := range parts {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(p))))
		h.Write([]byte(p))
	}
	return digest(h.Sum(nil)[:len(digest{})])
}

// note remembers that key happened at a time.
func (l *ledger) note(key digest, at, until, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(key, at.UnixMilli(), until.UnixMilli(), now.UnixMilli())
}

func (l *ledger) add(key digest, at, until, now int64) {
	for len(l.queue) > 0 && (l.queue[0].until <= now || len(l.queue) >= l.limit) {
		l.drop(now)
	}
	l.entries[key] = max(at, l.entries[key])
	l.queue = append(l.queue, noted{key, at, until})
}

// drop forgets the oldest note.
func (l *ledger) drop(now int64) {
	old := l.queue[0]
	l.queue = l.queue[1:]
	if old.until > now {
		l.floor = max(l.floor, old.at)
	}
	if l.entries[old.key] == old.at { // else noted again since
		delete(l.entries, old.key)
	}
}

// covers reports whether what was made at a time is no younger than a note of one of
// the keys.
func (l *ledger) covers(made time.Time, keys ...digest) bool {
	at := made.UnixMilli()
	l.mu.RLock()
	defer l.mu.RUnlock()
	if at <= l.floor {
		return true
	}
	for _, k := range keys {
		if noted, ok := l.entries[k]; ok && at <= noted {
			return true
		}
	}
	return false
}

// once notes key and reports whether it was new.
func (l *ledger) once(key digest, made, until, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.knows(key, made) {
		return false
	}
	l.add(key, made.UnixMilli(), until.UnixMilli(), now.UnixMilli())
	return true
}

// seen reports whether once would find key known.
func (l *ledger) seen(key digest, made time.Time) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.knows(key, made)
}

func (l *ledger) knows(key digest, made time.Time) bool {
	_, known := l.entries[key]
	return known || made.UnixMilli() <= l.floor
}

// has reports whether key is noted.
func (l *ledger) has(key digest) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	_, ok := l.entries[key]
	return ok
}
