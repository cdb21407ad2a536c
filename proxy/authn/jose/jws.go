package jose

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// MaxToken bounds a token in bytes. Real ones stay under 8 KiB, which is also
// where servers in front of us give up on a header.
const MaxToken = 16 << 10

// ErrForm says that the text is not a JWS in compact serialization. It may be an opaque
// token, an encrypted one, or one that is not for us to read.
var ErrForm = errors.New("not a JWS in compact serialization")

// JWS is a JWS in compact serialization (RFC 7515 section 3.1), taken apart
// and not yet verified.
type JWS struct {
	Input     []byte // header and payload as signed: base64url, with the dot
	Header    map[string]any
	Payload   []byte
	Signature []byte

	Algorithm, KeyID, Type string
	HasKeyID               bool
}

// ParseJWS takes text apart. Nothing lenient is done: the three parts are
// canonical base64url without padding, so that one token has one spelling, and
// the header is one JSON object without duplicate members.
func ParseJWS(text string) (*JWS, error) { return parseJWS(text, refusedParameters()) }

// parseJWS is ParseJWS with the header parameters that are refused.
func parseJWS(text string, refused []string) (*JWS, error) {
	if len(text) > MaxToken {
		return nil, fmt.Errorf("token is longer than %d bytes", MaxToken)
	}
	head, rest, ok1 := strings.Cut(text, ".")
	payload, signature, ok2 := strings.Cut(rest, ".")
	if !ok1 || !ok2 || strings.Contains(signature, ".") {
		return nil, ErrForm
	}
	rawHeader, err := DecodeBase64(head)
	if err != nil {
		return nil, fmt.Errorf("%w: header: %w", ErrForm, err)
	}
	t := &JWS{Input: []byte(text[:len(head)+1+len(payload)])}
	if t.Header, err = Object(rawHeader); err != nil {
		return nil, fmt.Errorf("%w: header: %w", ErrForm, err)
	}
	if t.Payload, err = DecodeBase64(payload); err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	if t.Signature, err = DecodeBase64(signature); err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	return t, t.readHeader(refused)
}

// DecodeBase64 decodes canonical base64url. The decoder of the standard library
// skips line breaks even when strict.
func DecodeBase64(s string) ([]byte, error) {
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

func (t *JWS) readHeader(refused []string) error {
	for _, name := range refused {
		if _, there := t.Header[name]; there {
			return fmt.Errorf("header has %q", name)
		}
	}
	var ok bool
	if t.Algorithm, ok = t.Header["alg"].(string); !ok {
		return errors.New(`header has no "alg" that is a string`)
	}
	if t.KeyID, t.HasKeyID = t.Header["kid"].(string); !t.HasKeyID && t.Header["kid"] != nil {
		return errors.New(`"kid" is not a string`)
	}
	if t.Type, ok = t.Header["typ"].(string); !ok && t.Header["typ"] != nil {
		return errors.New(`"typ" is not a string`)
	}
	return nil
}

// MediaType folds a typ header: it is case-insensitive, and "application/" may
// be left out (RFC 7515 section 4.1.9).
func MediaType(typ string) string {
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

// Peek returns what a JWS in compact serialization says, of which nobody has verified a
// word: it may be believed where it speaks against the token, and nowhere else.
func Peek(token string) (map[string]any, error) {
	_, rest, _ := strings.Cut(token, ".")
	payload, _, _ := strings.Cut(rest, ".")
	data, err := DecodeBase64(payload)
	if err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	return Object(data)
}
