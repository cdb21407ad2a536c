package oidc

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/proxy/authn"
)

const wholeTemplate = `<title>{{.Title}}</title>{{.Style}}{{range .Choices}}<a href="{{.Link}}">{{.Label}}</a>{{end}}` +
	`{{if .Action}}<form method="post" action="{{.Action}}"><input name="token" value="{{.Token}}"></form>{{end}}`

// put writes a file of a page and returns its path.
func put(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPagesConfig(t *testing.T) {
	for name, tc := range map[string]struct {
		pages Pages
		want  string // in the error; empty: none
	}{
		"nothing":              {Pages{}, ""},
		"all":                  {Pages{Title: "Acme", Footer: "x", Language: "pt-BR", Texts: map[string]string{"later_body": "x", "request_id": "y"}}, ""},
		"a text of no page":    {Pages{Texts: map[string]string{"choose_titel": "x"}}, "pages.texts.choose_titel: is not a text of these pages; they are choose_body, choose_title,"},
		"an empty text":        {Pages{Texts: map[string]string{"choose_title": " "}}, "pages.texts.choose_title: is empty"},
		"a logo of nothing":    {Pages{LogoFile: "logo.svg"}, "pages.title: is missing"},
		"a language in words":  {Pages{Language: "English!"}, "pages.language: "},
		"a language of digits": {Pages{Language: "42"}, "pages.language: "},
		"a broken language":    {Pages{Language: "en-"}, "pages.language: "},
	} {
		c := Default()
		c.Issuer, c.ClientID, c.Pages = "https://idp.example", "web", tc.pages
		switch err := c.Validate(); {
		case tc.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

func TestPageFiles(t *testing.T) {
	svg := `<svg xmlns="http://www.w3.org/2000/svg"/>`
	for name, tc := range map[string]struct {
		pages Pages
		want  string // in the error; empty: none
	}{
		"a logo":                         {Pages{LogoFile: put(t, "l.svg", svg)}, ""},
		"an SVG that begins as XML":      {Pages{LogoFile: put(t, "l.svg", `<?xml version="1.0"?>`+svg)}, ""},
		"a PNG":                          {Pages{LogoFile: put(t, "l.png", "\x89PNG\r\n\x1a\n")}, ""},
		"a style":                        {Pages{StyleFile: put(t, "s.css", "h1 { color: red }")}, ""},
		"texts that are escaped":         {Pages{Texts: map[string]string{"choose_title": `1 + 1 < 3 & "so on"`}}, ""},
		"a template":                     {Pages{TemplateFile: put(t, "t.html", wholeTemplate)}, ""},
		"no such file":                   {Pages{LogoFile: "/nonexistent/logo.svg"}, "pages: logo_file: open"},
		"a logo that is none":            {Pages{LogoFile: put(t, "l.svg", "GIF")}, "logo_file: "},
		"a page for a logo":              {Pages{LogoFile: put(t, "l.svg", "<!doctype html><script>x</script>")}, "not SVG, PNG"},
		"a logo that is too large":       {Pages{LogoFile: put(t, "l.svg", svg+strings.Repeat(" ", maxPart))}, "at most 131072"},
		"a style that is HTML":           {Pages{StyleFile: put(t, "s.css", "h1 {} </STYLE ><script>")}, "ends the style element"},
		"a style that is no text":        {Pages{StyleFile: put(t, "s.css", "h1\xff")}, "not UTF-8"},
		"a template that is broken":      {Pages{TemplateFile: put(t, "t.html", "{{if}}")}, "pages: template_file: "},
		"a template of unknown fields":   {Pages{TemplateFile: put(t, "t.html", wholeTemplate+"{{.Secret}}")}, "can't evaluate field Secret"},
		"a template without choices":     {Pages{TemplateFile: put(t, "t.html", strings.Replace(wholeTemplate, `href="{{.Link}}"`, "", 1))}, `page choose lacks "/try/a"`},
		"a template without the token":   {Pages{TemplateFile: put(t, "t.html", strings.Replace(wholeTemplate, "{{.Token}}", "", 1))}, `page logout lacks "try-token"`},
		"a template without the message": {Pages{TemplateFile: put(t, "t.html", strings.Replace(wholeTemplate, "{{.Title}}", "", 1))}, `lacks "Log in"`},
		"an empty template":              {Pages{TemplateFile: put(t, "t.html", "")}, "lacks"},
	} {
		_, err := newLook(tc.pages)
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
	c := Default()
	c.Issuer, c.ClientID, c.Pages = "https://idp.example", "web", Pages{StyleFile: "/nonexistent/style.css"}
	if _, err := New("login", c, Deps{}); err == nil || !strings.Contains(err.Error(), "style_file") {
		t.Errorf("a file that cannot be read does not stop the start: %v", err)
	}
}

// body returns the page that ends a login which this browser did not begin.
func (b *browser) body() string {
	b.t.Helper()
	return string(b.at(b.request("GET", "/oauth2/callback?state=x&code=y")).Body)
}

// TestPagesReload: a page changes with its files, and stays as it was while they are
// broken.
func TestPagesReload(t *testing.T) {
	file := put(t, "t.html", wholeTemplate+"one")
	s := newSetup(t, func(c *Config) { c.Pages.TemplateFile = file })
	if got := s.a.Files(); got[len(got)-1] != file {
		t.Errorf("watched files %v", got)
	}
	b := s.browser()
	for _, step := range []struct {
		text, want string
		broken     bool
	}{{wholeTemplate + "one", "one", false}, {wholeTemplate + "two", "two", false}, {"{{", "two", true}, {wholeTemplate + "three", "three", false}} {
		if err := os.WriteFile(file, []byte(step.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.a.Reload(t.Context()); (err != nil) != step.broken {
			t.Errorf("%s: %v", step.text, err)
		}
		if got := b.body(); !strings.HasSuffix(got, step.want) {
			t.Errorf("%s: page %s", step.text, got)
		}
	}
}

// TestPagesEscape: texts are text, whoever wrote them.
func TestPagesEscape(t *testing.T) {
	s := newSetup(t, func(c *Config) {
		c.Pages = Pages{Title: "<i>Acme</i>", Footer: `"><script>`, Texts: map[string]string{"restart_body": "</main>"}}
	})
	r := s.browser().request("GET", "/oauth2/callback?state=x&code=y")
	r.ID = "<b>1"
	page := string(s.browser().at(r).Body)
	for _, raw := range []string{"<i>", `"><script>`, "<p></main>", "<b>1"} {
		if strings.Contains(page, raw) {
			t.Errorf("%s stands in the page as it is: %s", raw, page)
		}
	}
	if !strings.Contains(page, "&lt;i&gt;Acme") || !strings.Contains(page, "<code>&lt;b&gt;1</code>") {
		t.Errorf("page %s", page)
	}
}

// TestTemplateFailsLater: a template can fail on what the trial did not have. The
// person sees the built-in page, and the log tells.
func TestTemplateFailsLater(t *testing.T) {
	var log bytes.Buffer
	s := newSetup(t, func(c *Config) {
		c.Pages.TemplateFile = put(t, "t.html", wholeTemplate+`half a page {{if eq .RequestID "r1"}}{{index .Choices 9}}{{end}}`)
	})
	s.a.logger = slog.New(slog.NewTextHandler(&log, nil))
	page := s.browser().body()
	if strings.Contains(page, "half a page") || !strings.Contains(page, "<main>") || !strings.Contains(page, "Please log in again") {
		t.Errorf("page %s", page)
	}
	if !strings.Contains(log.String(), "template_file failed") {
		t.Errorf("log %s", log.String())
	}
}

// TestBeginAgain: who could not log in comes back to the page that was asked for.
func TestBeginAgain(t *testing.T) {
	s := newSetup(t, nil)
	for name, tc := range map[string]struct {
		change []string
		status int
		link   string
	}{
		"the provider is in trouble":    {[]string{"error", "server_error"}, http.StatusServiceUnavailable, `href="/orders?a=b&amp;c=d"`},
		"the user cancelled":            {[]string{"error", "access_denied"}, http.StatusBadRequest, `href="/orders?a=b&amp;c=d"`},
		"a login of another browser":    {[]string{"state", "x"}, http.StatusBadRequest, `href="/"`},
		"not the login, but the cookie": {[]string{"iss", "https://evil.example"}, http.StatusBadRequest, `href="/orders?a=b&amp;c=d"`},
	} {
		b := s.browser()
		a := b.at(b.back(b.begin("/orders?a=b&c=d"), tc.change...))
		if a.Status != tc.status || !strings.Contains(string(a.Body), tc.link) {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
	s.idp.set(func(f *fake) {
		f.token = func(w http.ResponseWriter, _ url.Values) bool {
			w.WriteHeader(http.StatusInternalServerError)
			return true
		}
	})
	b := s.browser()
	a := b.at(b.back(b.begin("/orders?a=b")))
	if a.Status != http.StatusServiceUnavailable || !strings.Contains(string(a.Body), `href="/orders?a=b"`) {
		t.Errorf("the token endpoint is down: %d %s", a.Status, a.Body)
	}
}

// TestChoiceLook: each provider is a link, in the order of the route, and the first
// one's look counts.
func TestChoiceLook(t *testing.T) {
	s := newSetup(t, func(c *Config) { c.Pages.Title = "Acme" })
	c := s.a.config
	c.RedirectPath, c.LoginPath, c.LogoutPath, c.FrontChannelLogoutPath, c.BackChannelLogoutPath, c.DisplayName = "/other/callback", "", "", "", "", "Other & <more>"
	c.Pages = Pages{Title: "Else"}
	other := s.open("other", c)
	b := s.browser()
	a := s.a.Greet(t.Context(), b.request("GET", "/x?a=b"), []authn.Greeter{s.a, other})
	page := string(a.Body)
	first, second := strings.Index(page, `<a href="/oauth2/login?return=%2Fx%3Fa%3Db">login</a>`), strings.Index(page, `<a href="/other/login?return=%2Fx%3Fa%3Db">Other &amp; &lt;more&gt;</a>`)
	if a.Status != http.StatusUnauthorized || first < 0 || second < first || !strings.Contains(page, "Acme") || strings.Contains(page, "Else") || strings.Contains(page, "Request:") {
		t.Errorf("%d %s", a.Status, page)
	}
}
