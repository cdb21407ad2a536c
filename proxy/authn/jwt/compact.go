package jwt

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// MaxToken bounds a token in bytes. Real ones stay under 8 KiB, which is also
// where servers in front of us give up on a header.
const MaxToken = 16 << 10

// errForm: the text is not a JWS in compact serialization. It may be an opaque
// token, an encrypted one, or one that is not for us to read.
var errForm = errors.New("not a JWS in compact serialization")

// compact is a JWS in compact serialization (RFC 7515 section 3.1), taken apart
// and not yet verified.
type compact struct {
	input     []byte // header and payload as signed: base64url, with the dot
	header    map[string]any
	payload   []byte
	signature []byte

	alg, kid, typ string
	hasKid        bool
}

// parseCompact takes text apart. Nothing lenient is done: the three parts are
// canonical base64url without padding, so that one token has one spelling, and
// the header is one JSON object without duplicate members.
func parseCompact(text string) (*compact, error) { return parseJWS(text, refusedParameters()) }

// parseJWS is parseCompact with the header parameters that are refused.
func parseJWS(text string, refused []string) (*compact, error) {
	if len(text) > MaxToken {
		return nil, fmt.Errorf("token is longer than %d bytes", MaxToken)
	}
	head, rest, ok1 := strings.Cut(text, ".")
	payload, signature, ok2 := strings.Cut(rest, ".")
	if !ok1 || !ok2 || strings.Contains(signature, ".") {
		return nil, errForm
	}
	rawHeader, err := decodePart(head)
	if err != nil {
		return nil, fmt.Errorf("%w: header: %w", errForm, err)
	}
	t := &compact{input: []byte(text[:len(head)+1+len(payload)])}
	if t.header, err = Object(rawHeader); err != nil {
		return nil, fmt.Errorf("%w: header: %w", errForm, err)
	}
	if t.payload, err = decodePart(payload); err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	if t.signature, err = decodePart(signature); err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	return t, t.readHeader(refused)
}

// decodePart decodes canonical base64url. The decoder of the standard library
// skips line breaks even when strict.
func decodePart(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("line break in base64url")
	}
	return base64.RawURLEncoding.Strict().DecodeString(s)
}

// refusedParameters of the header change what is verified, or bring the key or
// the place to fetch it from along with the token (RFC 7515 section 4.1, RFC
// 7797). No API token needs one, and each has been an attack.
func refusedParameters() []string {
	return []string{"crit", "b64", "cty", "zip", "jku", "jwk", "x5u", "x5c"}
}

func (t *compact) readHeader(refused []string) error {
	for _, name := range refused {
		if _, there := t.header[name]; there {
			return fmt.Errorf("header has %q", name)
		}
	}
	var ok bool
	if t.alg, ok = t.header["alg"].(string); !ok {
		return errors.New(`header has no "alg" that is a string`)
	}
	if t.kid, t.hasKid = t.header["kid"].(string); !t.hasKid && t.header["kid"] != nil {
		return errors.New(`"kid" is not a string`)
	}
	if t.typ, ok = t.header["typ"].(string); !ok && t.header["typ"] != nil {
		return errors.New(`"typ" is not a string`)
	}
	return nil
}

// mediaType folds a typ header: it is case-insensitive, and "application/" may
// be left out (RFC 7515 section 4.1.9).
func mediaType(typ string) string {
	return strings.TrimPrefix(strings.ToLower(typ), "application/")
}

// Compact reports whether text looks like a JWS in compact serialization: three
// parts, of which the first decodes to what begins like a JSON object. It looks at
// the beginning only, allocates nothing, and is no check.
func Compact(text string) bool {
	head, rest, _ := strings.Cut(text, ".")
	if strings.Count(rest, ".") != 1 {
		return false
	}
	var raw [48]byte
	n, _ := base64.RawURLEncoding.Decode(raw[:], []byte(head[:min(len(head), 64)&^3])) // what was read before an error counts
	for _, c := range raw[:n] {
		switch c {
		case ' ', '\t', '\r', '\n':
		case '{':
			return true
		default:
			return false
		}
	}
	return false
}
