package session_test

import (
	"slices"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/session"
)

// TestTagged: things of one purpose do not take each other's cookies, and neither do
// those of a purpose whose name begins alike.
func TestTagged(t *testing.T) {
	c := session.NewCookies("login-corp", "")
	names := map[string]string{}
	for tag, cookies := range map[string]*session.Cookies{
		"": c, "a1": c.Tagged("a1"), "b2": c.Tagged("b2"), "other": session.NewCookies("login-corp-x", "").Tagged("a1"),
	} {
		r := &authn.Request{Scheme: "https"}
		if err := cookies.Write(r, "value-of-"+tag, time.Minute); err != nil {
			t.Fatal(err)
		}
		for _, h := range r.Response {
			if h.Name == "set-cookie" {
				names[tag] = h.Value[:len(h.Value)-len("; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=60")]
			}
		}
	}
	header := names["b2"] + "; " + names["other"] + "; " + names[""] + "; " + names["a1"] + "; __Host-sallyport-login-corp~=x; __Host-sallyport-login-corp~é=x"
	r := &authn.Request{Scheme: "https", Headers: []authz.Header{{Name: "cookie", Value: header}}}
	if got := c.Tags(r, 9); !slices.Equal(got, []string{"b2", "a1"}) {
		t.Errorf("tags %q", got)
	}
	if got := c.Tags(r, 1); !slices.Equal(got, []string{"b2"}) {
		t.Errorf("one tag is %q", got)
	}
	for tag, cookies := range map[string]*session.Cookies{"": c, "a1": c.Tagged("a1"), "b2": c.Tagged("b2")} {
		if got := cookies.Read(r); got != "value-of-"+tag {
			t.Errorf("%q reads %q", tag, got)
		}
	}
	if got := c.Tagged("c3").Read(r); got != "" {
		t.Errorf("a tag that is not there reads %q", got)
	}
}
