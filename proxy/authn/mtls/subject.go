package mtls

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"strings"
)

// subjectPattern is one entry of allowed_subject_patterns. It is compared with the
// attributes of a subject and not with its text: texts of one subject differ in the order
// and the escaping of attributes.
type subjectPattern struct {
	values map[string]valuePattern // by OID
	others bool                    // the subject may have further attributes
}

// valuePattern is a value in pieces, between which stands one wildcard each.
type valuePattern []string

// maxValue bounds a value in bytes. Certificates have at most 128 characters (RFC 5280
// appendix A.1), and wildcards make the work of a comparison grow with the length.
const maxValue = 512

// attributeTypes are those that a pattern can name (RFC 4514 section 3, and the one for
// mail of PKCS #9).
func attributeTypes() map[string]string {
	return map[string]string{
		"CN": "2.5.4.3", "SERIALNUMBER": "2.5.4.5", "C": "2.5.4.6", "L": "2.5.4.7", "ST": "2.5.4.8", "STREET": "2.5.4.9",
		"O": "2.5.4.10", "OU": "2.5.4.11", "POSTALCODE": "2.5.4.17",
		"UID": "0.9.2342.19200300.100.1.1", "DC": "0.9.2342.19200300.100.1.25", "EMAILADDRESS": "1.2.840.113549.1.9.1",
	}
}

// parseSubjectPattern reads attributes with commas between them, or the pattern of a
// common name alone.
func parseSubjectPattern(text string) (subjectPattern, error) {
	p := subjectPattern{values: map[string]valuePattern{}}
	parts, err := splitPattern(text, ',')
	if err != nil {
		return p, err
	}
	if len(parts) == 1 && !strings.Contains(text, "=") {
		text, p.others = "CN="+text, true
		parts = []string{text}
	}
	for i, part := range parts {
		if part == "**" && i == len(parts)-1 && i > 0 {
			p.others = true
			continue
		}
		if err := p.add(part); err != nil {
			return p, err
		}
	}
	return p, nil
}

// add takes one attribute, TYPE=VALUE.
func (p *subjectPattern) add(part string) error {
	name, value, ok := strings.Cut(strings.TrimLeft(part, " "), "=")
	oid := attributeTypes()[strings.ToUpper(name)]
	switch {
	case !ok:
		return errors.New("is neither a list of TYPE=VALUE, in which ** can come last, nor a common name")
	case oid == "":
		return fmt.Errorf("names the attribute %q, which is not known", name)
	case p.values[oid] != nil:
		return fmt.Errorf("names %s twice", name)
	}
	pieces, err := splitPattern(value, '*')
	if err != nil {
		return err
	}
	for i, piece := range pieces {
		if pieces[i], err = unescape(piece); err != nil {
			return err
		}
		if piece == "" && i > 0 && i < len(pieces)-1 {
			return errors.New("has two wildcards in a row")
		}
	}
	if len(pieces) == 1 && pieces[0] == "" {
		return fmt.Errorf("has no value of %s", name)
	}
	p.values[oid] = pieces
	return nil
}

// splitPattern splits at separators that no backslash is in front of.
func splitPattern(text string, separator byte) ([]string, error) {
	var parts []string
	start := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			if i++; i == len(text) {
				return nil, errors.New("ends with a backslash")
			}
		case separator:
			parts = append(parts, text[start:i])
			start = i + 1
		}
	}
	return append(parts, text[start:]), nil
}

// unescape takes the backslashes out. What RFC 4514 has a meaning for must have one.
func unescape(text string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '+', '"', ';', '<', '>':
			return "", fmt.Errorf("has %q, which needs a backslash in front", text[i])
		}
		b.WriteByte(text[i])
	}
	return b.String(), nil
}

// matches reports whether every attribute that p names is in the subject exactly once,
// with a value that matches as a whole, and no other where p does not allow it.
func (p subjectPattern) matches(leaf *x509.Certificate) bool {
	seen := map[string]bool{}
	for _, a := range leaf.Subject.Names {
		oid := a.Type.String()
		v, named := p.values[oid]
		switch {
		case !named && !p.others:
			return false
		case !named:
		case seen[oid] || !v.matchesAttribute(a): // which of two counts is a matter of opinion
			return false
		default:
			seen[oid] = true
		}
	}
	return len(seen) == len(p.values)
}

func (v valuePattern) matchesAttribute(a pkix.AttributeTypeAndValue) bool {
	text, ok := a.Value.(string)
	return ok && text != "" && len(text) <= maxValue && v.match(text)
}

// match compares a whole value. A wildcard alone is every value. One that is a part stands
// for one or more letters, digits, hyphens and underscores, as between the dots of a name:
// it never reaches over a dot, an @, a slash or a space.
func (v valuePattern) match(text string) bool {
	if len(v) == 1 {
		return text == v[0]
	}
	if len(v) == 2 && v[0] == "" && v[1] == "" {
		return true
	}
	if !strings.HasPrefix(text, v[0]) {
		return false
	}
	ends := make([]bool, len(text)+1) // where what was compared so far can end
	ends[len(v[0])] = true
	for _, piece := range v[1:] {
		ends = extend(ends, text, piece)
	}
	return ends[len(text)]
}

// extend returns where a wildcard and then piece can end that begin at one of starts. Each
// byte is looked at once, whatever the pattern: which value comes is the client's choice.
func extend(starts []bool, text, piece string) []bool {
	ends := make([]bool, len(text)+1)
	within := false // a wildcard that has begun
	for n := range len(text) {
		within = (within || starts[n]) && isLabelByte(text[n])
		if within && strings.HasPrefix(text[n+1:], piece) {
			ends[n+1+len(piece)] = true
		}
	}
	return ends
}

func isLabelByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}
