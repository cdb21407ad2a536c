package dpop

import (
	"errors"
	"strings"
)

// normalURI returns the scheme, the host and the path of an absolute http URI in
// normal form (RFC 3986 sections 6.2.2 and 6.2.3), so that two spellings of one
// resource are equal and those of two are not. Query and fragment do not count
// (RFC 9449 section 4.3).
func normalURI(uri string) (string, error) {
	scheme, rest, ok := strings.Cut(uri, "://")
	if !ok {
		return "", errors.New("htu is not an absolute URI")
	}
	if end := strings.IndexAny(rest, "?#"); end >= 0 {
		rest = rest[:end]
	}
	host, path := rest, ""
	if slash := strings.IndexByte(rest, '/'); slash >= 0 {
		host, path = rest[:slash], rest[slash:]
	}
	scheme = strings.ToLower(scheme)
	if scheme != "https" && scheme != "http" || host == "" || strings.Contains(host, "@") {
		return "", errors.New("htu is not an http URI with a host and without a user")
	}
	path, err := normalPath(path)
	return scheme + "://" + normalHost(scheme, host) + path, err
}

// normalHost folds the case and leaves out the scheme's own port.
func normalHost(scheme, host string) string {
	host = strings.TrimSuffix(strings.ToLower(host), ":")
	port := ":443"
	if scheme == "http" {
		port = ":80"
	}
	return strings.TrimSuffix(host, port)
}

// normalPath decodes the octets that need no escape, writes the others with upper
// case digits, and removes dot segments.
func normalPath(path string) (string, error) {
	if path == "" {
		return "/", nil
	}
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c != '%' {
			b.WriteByte(c)
			continue
		}
		if i+2 >= len(path) || unhex(path[i+1]) < 0 || unhex(path[i+2]) < 0 {
			return "", errors.New("htu has a broken escape")
		}
		if c = byte(unhex(path[i+1])<<4 | unhex(path[i+2])); unreserved(c) { //nolint:gosec // two digits are a byte
			b.WriteByte(c)
		} else {
			b.WriteString(strings.ToUpper(path[i : i+3]))
		}
		i += 2
	}
	return removeDots(b.String()), nil
}

// removeDots is RFC 3986 section 5.2.4 for a path that begins with a slash.
func removeDots(path string) string {
	if !strings.Contains(path, "/.") {
		return path
	}
	var out []string
	segments := strings.Split(path, "/")[1:]
	for i, s := range segments {
		last := i == len(segments)-1
		switch s {
		case "..":
			if len(out) > 0 {
				out = out[:len(out)-1]
			}
		case ".":
		default:
			out = append(out, s)
			continue
		}
		if last {
			out = append(out, "")
		}
	}
	return "/" + strings.Join(out, "/")
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// unreserved is RFC 3986 section 2.3.
func unreserved(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || strings.IndexByte("-._~", c) >= 0
}
