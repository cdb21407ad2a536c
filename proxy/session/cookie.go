package session

import (
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
)

const (
	// chunkSize is how many bytes of a value go into one cookie: browsers keep 4096
	// bytes of name, value and attributes (RFC 6265 section 6.1).
	chunkSize = 3800
	// maxChunks bounds what a session costs with each request, and stays below the
	// header limit that listeners have by default.
	maxChunks = 5
)

// Cookies reads and writes the cookies of one purpose. A value that is too long for
// one of them is cut into several.
type Cookies struct {
	secure, plain string // names
	domain        string
}

// NewCookies makes cookies whose names end in name. With a domain, hosts below it get
// them too, and whoever controls one of those can replace them.
func NewCookies(name, domain string) *Cookies {
	name = cookieName(name)
	c := &Cookies{secure: "__Host-sallyport-" + name, plain: "sallyport-insecure-" + name, domain: domain}
	if domain != "" {
		c.secure = "__Secure-sallyport-" + name
	}
	return c
}

// cookieName writes what is not a letter, digit or hyphen as hexadecimal digits, so
// that no two names become one.
func cookieName(name string) string {
	var b strings.Builder
	for i := range len(name) {
		switch c := name[i]; {
		case c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-':
			b.WriteByte(c)
		default:
			b.WriteString("_" + hex.EncodeToString([]byte{c}))
		}
	}
	return b.String()
}

// Protected reports whether the browser of a request keeps a cookie to itself: over
// https, or on its own machine, where there is no network to listen on.
func Protected(r *authn.Request) bool { return r.Scheme == "https" || Loopback(r.Host) }

// Loopback reports whether host, which may have a port, is the machine itself.
func Loopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// name is the one for the request's scheme. A name that begins with __Host- says to
// the browser that it is to be Secure, of this host alone, and for every path; where
// that cannot be had the name says so.
func (c *Cookies) name(r *authn.Request) string {
	if r.Scheme == "https" {
		return c.secure
	}
	return c.plain
}

// Read puts the value together; it is empty if there is none, or not all of it. It
// marks what it found as spent, so that none of it reaches an upstream.
func (c *Cookies) Read(r *authn.Request) string {
	header := r.Header("cookie")
	if header == "" || !strings.Contains(header, c.name(r)) {
		return ""
	}
	var parts [maxChunks]string
	name, bad := c.name(r), false
	each(header, name, func(full string, i int, value string) {
		r.SpendCookie(full)
		if i < 0 || i >= maxChunks || parts[i] != "" {
			bad = true // somebody else set one beside ours
			return
		}
		parts[i] = value
	})
	count, first, ok := strings.Cut(parts[0], ".")
	n, err := strconv.Atoi(count)
	if bad || !ok || err != nil || n < 1 || n > maxChunks {
		return ""
	}
	parts[0] = first
	if slices.Contains(parts[:n], "") {
		return ""
	}
	return strings.Join(parts[:n], "")
}

// each calls f for the cookies called name, name.1, name.2 and so on. The number is
// -1 if there is one and it is not written as we write it.
func each(header, name string, f func(full string, i int, value string)) {
	for pair := range strings.SplitSeq(header, ";") {
		full, value, _ := strings.Cut(strings.Trim(pair, " \t"), "=")
		full = strings.Trim(full, " \t")
		rest, ours := strings.CutPrefix(full, name)
		switch {
		case !ours:
		case rest == "":
			f(full, 0, value)
		case rest[0] == '.':
			i, err := strconv.Atoi(rest[1:])
			if err != nil || i < 1 || strconv.Itoa(i) != rest[1:] {
				i = -1
			}
			f(full, i, value)
		}
	}
}

// Write has the browser keep value for a time, and forget what the request has
// beyond it.
func (c *Cookies) Write(r *authn.Request, value string, keep time.Duration) error {
	n := (len(value) + chunkSize - 1) / chunkSize
	if n > maxChunks {
		return fmt.Errorf("%w (%d bytes)", ErrTooLarge, len(value))
	}
	name := c.name(r)
	c.forget(r, n)
	for i := range n {
		part := value[i*chunkSize : min(len(value), (i+1)*chunkSize)]
		if i == 0 {
			c.set(r, name, strconv.Itoa(n)+"."+part, keep)
			continue
		}
		c.set(r, name+"."+strconv.Itoa(i), part, keep)
	}
	return nil
}

// Clear has the browser forget the cookies.
func (c *Cookies) Clear(r *authn.Request) { c.forget(r, 0) }

// forget clears those that the request has, from the one numbered first on.
func (c *Cookies) forget(r *authn.Request, first int) {
	var names []string
	each(r.Header("cookie"), c.name(r), func(full string, i int, _ string) {
		if (i < 0 || i >= first) && len(names) < 2*maxChunks && !slices.Contains(names, full) && tokenOnly(full) {
			names = append(names, full)
		}
	})
	for _, full := range names {
		c.set(r, full, "", -1)
	}
}

// tokenOnly keeps what a client wrote out of our response unless it is a plain name.
func tokenOnly(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`()<>@,;:\"/[]?={}`, r) })
}

// set replaces what this response says of the cookie so far.
func (c *Cookies) set(r *authn.Request, name, value string, keep time.Duration) {
	r.Response = slices.DeleteFunc(r.Response, func(h authz.Header) bool {
		return h.Name == "set-cookie" && strings.HasPrefix(h.Value, name+"=")
	})
	text := name + "=" + value + "; Path=/; HttpOnly; SameSite=Lax"
	if r.Scheme == "https" {
		text += "; Secure"
		if c.domain != "" {
			text += "; Domain=" + c.domain
		}
	}
	switch {
	case keep < 0:
		text += "; Max-Age=0"
	case keep > 0:
		text += "; Max-Age=" + strconv.Itoa(int(keep/time.Second))
	}
	r.Response = append(r.Response, authz.Header{Name: "set-cookie", Value: text})
	uncached := authz.Header{Name: "cache-control", Value: `no-cache="set-cookie"`}
	if !slices.Contains(r.Response, uncached) {
		r.Response = append(r.Response, uncached) // a shared cache must not hand our cookie to the next
	}
}
