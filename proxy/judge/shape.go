package judge

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/problem"
)

// shape is what the shape check reads out of an arrival.
type shape struct {
	path     string
	query    string
	segments []string
	room     [6]string // for segments: most paths have no more
	host     string    // lower case, without port
	port     int       // 0: the client named none
	hostport string    // as sent
}

// checkShape refuses what two readers could understand differently. It runs
// before anything else looks at the request.
func (j *Judge) checkShape(a *Arrival, s *shape) error {
	if err := j.checkMethod(a.Method); err != nil {
		return err
	}
	if err := checkHeaders(a.Headers); err != nil {
		return err
	}
	s.hostport = a.header("host")
	if err := s.parseHost(); err != nil {
		return err
	}
	if err := s.parseTarget(a.Target); err != nil {
		return err
	}
	if err := checkOptions(a, s.host); err != nil {
		return err
	}
	var err error
	s.segments, err = checkPath(s.path, a.Listener.PathParameters, s.room[:])
	return err
}

// checkOptions refuses a request for a host whose client certificates are verified by
// other settings than those of the connection: the name that the client gave in the
// handshake chose them, and nothing obliges it to ask for that host (RFC 9110 section 7.4).
func checkOptions(a *Arrival, host string) error {
	if n := a.Listener.TLSOptions; n != nil && n.Of(host) != a.TLSOptions {
		return fmt.Errorf("host %q has other TLS options than the connection: %w", clip(host), problem.ErrMisdirected)
	}
	return nil
}

func (j *Judge) checkMethod(method string) error {
	switch method {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY":
		return nil
	}
	if j.cfg.Routes.NamesMethod(method) {
		return nil
	}
	return fmt.Errorf("method %q: %w", clip(method), problem.ErrMalformed)
}

// clip keeps a client's text short in logs.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64]
	}
	return s
}

// singletons are the fields that must not be repeated: where a field occurs
// twice, one reader takes the first and another the last.
func singleton(name string) uint {
	switch name {
	case "host":
		return 1 << 0
	case "content-length":
		return 1 << 1
	case "transfer-encoding":
		return 1 << 2
	case "authorization":
		return 1 << 3
	case "proxy-authorization":
		return 1 << 4
	case "content-type":
		return 1 << 5
	case "cookie":
		return 1 << 6
	case "expect":
		return 1 << 7
	case "upgrade":
		return 1 << 8
	case "x-request-id":
		return 1 << 9
	case "x-forwarded-proto":
		return 1 << 10
	case "x-forwarded-host":
		return 1 << 11
	case "x-forwarded-client-cert":
		return 1 << 12
	case "dpop":
		return 1 << 13
	case "x-api-key":
		return 1 << 14
	case "client-cert":
		return 1 << 15
	}
	return 0
}

// nameBytes are RFC 9110 tokens without upper case, which fronts have lowered,
// and without "_", which many servers read as "-".
var isNameByte = func() (t [256]bool) {
	for c := range 256 {
		b := byte(c)
		t[c] = b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b != 0 && strings.IndexByte("!#$%&'*+-.^`|~", b) >= 0
	}
	return t
}()

func checkHeaders(headers []authz.Header) error {
	var seen uint
	for i := range headers {
		h := &headers[i]
		if err := checkName(h.Name); err != nil {
			return fmt.Errorf("header name %q: %w", clip(h.Name), err)
		}
		if err := checkValue(h.Value); err != nil {
			return fmt.Errorf("header %s: %w: %w", h.Name, err, problem.ErrMalformed)
		}
		bit := singleton(h.Name)
		if seen&bit != 0 {
			return fmt.Errorf("header %s is repeated: %w", h.Name, problem.ErrAmbiguous)
		}
		seen |= bit
	}
	return nil
}

func checkName(name string) error {
	if name == "" {
		return problem.ErrMalformed
	}
	for i := range len(name) {
		if isNameByte[name[i]] {
			continue
		}
		if name[i] == '_' {
			return problem.ErrAmbiguous
		}
		return problem.ErrMalformed
	}
	return nil
}

func checkValue(value string) error {
	high := false
	for i := plain(value); i < len(value); i++ {
		switch c := value[i]; {
		case c < 0x20 && c != '\t' || c == 0x7f:
			return errors.New("control character in the value")
		case c >= 0x80:
			high = true
		}
	}
	if high {
		return checkUTF8(value)
	}
	return nil
}

// plain is how many bytes value begins with, in words of 8, that are neither
// control characters nor beyond ASCII. Tokens are long, and all of their bytes are
// plain.
func plain(value string) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	n := 0
	for ; len(value)-n >= 8; n += 8 {
		s := value[n : n+8]
		w := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
			uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
		del := w ^ 0x7f*ones
		if ((w-0x20*ones)|(del-ones)&^del|w)&highs != 0 {
			break
		}
	}
	return n
}

// checkUTF8 refuses text that JSON cannot carry: the policy and the log would
// see something else than the upstream.
func checkUTF8(s string) error {
	if !utf8.ValidString(s) {
		return errors.New("not UTF-8")
	}
	return nil
}

func (s *shape) parseHost() error {
	host, port, err := splitHost(s.hostport)
	if err != nil {
		return fmt.Errorf("host %q: %w: %w", clip(s.hostport), err, problem.ErrAmbiguous)
	}
	s.host, s.port = host, port
	return nil
}

func splitHost(hostport string) (string, int, error) {
	host, port := hostport, ""
	if strings.HasPrefix(host, "[") {
		end := strings.IndexByte(host, ']')
		if end < 0 {
			return "", 0, errors.New("bracket is not closed")
		}
		host, port = hostport[:end+1], hostport[end+1:]
		if ip, err := netip.ParseAddr(host[1:end]); err != nil || !ip.Is6() || ip.Zone() != "" {
			return "", 0, errors.New("not an IPv6 address")
		}
	} else {
		if i := strings.IndexByte(host, ':'); i >= 0 {
			host, port = host[:i], host[i:]
		}
		if !validHost(host) {
			return "", 0, errors.New("not a host name")
		}
	}
	if port == "" {
		return strings.ToLower(host), 0, nil
	}
	n, err := strconv.ParseUint(port[1:], 10, 16)
	if err != nil || n == 0 || port[0] != ':' || port[1] == '+' {
		return "", 0, errors.New("not a port")
	}
	return strings.ToLower(host), int(n), nil
}

// validHost refuses userinfo, escapes and everything else that is not a plain
// name, and the trailing dot that makes a second spelling of every name.
func validHost(host string) bool {
	if host == "" || len(host) > 253 || host[0] == '.' || host[len(host)-1] == '.' {
		return false
	}
	for i := range len(host) {
		c := host[i]
		if c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_' || c == '.' && host[i-1] != '.' {
			continue
		}
		return false
	}
	return true
}

// parseTarget takes origin-form and absolute-form (RFC 9112 section 3.2). The
// latter must name the same authority as Host.
func (s *shape) parseTarget(target string) error {
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c >= 0x7f || c == '#' || c == '\\' {
			return fmt.Errorf("target has byte %#02x: %w", c, problem.ErrAmbiguous)
		}
	}
	if !strings.HasPrefix(target, "/") {
		rest, ok := cutScheme(target)
		if !ok {
			return fmt.Errorf("target %q is neither a path nor a URL: %w", clip(target), problem.ErrMalformed)
		}
		end := strings.IndexAny(rest, "/?")
		if end < 0 {
			end = len(rest)
		}
		if !strings.EqualFold(rest[:end], s.hostport) {
			return fmt.Errorf("target names another host than Host: %w", problem.ErrAmbiguous)
		}
		target = rest[end:]
		if !strings.HasPrefix(target, "/") {
			target = "/" + target
		}
	}
	s.path, s.query, _ = strings.Cut(target, "?")
	return nil
}

func cutScheme(target string) (string, bool) {
	scheme, rest, ok := strings.Cut(target, "://")
	return rest, ok && (strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https"))
}
