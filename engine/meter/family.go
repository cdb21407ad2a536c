package meter

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// family holds the series of one metric by their attributes.
type family[S any] struct {
	create func() *S

	mu    sync.Mutex
	byKey map[string]*S
	order []member[S]
}

type member[S any] struct {
	attrs  []Attr
	series *S
}

func newFamily[S any](create func() *S) *family[S] {
	return &family[S]{create: create, byKey: map[string]*S{}}
}

// with returns the series of these attributes, in any order. It is made at first
// use, and the same for everybody who asks.
func (f *family[S]) with(attrs []Attr) *S {
	attrs = slices.Clone(attrs)
	slices.SortFunc(attrs, func(a, b Attr) int { return cmp.Compare(a.Key, b.Key) })
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.byKey[keyOf(attrs)]; s != nil {
		return s
	}
	if len(f.order) >= MaxSeries-1 {
		attrs = []Attr{Overflow()}
		if s := f.byKey[keyOf(attrs)]; s != nil {
			return s
		}
	}
	s := f.create()
	f.byKey[keyOf(attrs)] = s
	f.order = append(f.order, member[S]{attrs, s})
	return s
}

func (f *family[S]) members() []member[S] {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clip(f.order)
}

// keyOf writes each part with its length: names come from the configuration and
// may hold anything.
func keyOf(attrs []Attr) string {
	var b strings.Builder
	for _, a := range attrs {
		for _, part := range [...]string{a.Key, a.Value} {
			b.WriteString(strconv.Itoa(len(part)))
			b.WriteByte(':')
			b.WriteString(part)
		}
	}
	return b.String()
}
