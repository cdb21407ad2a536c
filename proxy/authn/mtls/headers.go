package mtls

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// readRFC9440 reads Client-Cert, one byte sequence (RFC 8941 section 3.3.5) that is a
// DER certificate, and Client-Cert-Chain, a list of them without the first.
func readRFC9440(text, chain string) (*certificate, error) {
	leaf, err := readSequence(text)
	if err != nil {
		return nil, fmt.Errorf("client-cert: %w", err)
	}
	var others []*x509.Certificate
	if strings.Trim(chain, " \t") == "" {
		return newCertificate(leaf, nil), nil
	}
	for item := range strings.SplitSeq(chain, ",") {
		c, err := readSequence(strings.Trim(item, " \t"))
		if err != nil {
			return nil, fmt.Errorf("client-cert-chain: %w", err)
		}
		if others = append(others, c); len(others) > maxForwarded {
			return nil, fmt.Errorf("client-cert-chain: more than %d certificates", maxForwarded)
		}
	}
	return newCertificate(leaf, others), nil
}

func readSequence(text string) (*x509.Certificate, error) {
	if len(text) < 2 || text[0] != ':' || text[len(text)-1] != ':' || strings.ContainsAny(text, "\r\n") {
		return nil, errors.New("not one byte sequence between colons")
	}
	der, err := base64.StdEncoding.Strict().DecodeString(text[1 : len(text)-1])
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// elements of X-Forwarded-Client-Cert, by lower-case key.
type elements map[string][]string

// readXFCC reads X-Forwarded-Client-Cert as Envoy writes it. With whole, the certificate
// must be there in full, and its own names count; without, those that are reported.
func readXFCC(text string, whole bool) (*certificate, error) {
	e, err := parseXFCC(text)
	if err != nil {
		return nil, fmt.Errorf("x-forwarded-client-cert: %w", err)
	}
	if !whole {
		return e.reported()
	}
	chain, err := e.chain()
	if err != nil {
		return nil, fmt.Errorf("x-forwarded-client-cert: %w", err)
	}
	c := newCertificate(chain[0], chain[1:])
	if hash := e["hash"]; len(hash) > 0 && !strings.EqualFold(hash[0], c.sha256) {
		return nil, errors.New("x-forwarded-client-cert: Hash is not that of the certificate")
	}
	return c, nil
}

// parseXFCC reads the key-value pairs of one element. A second element, after a comma,
// is of another hop or of the client itself, and nothing says which of them is right.
func parseXFCC(text string) (elements, error) {
	out := elements{}
	for rest := text; ; {
		key, after, ok := strings.Cut(rest, "=")
		key = strings.ToLower(key)
		if !ok {
			return nil, errors.New("not a list of key=value")
		}
		value, left, err := valueXFCC(after)
		if err != nil {
			return nil, err
		}
		switch key {
		case "by", "uri", "dns":
		case "hash", "cert", "chain", "subject":
			if len(out[key]) > 0 {
				return nil, fmt.Errorf("two values of %s", key)
			}
		default:
			return nil, fmt.Errorf("unknown key %.32q", key)
		}
		out[key] = append(out[key], value)
		switch {
		case left == "":
			return out, nil
		case left[0] == ',':
			return nil, errors.New("more than one certificate; have the proxy replace the header (SANITIZE_SET), not append to it")
		}
		rest = left[1:]
	}
}

// valueXFCC returns the value at the beginning of text and what follows it: nothing, or
// something that begins with a semicolon or a comma.
func valueXFCC(text string) (value, left string, err error) {
	if !strings.HasPrefix(text, `"`) {
		end := strings.IndexAny(text, ";,")
		if end < 0 {
			end = len(text)
		}
		if strings.ContainsAny(text[:end], `"=\ `) {
			return "", "", errors.New("a value that should be in quotes")
		}
		return text[:end], text[end:], nil
	}
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch c := text[i]; c {
		case '"':
			left = text[i+1:]
			if left != "" && left[0] != ';' && left[0] != ',' {
				return "", "", errors.New("text after a closing quote")
			}
			return b.String(), left, nil
		case '\\':
			i++
			if i == len(text) || text[i] != '"' && text[i] != '\\' {
				return "", "", errors.New("an unknown escape in quotes")
			}
			b.WriteByte(text[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", "", errors.New("a quote that is not closed")
}

// chain returns the certificates of Cert and Chain, which begin with the client's.
func (e elements) chain() ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for _, key := range []string{"chain", "cert"} {
		if len(e[key]) == 0 || e[key][0] == "" {
			continue
		}
		list, err := readPEM(e[key][0])
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s: %w", key, err)
		case chain == nil:
			chain = list
		case !list[0].Equal(chain[0]):
			return nil, errors.New("cert and chain are of different clients")
		}
		if key == "cert" && len(list) != 1 {
			return nil, fmt.Errorf("cert: %d certificates", len(list))
		}
	}
	if chain == nil {
		return nil, errors.New("neither Cert nor Chain; have the proxy send one of them, because client_ca_file is set")
	}
	return chain, nil
}

// readPEM reads certificates in PEM, percent-encoded: a plus sign is itself.
func readPEM(text string) ([]*x509.Certificate, error) {
	plain, err := url.PathUnescape(text)
	if err != nil {
		return nil, err
	}
	var list []*x509.Certificate
	for data := []byte(plain); len(data) > 0; {
		block, rest := pem.Decode(data)
		if block == nil || block.Type != "CERTIFICATE" || !strings.HasPrefix(string(data), "-----BEGIN") {
			return nil, errors.New("not certificates in PEM alone")
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		if list = append(list, c); len(list) > maxForwarded {
			return nil, fmt.Errorf("more than %d certificates", maxForwarded)
		}
		data = rest
	}
	if len(list) == 0 {
		return nil, errors.New("no certificate")
	}
	return list, nil
}

// reported returns a certificate of nothing but the names that the proxy reports.
func (e elements) reported() (*certificate, error) {
	c := &certificate{leaf: &x509.Certificate{}}
	for _, text := range e["uri"] {
		if text == "" {
			continue
		}
		u, err := url.Parse(text)
		if err != nil || u.String() != text {
			return nil, fmt.Errorf("x-forwarded-client-cert: URI %.64q is malformed", text)
		}
		c.leaf.URIs = append(c.leaf.URIs, u)
	}
	for _, text := range e["dns"] {
		if text != "" {
			c.leaf.DNSNames = append(c.leaf.DNSNames, text)
		}
	}
	if hash := e["hash"]; len(hash) > 0 {
		raw, err := hex.DecodeString(hash[0])
		if err != nil || len(raw) != 32 {
			return nil, errors.New("x-forwarded-client-cert: Hash is not a SHA-256 sum in hexadecimal")
		}
		c.sha256 = strings.ToLower(hash[0])
	}
	return c, nil
}
