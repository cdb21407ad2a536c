package dpop

import (
	"testing"

	"github.com/sallyport/sallyport/proxy/redis"
)

func TestNormalURI(t *testing.T) {
	for _, tt := range []struct{ uri, want string }{
		{"https://api.example.com", "https://api.example.com/"},
		{"https://api.example.com?x", "https://api.example.com/"},
		{"https://api.example.com:443/a", "https://api.example.com/a"},
		{"https://api.example.com:/a", "https://api.example.com/a"},
		{"http://api.example.com:80/a", "http://api.example.com/a"},
		{"http://api.example.com:443/a", "http://api.example.com:443/a"},
		{"http://[::1]:8080/a", "http://[::1]:8080/a"},
		{"HTTP://API/%7ea/%2f%c3%a4", "http://api/~a/%2F%C3%A4"},
		{"http://a/b/./c/../d", "http://a/b/d"},
		{"http://a/b/%2e%2e/c/.", "http://a/c/"},
		{"http://a/../..", "http://a/"},
		{"http://a//b", "http://a//b"},
		{"http://a/%", ""},
		{"http://a/%2", ""},
		{"http://a/%zz", ""},
		{"ftp://a/b", ""},
		{"https:///b", ""},
		{"//a/b", ""},
		{"", ""},
	} {
		got, err := normalURI(tt.uri)
		if err == nil && got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("%s: got %q, %v, want %q", tt.uri, got, err, tt.want)
		}
	}
}

func TestValidate(t *testing.T) {
	if err := (Config{}).Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	for name, c := range map[string]Config{
		"symmetric":       {Algorithms: []string{"ES256", "HS256"}},
		"none":            {Algorithms: []string{"none"}},
		"no algorithm":    {Algorithms: []string{}},
		"window too long": {Window: maxWindow + 1},
		"window negative": {Window: -1},
		"no memory":       {ReplayEntries: -1},
		"no share":        {ReplayEntriesPerKey: -1},
		"no Redis":        {ReplayRedis: &redis.Config{}},
	} {
		if err := c.Validate(); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
