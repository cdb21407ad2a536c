package oidctest

import (
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Browser is somebody at a browser: a cookie jar, and forms that are filled in.
type Browser struct {
	Client *http.Client
	Logins int // forms filled in with a name

	t testing.TB
}

// NewBrowser returns one that reaches servers by a transport.
func NewBrowser(t testing.TB, by http.RoundTripper) *Browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Jar: jar, Transport: by, Timeout: patience}
	t.Cleanup(c.CloseIdleConnections)
	return &Browser{t: t, Client: c}
}

// Page is what a browser shows.
type Page struct {
	Status int
	URL    *url.URL
	Text   string
	Way    []*url.URL // where it was redirected to, the last of which is URL
}

// Do sends a request as a browser that navigates, and follows where it leads.
func (b *Browser) Do(req *http.Request) Page {
	b.t.Helper()
	req.Header.Set("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
	resp, err := b.Client.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return Page{resp.StatusCode, resp.Request.URL, string(body), way(resp.Request)}
}

// way returns where redirects led to that end with a request.
func way(last *http.Request) []*url.URL {
	var out []*url.URL
	for r := last; r.Response != nil; r = r.Response.Request {
		out = append(out, r.URL)
	}
	slices.Reverse(out)
	return out
}

// Get goes to an address.
func (b *Browser) Get(to string) Page {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, to, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.Do(req)
}

var (
	formTag   = regexp.MustCompile(`(?s)<form[^>]*action="([^"]*)"[^>]*>(.*?)</form>`)
	inputTag  = regexp.MustCompile(`<(?:input|button)[^>]*>`)
	attribute = regexp.MustCompile(`(name|value)="([^"]*)"`)
)

// Submit fills in the first form of a page and sends it.
func (b *Browser) Submit(at Page, fill map[string]string) Page {
	b.t.Helper()
	form := formTag.FindStringSubmatch(at.Text)
	if form == nil {
		b.t.Fatalf("%s has no form: %d %s", at.URL, at.Status, at.Text)
	}
	values := fields(form[2])
	for name, value := range fill {
		values.Set(name, value)
	}
	to, err := at.URL.Parse(html.UnescapeString(form[1]))
	if err != nil {
		b.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, to.String(), strings.NewReader(values.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", at.URL.Scheme+"://"+at.URL.Host)
	return b.Do(req)
}

// fields returns what a form has in it.
func fields(form string) url.Values {
	values := url.Values{}
	for _, tag := range inputTag.FindAllString(form, -1) {
		found := map[string]string{}
		for _, a := range attribute.FindAllStringSubmatch(tag, -1) {
			found[a[1]] = html.UnescapeString(a[2])
		}
		if found["name"] != "" {
			values.Set(found["name"], found["value"])
		}
	}
	return values
}

// LogIn goes through the provider's pages as alice until a host answers.
func (b *Browser) LogIn(at Page, host string) Page {
	b.t.Helper()
	for range 5 {
		if at.URL.Host == host {
			return at
		}
		var fill map[string]string
		if strings.Contains(at.Text, `name="login"`) {
			b.Logins++
			fill = map[string]string{"login": "alice", "password": "x"}
		}
		at = b.Submit(at, fill)
	}
	b.t.Fatalf("still at %s: %d %s", at.URL, at.Status, at.Text)
	return at
}
