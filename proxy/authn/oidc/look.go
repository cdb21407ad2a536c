package oidc

import (
	"crypto"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html"
	"html/template"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sallyport/sallyport/engine/setting"
)

// Pages is how the pages look that people see: to choose between providers, to log
// out, and where a login ended.
type Pages struct {
	// Title is the name of the site. It stands at the top of each page and in the
	// title of its window.
	Title string `yaml:"title"`
	// LogoFile is a picture beside the title: SVG, PNG, JPEG, GIF or WebP of at most
	// 128 KiB. It travels inside the page.
	LogoFile string `yaml:"logo_file" sallyport:"path"`
	// StyleFile is CSS of at most 128 KiB that is added to the built-in style. What it
	// refers to must be a data: URL, since the pages load nothing.
	StyleFile string `yaml:"style_file" sallyport:"path"`
	// Footer is a text at the bottom of each page.
	Footer string `yaml:"footer"`
	// Language is the language of the texts as BCP 47 names it, en by default. A
	// browser reads them aloud in it.
	Language string `yaml:"language"`
	// Texts replace what the pages say, by key: choose_title, choose_body,
	// logout_title, logout_body, logout_button, logout_link, logged_out_title,
	// logged_out_body, logged_out_link, restart_title, restart_body, restart_link,
	// denied_title, denied_body, denied_link, later_title, later_body, later_link,
	// unable_title, unable_body, unable_link, origin_title, origin_body and request_id.
	Texts map[string]string `yaml:"texts"`
	// TemplateFile is an HTML template in place of the built-in one, as Go's
	// html/template reads it, of at most 128 KiB. It gets .Page (choose, logout,
	// logged_out, restart, denied, later, unable or origin), .Language, .Site, .Logo, .Style,
	// .Title, .Body, .Choices (each with .Link and .Label), .Action, .Token and .Button
	// of the logout form, .Link and .Label, .RequestLabel and .RequestID, and .Footer.
	TemplateFile string `yaml:"template_file" sallyport:"path"`
}

// texts are what the pages say.
func texts() map[string]string {
	return map[string]string{
		"choose_title":     "Log in",
		"choose_body":      "Choose where to log in.",
		"logout_title":     "Log out?",
		"logout_body":      "You will have to log in again to come back.",
		"logout_button":    "Log out",
		"logout_link":      "Stay logged in",
		"logged_out_title": "You are logged out",
		"logged_out_body":  "Close the browser if others use this computer.",
		"logged_out_link":  "Log in again",
		"restart_title":    "Please log in again",
		"restart_body":     "The login took too long, or was not completed.",
		"restart_link":     "Begin again",
		"denied_title":     "Access denied",
		"denied_body":      "The login does not give access to this page.",
		"denied_link":      "Back to the start",
		"later_title":      "Login is not possible now",
		"later_body":       "Please try again in a moment.",
		"later_link":       "Try again",
		"unable_title":     "Login is not possible",
		"unable_body":      "The login service does not accept this site's request. Its operator has to mend that.",
		"unable_link":      "Try again",
		"origin_title":     "Login is not possible here",
		"origin_body":      "This address is not set up for logging in.",
		"request_id":       "Request:",
	}
}

func (p *Pages) validate() error {
	var errs []error
	known := texts()
	for _, key := range slices.Sorted(maps.Keys(p.Texts)) {
		if _, ok := known[key]; !ok {
			errs = append(errs, setting.Problemf("texts."+key, "is not a text of these pages; they are %s", strings.Join(slices.Sorted(maps.Keys(known)), ", ")))
		} else if strings.TrimSpace(p.Texts[key]) == "" {
			errs = append(errs, setting.Problemf("texts."+key, "is empty: people would not know what it is for"))
		}
	}
	if !languageTag(p.Language) {
		errs = append(errs, setting.Problemf("language", "%q is not a language such as en or pt-BR", p.Language))
	}
	if p.LogoFile != "" && strings.TrimSpace(p.Title) == "" {
		errs = append(errs, setting.Problemf("title", "is missing: who does not see the logo needs the name"))
	}
	return errors.Join(errs...)
}

// languageTag reports whether s looks like a tag of BCP 47, or is empty.
func languageTag(s string) bool {
	for i, part := range strings.Split(s, "-") {
		if s == "" {
			return true
		}
		alien := strings.ContainsFunc(part, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (i == 0 || r < '0' || r > '9')
		})
		if alien || part == "" || len(part) > 8 || i == 0 && len(part) < 2 {
			return false
		}
	}
	return true
}

func (p *Pages) files() []string {
	return slices.DeleteFunc([]string{p.LogoFile, p.StyleFile, p.TemplateFile}, func(f string) bool { return f == "" })
}

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

// look is what Pages make of the pages.
type look struct {
	site, footer, language string
	texts                  map[string]string
	logo                   template.URL
	style                  template.HTML
	hash                   string // of the style's text, as a content security policy names it
	page                   *template.Template
}

// newLook reads the files of p, and an unreadable one is an error.
func newLook(p Pages) (*look, error) {
	l := &look{site: p.Title, footer: p.Footer, language: p.Language, texts: texts()}
	if l.language == "" {
		l.language = "en"
	}
	maps.Copy(l.texts, p.Texts)
	var err error
	if l.logo, err = loadLogo(p.LogoFile); err != nil {
		return nil, fmt.Errorf("pages: logo_file: %w", err)
	}
	css, err := loadText(p.StyleFile)
	if err == nil && strings.Contains(strings.ToLower(css), "</style") {
		err = fmt.Errorf("%s ends the style element; it is CSS and no HTML", p.StyleFile)
	}
	if err != nil {
		return nil, fmt.Errorf("pages: style_file: %w", err)
	}
	// A browser hashes what the parser leaves of it: line ends are one character.
	css = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(pageCSS + css)
	l.style = template.HTML("<style>" + css + "</style>") //nolint:gosec // CSS of ours and of the operator, which cannot end the element
	l.hash = "sha256-" + base64.StdEncoding.EncodeToString(digest(crypto.SHA256, []byte(css)))
	source, err := loadText(p.TemplateFile)
	if p.TemplateFile == "" {
		source = pageHTML
	}
	if err == nil {
		l.page, err = template.New("page").Parse(source)
	}
	if err == nil {
		err = l.try()
	}
	if err != nil {
		return nil, fmt.Errorf("pages: template_file: %w", err)
	}
	return l, nil
}

// maxPart bounds each file of a page in bytes: each page has all of them in it.
const maxPart = 128 << 10

func loadPart(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, err
	}
	if len(data) > maxPart {
		return nil, fmt.Errorf("%s has %d bytes; at most %d travel with each page", file, len(data), maxPart)
	}
	return data, nil
}

func loadText(file string) (string, error) {
	data, err := loadPart(file)
	if err == nil && (!utf8.Valid(data) || strings.ContainsRune(string(data), 0)) {
		err = fmt.Errorf("%s is not UTF-8 text", file)
	}
	return string(data), err
}

// loadLogo returns a picture as a data: URL. Scripts in an SVG do not run in an img
// element.
func loadLogo(file string) (template.URL, error) {
	data, err := loadPart(file)
	if err != nil || file == "" {
		return "", err
	}
	media := http.DetectContentType(data)
	if text := string(data); strings.HasPrefix(media, "text/") && strings.Contains(text, "<svg") {
		media = "image/svg+xml"
	}
	if !slices.Contains([]string{"image/svg+xml", "image/png", "image/jpeg", "image/gif", "image/webp"}, media) {
		return "", fmt.Errorf("%s is %s and not SVG, PNG, JPEG, GIF or WebP", file, media)
	}
	return template.URL("data:" + media + ";base64," + base64.StdEncoding.EncodeToString(data)), nil //nolint:gosec // base64 ends no attribute
}

// try makes each page once: a template that fails, or leaves out what a person needs
// to go on, is an error now and not when the person is there.
func (l *look) try() error {
	for _, page := range []page{pageChoose, pageLogout, pageOut, pageRestart, pageDenied, pageLater, pageUnable, pageOrigin} {
		d := pageData{Action: "/try/logout", Token: "try-token", Choices: []choice{{"/try/a", "Try a"}, {"/try/b", "Try b"}}, Link: "/try/on"}
		switch page {
		case pageChoose:
			d.Action, d.Token, d.Link = "", "", ""
		case pageLogout:
			d.Choices = nil
		default:
			d.Action, d.Token, d.Choices = "", "", nil
		}
		body, err := l.execute(page, d)
		if err != nil {
			return err
		}
		text := html.UnescapeString(string(body))
		want := []string{d.Action, d.Token, l.texts[string(page)+"_title"]}
		for _, c := range d.Choices {
			want = append(want, c.Link, c.Label)
		}
		for _, w := range want {
			if !strings.Contains(text, w) {
				return fmt.Errorf("page %s lacks %q: a template has .Title, the .Link and .Label of all .Choices, and a form with .Action and .Token", page, w)
			}
		}
	}
	return nil
}
