package decisionlog

import "slices"

// multimap collects values by name, names in order of arrival. It allocates
// nothing for as few fields as most requests have.
type multimap struct {
	fields []field
	last   map[string]int // the newest field of each name, once there are more than few
}

// field is one name and value; next is the next field of that name, 0 for none,
// which the first field never is.
type field struct {
	name, value string
	next        int
	repeated    bool // there is one of that name before
}

// few is up to how many fields are searched one by one.
const few = 32

func (m *multimap) add(name, value string) {
	before := m.find(name)
	m.fields = append(m.fields, field{name: name, value: value, repeated: before >= 0})
	if before >= 0 {
		m.fields[before].next = len(m.fields) - 1
	}
	if m.last != nil {
		m.last[name] = len(m.fields) - 1
	}
}

// find returns the newest field of that name, or -1.
func (m *multimap) find(name string) int {
	if m.last == nil && len(m.fields) > few {
		m.last = map[string]int{}
		for i := range m.fields {
			m.last[m.fields[i].name] = i
		}
	}
	if m.last != nil {
		if i, ok := m.last[name]; ok {
			return i
		}
		return -1
	}
	for i, f := range slices.Backward(m.fields) {
		if f.name == name {
			return i
		}
	}
	return -1
}

// multimap returns an empty one, in the memory of the last.
func (enc *encoder) multimap() multimap { return multimap{fields: enc.fields[:0]} }

// write writes m and takes its memory back, unless a request had so many fields
// that it would be kept for nothing.
func (enc *encoder) write(w *buffer, name literal, m *multimap) {
	w.key(name)
	w.open('{')
	for i := range m.fields {
		if f := &m.fields[i]; !f.repeated {
			m.writeList(w, f)
		}
	}
	w.close('}')
	clear(m.fields)
	if enc.fields = m.fields; cap(enc.fields) > 8*few {
		enc.fields = nil
	}
}

func (m *multimap) writeList(w *buffer, f *field) {
	w.anyKey(f.name)
	w.open('[')
	for {
		w.comma()
		w.quote(f.value)
		if f.next == 0 {
			break
		}
		f = &m.fields[f.next]
	}
	w.close(']')
}
