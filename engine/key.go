package engine

import (
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"github.com/sallyport/sallyport/engine/analysis"
	"github.com/sallyport/sallyport/engine/authz"
)

// The key of the decision cache is made of the parts of the input that the
// entrypoint can read, by the same table as the input document. Two inputs with
// one key are the same to the policy: every part says whether it is there, and is
// written so that no other value of it begins with the same bytes. Since one
// entrypoint always writes the same parts in the same order, a key can be read
// back in one way only.

// keyPart appends one part of a key.
type keyPart func(b []byte, in *authz.Input) []byte

// keyPlan writes the key for one entrypoint.
type keyPlan struct {
	prefix []byte // names the entrypoint: entrypoints share a cache
	parts  []keyPart
	off    []string // what is read that no key can have; such decisions are not cached
}

// maxKeyBytes bounds a key: clients choose what is in it.
const maxKeyBytes = 16 << 10

func keyPlanOf(path string, reads *analysis.Report) *keyPlan {
	p := &keyPlan{prefix: appendText(nil, path)}
	p.parts, p.off = keyParts(reads.Input, "input", inputFields())
	p.off = append(p.off, reads.Nondeterministic...)
	return p
}

// append writes the key for in. It reports whether there is one.
func (p *keyPlan) append(b []byte, in *authz.Input) ([]byte, bool) {
	if len(p.off) > 0 {
		return b, false
	}
	b = append(b, p.prefix...)
	for _, part := range p.parts {
		b = part(b, in)
	}
	return b, len(b) <= maxKeyBytes
}

// keyParts returns the parts for the fields that are read, and the paths of those
// that have no key.
func keyParts(reads *analysis.Node, path string, fields []field) (parts []keyPart, off []string) {
	for _, f := range fields {
		n := reads.Child(f.name)
		if n == nil {
			continue
		}
		key := f.key
		if f.keyWithin != nil {
			key = f.keyWithin(n)
		}
		if f.fields != nil {
			_, within := keyParts(n, path+"."+f.name, f.fields)
			off = append(off, within...)
		} else if key == nil {
			off = append(off, path+"."+f.name)
		}
		parts = append(parts, key)
	}
	return parts, off
}

// unkeyed is a field that differs from request to request: with it in a key, the
// cache would fill and nothing would be found.
func unkeyed(f field) field {
	f.key, f.keyWithin = nil, nil
	return f
}

func sectionKey(fields []field, present func(*authz.Input) bool) func(*analysis.Node) keyPart {
	return func(reads *analysis.Node) keyPart {
		parts, _ := keyParts(reads, "", fields)
		return func(b []byte, in *authz.Input) []byte {
			if present != nil {
				if !present(in) {
					return append(b, 0)
				}
				b = append(b, 1)
			}
			for _, part := range parts {
				b = part(b, in)
			}
			return b
		}
	}
}

// mapKey writes the members that are read by name, or all.
func mapKey(get func(*authz.Input) map[string]string) func(*analysis.Node) keyPart {
	return func(reads *analysis.Node) keyPart {
		if reads.Whole {
			return func(b []byte, in *authz.Input) []byte { return appendMap(b, get(in)) }
		}
		names := slices.Sorted(maps.Keys(reads.Children))
		return func(b []byte, in *authz.Input) []byte {
			m := get(in)
			for _, name := range names {
				v, ok := m[name]
				if !ok {
					b = append(b, 0)
					continue
				}
				b = appendText(append(b, 1), v)
			}
			return b
		}
	}
}

// headersKey writes the headers that are read, in order of arrival: all, or those
// read by name, each by the number of its name.
func headersKey(reads *analysis.Node) keyPart {
	if reads.Whole {
		return func(b []byte, in *authz.Input) []byte {
			b = appendLen(b, len(in.Request.Headers))
			for i := range in.Request.Headers {
				h := &in.Request.Headers[i]
				b = appendText(appendText(b, h.Name), h.Value)
			}
			return b
		}
	}
	number := make(map[string]int, len(reads.Children))
	for i, name := range slices.Sorted(maps.Keys(reads.Children)) {
		number[name] = i + 1
	}
	return func(b []byte, in *authz.Input) []byte {
		for i := range in.Request.Headers {
			h := &in.Request.Headers[i]
			if n := number[h.Name]; n > 0 {
				b = appendText(appendLen(b, n), h.Value)
			}
		}
		return append(b, 0)
	}
}

// queryKey tells more apart than the policy can, which costs hits and no more.
func queryKey(b []byte, in *authz.Input) []byte { return appendText(b, in.Request.RawQuery) }

func certificateKey(b []byte, in *authz.Input) []byte {
	c := in.TLS.ClientCertificate
	if c == nil {
		return append(b, 0)
	}
	b = append(b, 1)
	for _, s := range [...]string{c.Subject, c.Issuer, c.Serial, c.SHA256, c.SPIFFEID} {
		b = appendText(b, s)
	}
	for _, l := range [...][]string{c.DNSNames, c.URIs, c.Emails} {
		b = appendList(b, l)
	}
	return appendTime(appendTime(b, c.NotBefore), c.NotAfter)
}

// identityKey is what one entrypoint reads of an identity, encoded.
type identityKey struct {
	reads *analysis.Node
	text  []byte
}

// maxIdentityKeys is how many entrypoints an identity keeps the encoding for; those
// of revisions that are gone make room.
const maxIdentityKeys = 8

// identityKeyPart writes the values that are read of an identity, not which one it
// is: a renewed token of the same user finds what the old one asked.
func identityKeyPart(reads *analysis.Node) keyPart {
	return func(b []byte, in *authz.Input) []byte {
		if in.Identity == nil {
			return append(b, 0)
		}
		return append(append(b, 1), termsOf(in.Identity).key(reads)...)
	}
}

// key is encoded once per identity and entrypoint. When two requests do that at
// the same time, one of them may have done it in vain. An identity that is no
// document reads as undefined, which no other does, and has no decision to keep.
func (t *identityTerms) key(reads *analysis.Node) []byte {
	if t.err != nil {
		return reads.AppendKey(nil, nil)
	}
	var known []identityKey
	if p := t.keys.Load(); p != nil {
		known = *p
	}
	for i := range known {
		if known[i].reads == reads {
			return known[i].text
		}
	}
	k := identityKey{reads: reads, text: reads.AppendKey(nil, t.term.Value)}
	keep := append([]identityKey{k}, known[:min(len(known), maxIdentityKeys-1)]...)
	t.keys.Store(&keep)
	return k.text
}

// Helpers that append; what they append is never the beginning of another value's.

func appendText(b []byte, s string) []byte { return append(appendLen(b, len(s)), s...) }

func appendLen(b []byte, n int) []byte {
	return binary.AppendUvarint(b, uint64(n)) //nolint:gosec // G115: a length
}

func appendList(b []byte, l []string) []byte {
	b = appendLen(b, len(l))
	for _, s := range l {
		b = appendText(b, s)
	}
	return b
}

// appendMap writes the members in the order of their names: a map has none.
func appendMap(b []byte, m map[string]string) []byte {
	var few [16]string
	names := few[:0]
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	b = appendLen(b, len(names))
	for _, name := range names {
		b = appendText(appendText(b, name), m[name])
	}
	return b
}

// appendTime writes what a policy sees of t.
func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(b, 0)
	}
	return binary.AppendVarint(append(b, 1), t.UnixMilli())
}
