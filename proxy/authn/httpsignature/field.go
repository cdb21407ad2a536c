package httpsignature

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/dunglas/httpsfv"
)

const (
	maxField      = 16 << 10 // bytes of each of the two fields
	maxComponents = 64
	maxParameter  = 512  // bytes
	maxSignature  = 1024 // bytes: an RSA key of 8192 bits
)

// signature is one member of Signature-Input with its member of Signature (RFC 9421
// section 4).
type signature struct {
	label      string
	components []component
	parameters string // the value of @signature-params (section 2.3)
	value      []byte

	created, expires           int64 // Unix time; expires 0: the signer gave none
	keyID, algorithm           string
	nonce, tag                 string
	hasKeyID, hasNonce, hasTag bool
	hasAlgorithm               bool
}

// component is one covered component.
type component struct {
	name string // "@path", "content-digest"
	id   string // serialized with its parameter: what stands before the colon
	of   string // name parameter of @query-param
}

// parse reads the two fields. What this package does not know is refused, and so is a
// member or parameter that stands twice: other readers might take the first.
func parse(input, values string, limit int) ([]signature, error) {
	inputs, err := dictionary(input)
	if err != nil {
		return nil, fmt.Errorf("signature-input: %w", err)
	}
	sums, err := dictionary(values)
	if err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	labels := inputs.Names()
	switch {
	case len(labels) == 0:
		return nil, errors.New("signature-input is empty")
	case len(labels) > limit:
		return nil, fmt.Errorf("request has %d signatures, at most %d are looked at", len(labels), limit)
	case len(labels) != len(sums.Names()):
		return nil, errors.New("signature and signature-input have different labels")
	}
	out := make([]signature, len(labels))
	for i, label := range labels {
		if err := out[i].read(label, inputs, sums); err != nil {
			return nil, fmt.Errorf("signature %.64q: %w", label, err)
		}
	}
	return out, nil
}

// dictionary parses a field of the type dictionary (RFC 9651 section 4.2.2), in which
// nothing stands twice.
func dictionary(text string) (*httpsfv.Dictionary, error) {
	if len(text) > maxField {
		return nil, fmt.Errorf("is longer than %d bytes", maxField)
	}
	d, err := httpsfv.UnmarshalDictionary([]string{text})
	if err != nil {
		return nil, err
	}
	members, parameters, err := separators(text)
	if err != nil {
		return nil, err
	}
	if len(d.Names()) > 0 {
		members++
	}
	if members != len(d.Names()) {
		return nil, errors.New("a label stands twice")
	}
	for _, name := range d.Names() {
		m, _ := d.Get(name) // it is there by its name
		parameters -= countParameters(m)
	}
	if parameters != 0 {
		return nil, errors.New("a parameter stands twice")
	}
	return d, nil
}

// separators counts the commas and semicolons of a well-formed dictionary that are not
// in a string: the parser keeps the last of what stands twice, as section 4.2.2 of
// RFC 9651 wants it. Where a "%" is not in a string a display string begins, or stands
// in a token: none of ours has either.
func separators(text string) (commas, semicolons int, err error) {
	quoted := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == ',':
			commas++
		case c == ';':
			semicolons++
		case c == '%':
			return 0, 0, errors.New("has a token or a display string with %")
		}
	}
	return commas, semicolons, nil
}

func countParameters(m httpsfv.Member) int {
	switch m := m.(type) {
	case httpsfv.Item:
		return len(m.Params.Names())
	case httpsfv.InnerList:
		n := len(m.Params.Names())
		for _, item := range m.Items {
			n += len(item.Params.Names())
		}
		return n
	}
	return 0
}

func (s *signature) read(label string, inputs, sums *httpsfv.Dictionary) error {
	member, _ := inputs.Get(label) // it is there by its name
	list, ok := member.(httpsfv.InnerList)
	if !ok {
		return errors.New("covered components are not a list")
	}
	s.label = label
	member, ok = sums.Get(label)
	if !ok {
		return errors.New("has no value in the field signature")
	}
	item, _ := member.(httpsfv.Item)
	if s.value, ok = item.Value.([]byte); !ok || len(item.Params.Names()) != 0 || len(s.value) > maxSignature {
		return fmt.Errorf("its value is not a byte sequence of at most %d bytes without parameters", maxSignature)
	}
	if err := s.readParameters(list.Params); err != nil {
		return err
	}
	if err := s.readComponents(list.Items); err != nil {
		return err
	}
	var err error
	s.parameters, err = httpsfv.Marshal(list)
	return err
}

// readParameters reads the parameters of RFC 9421 section 2.3.
func (s *signature) readParameters(p *httpsfv.Params) error {
	for _, name := range p.Names() {
		value, _ := p.Get(name) // it is there by its name
		var ok bool
		switch name {
		case "created":
			s.created, ok = value.(int64)
			ok = ok && s.created > 0
		case "expires":
			s.expires, ok = value.(int64)
			ok = ok && s.expires > 0
		case "keyid":
			s.keyID, ok = value.(string)
			s.hasKeyID = ok
		case "alg":
			s.algorithm, ok = value.(string)
			s.hasAlgorithm = ok
		case "nonce":
			s.nonce, ok = value.(string)
			s.hasNonce = ok
		case "tag":
			s.tag, ok = value.(string)
			s.hasTag = ok
		default:
			return fmt.Errorf("parameter %.64q is not known here", name)
		}
		if text, isText := value.(string); !ok || isText && len(text) > maxParameter {
			return fmt.Errorf("parameter %s is of the wrong type, not positive or longer than %d bytes", name, maxParameter)
		}
	}
	return nil
}

func (s *signature) readComponents(items []httpsfv.Item) error {
	if len(items) > maxComponents {
		return fmt.Errorf("covers more than %d components", maxComponents)
	}
	s.components = make([]component, 0, len(items))
	for _, item := range items {
		c, err := readComponent(item)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(s.components, func(o component) bool { return o.id == c.id }) {
			return fmt.Errorf("covers %s twice", c.id)
		}
		s.components = append(s.components, c)
	}
	return nil
}

// readComponent takes what this package can derive (RFC 9421 sections 2.1 and 2.2). The
// parameters sf, key, bs, tr and req are not supported: the first three change how a
// field is read, and there are no trailers and no response here.
func readComponent(item httpsfv.Item) (c component, err error) {
	name, ok := item.Value.(string)
	if !ok {
		return c, errors.New("a component is not a string")
	}
	c.name = name
	for _, p := range item.Params.Names() {
		value, _ := item.Params.Get(p) // it is there by its name
		if c.of, ok = value.(string); name != queryParam || p != "name" || !ok {
			return c, fmt.Errorf("component %.64q has parameter %.64q, which is not supported", name, p)
		}
	}
	switch {
	case name == queryParam && len(item.Params.Names()) == 0:
		return c, fmt.Errorf("component %s has no parameter name", queryParam)
	case strings.HasPrefix(name, "@") && name != queryParam && !isDerived(name):
		return c, fmt.Errorf("component %.64q is not supported in requests", name)
	case !strings.HasPrefix(name, "@"):
		if err := checkFieldName(name); err != nil {
			return c, fmt.Errorf("component %.64q %w", name, err)
		}
	}
	c.id, err = httpsfv.Marshal(item)
	return c, err
}

// checkFieldName accepts lower-case names of header fields that a signature can cover.
func checkFieldName(name string) error {
	switch name {
	case "":
		return errors.New("is empty")
	case "signature", "signature-input":
		return errors.New("cannot be covered: the signature itself is in it")
	}
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && !strings.ContainsRune("!#$&'*+-.^_`|~", rune(c)) {
			return errors.New("is not a lower-case name of a header field")
		}
	}
	return nil
}
