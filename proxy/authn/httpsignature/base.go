package httpsignature

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sallyport/sallyport/proxy/authn"
)

const queryParam = "@query-param"

// derived are the derived components that can be required (RFC 9421 section 2.2).
func derived() []string {
	return []string{"@method", "@target-uri", "@authority", "@scheme", "@request-target", "@path", "@query"}
}

func isDerived(name string) bool { return slices.Contains(derived(), name) }

// covers reports whether names have the component, or one that holds all of it.
func covers(names []string, name string) bool {
	if slices.Contains(names, name) {
		return true
	}
	switch name {
	case "@path", "@query":
		return slices.Contains(names, "@target-uri") || slices.Contains(names, "@request-target")
	case "@authority", "@scheme":
		return slices.Contains(names, "@target-uri")
	}
	return false
}

// base returns the signature base (RFC 9421 section 2.5): of the request as it was
// judged to be, which is what the policy and the upstream see, and of nothing else.
func (s *signature) base(r *authn.Request) ([]byte, error) {
	out := make([]byte, 0, 1024)
	for i := range s.components {
		c := &s.components[i]
		value, err := c.value(r)
		if err == nil {
			err = checkLine(value)
		}
		if err != nil {
			return nil, fmt.Errorf("component %.128s: %w", c.id, err)
		}
		out = append(out, c.id...)
		out = append(out, ": "...)
		out = append(out, value...)
		out = append(out, '\n')
	}
	out = append(out, `"@signature-params": `...)
	return append(out, s.parameters...), nil
}

// checkLine refuses what would be a second line of the base, or is not ASCII.
func checkLine(value string) error {
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c > '~' {
			return errors.New("has characters that cannot be signed")
		}
	}
	return nil
}

func (c *component) value(r *authn.Request) (string, error) {
	switch c.name {
	case "@method":
		return r.Method, nil
	case "@authority":
		return authority(r), nil
	case "@scheme":
		return r.Scheme, nil
	case "@path":
		return r.Path, nil
	case "@query":
		return "?" + r.RawQuery, nil
	case "@request-target":
		return target(r), nil
	case "@target-uri":
		return r.Scheme + "://" + authority(r) + target(r), nil
	case queryParam:
		return queryParameter(r.RawQuery, c.of)
	}
	return fieldValue(r, c.name)
}

// authority is the host in lower case, without the port of the scheme (RFC 9421
// section 2.2.3).
func authority(r *authn.Request) string {
	port := ":443"
	if r.Scheme == "http" {
		port = ":80"
	}
	return strings.TrimSuffix(strings.ToLower(r.Host), port)
}

func target(r *authn.Request) string {
	if r.RawQuery == "" {
		return r.Path
	}
	return r.Path + "?" + r.RawQuery
}

// fieldValue returns the value of a header field (RFC 9421 section 2.1). A field that
// stands twice is refused: its lines would be joined, and a signature of two lines be
// good for one that reads the same.
func fieldValue(r *authn.Request, name string) (string, error) {
	value, found := "", 0
	for i := range r.Headers {
		if r.Headers[i].Name == name {
			value, found = r.Headers[i].Value, found+1
		}
	}
	switch found {
	case 0:
		return "", errors.New("is not in the request, or the client may not send it")
	case 1:
		return strings.Trim(value, " \t"), nil
	}
	return "", errors.New("stands twice")
}

// queryParameter returns the value of the one parameter called name, which is encoded,
// in the encoding of RFC 9421 section 2.2.8.
func queryParameter(query, name string) (string, error) {
	value, found := "", 0
	for pair := range strings.SplitSeq(query, "&") {
		k, v, _ := strings.Cut(pair, "=")
		k, err := recode(k)
		if err != nil {
			return "", err
		}
		if k != name || pair == "" {
			continue
		}
		if value, err = recode(v); err != nil {
			return "", err
		}
		found++
	}
	if found != 1 {
		return "", fmt.Errorf("stands %d times in the query, not once", found)
	}
	return value, nil
}

func recode(s string) (string, error) {
	text, err := url.QueryUnescape(s)
	if err != nil || !utf8.ValidString(text) {
		return "", errors.New("query has a broken escape or is not UTF-8")
	}
	var b strings.Builder
	for i := range len(text) {
		c := text[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("*-._", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		const digits = "0123456789ABCDEF"
		b.Write([]byte{'%', digits[c>>4], digits[c&15]})
	}
	return b.String(), nil
}
