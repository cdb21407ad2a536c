package dpop

import (
	"net/url"
	"strings"
	"testing"
)

// FuzzURI: no URI panics. A normal form is its own normal form, has no dot segment, and
// names the same host as the URI does to the standard library.
func FuzzURI(f *testing.F) {
	for _, seed := range []string{
		"https://api.example.com/a?b#c", "HTTP://API:80/%7ea/%2f/./../b//c", "https://[::1]:443/a", "https://a:/%zz", "https://a/%2e%2e/%2E/x",
		"https://user@a/", "https://a\\b/c", "http://a/..", "://", "https://",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		normal, err := normalURI(uri)
		if err != nil {
			return
		}
		asRead, err := url.Parse(uri)
		_, rest, _ := strings.Cut(normal, "://")
		host, path, _ := strings.Cut(rest, "/")
		if err != nil || host == "" || strings.TrimLeft(host, "abcdefghijklmnopqrstuvwxyz0123456789.-_") != "" {
			return // no request has such a host, but for ports and IPv6
		}
		if again, err := normalURI(normal); err != nil || again != normal {
			t.Errorf("%q: %q, whose normal form is %q, %v", uri, normal, again, err)
		}
		if back, err := url.Parse(normal); err != nil || !strings.EqualFold(back.Hostname(), asRead.Hostname()) || back.Path == "" {
			t.Errorf("%q: %q is of another host or has no path: %v", uri, normal, err)
		}
		for segment := range strings.SplitSeq(path, "/") {
			if segment == "." || segment == ".." {
				t.Errorf("%q: %q has a dot segment", uri, normal)
			}
		}
	})
}
