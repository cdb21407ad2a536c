package oidc

import (
	"bytes"
	"html/template"
	"log/slog"
	"net/url"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
)

// page is one of those that people see. What it says is in the look, by its name.
type page string

const (
	pageChoose  page = "choose"
	pageLogout  page = "logout"
	pageOut     page = "logged_out"
	pageRestart page = "restart"
	pageDenied  page = "denied"
	pageLater   page = "later"
	pageUnable  page = "unable"
	pageOrigin  page = "origin"
)

// choice is one of several providers.
type choice struct{ Link, Label string }

// pageData is what a template gets.
type pageData struct {
	Page, Language, Site, Footer string
	Logo                         template.URL
	Style                        template.HTML
	Title, Body                  string
	Choices                      []choice
	Action, Token, Button        string // of the logout form
	Link, Label                  string // where to go on; no page needs it
	RequestLabel, RequestID      string // on pages that tell of an error
}

// execute fills in what the look says of a page.
func (l *look) execute(p page, d pageData) ([]byte, error) {
	of := func(part string) string { return l.texts[string(p)+"_"+part] }
	d.Page, d.Language, d.Site, d.Footer, d.Logo, d.Style = string(p), l.language, l.site, l.footer, l.logo, l.style
	d.Title, d.Body, d.Button, d.Label, d.RequestLabel = of("title"), of("body"), of("button"), of("link"), l.texts["request_id"]
	if d.Label == "" {
		d.Link = ""
	}
	var b bytes.Buffer
	err := l.page.Execute(&b, d)
	return b.Bytes(), err
}

// page answers with a page that leads to the start.
func (a *Authenticator) page(r *authn.Request, status int, p page, why string) *authn.Answer {
	return a.render(r, status, p, pageData{Link: "/"}, why)
}

// render makes an answer of a page. Pages work without scripts and load nothing: the
// style and the logo are inside, and the policy names the style's hash. Forms lead
// nowhere but to targets.
func (a *Authenticator) render(r *authn.Request, status int, p page, d pageData, why string, targets ...string) *authn.Answer {
	if status >= 400 && p != pageChoose {
		d.RequestID = r.ID
	}
	l := a.look.Load()
	body, err := l.execute(p, d)
	if err != nil { // it did not when the template was read; the built-in one cannot
		a.logger.Error("pages.template_file failed; the built-in page is shown", slog.String("page", string(p)), slog.String("request_id", r.ID), slog.Any("error", err))
		plain := *l
		plain.page = template.Must(template.New("page").Parse(pageHTML))
		body, _ = plain.execute(p, d)
	}
	form := " 'none'"
	if len(targets) > 0 {
		form = formAction(targets)
	}
	answer := &authn.Answer{Status: status, Body: body, Why: why, Headers: []authz.Header{
		{Name: "content-type", Value: "text/html; charset=utf-8"},
		{Name: "content-security-policy", Value: l.policy() + "; frame-ancestors 'none'; form-action" + form},
		{Name: "x-content-type-options", Value: "nosniff"},
		{Name: "referrer-policy", Value: "no-referrer"},
		{Name: "cache-control", Value: "no-store"},
	}}
	if status == 503 {
		answer.Headers = append(answer.Headers, authz.Header{Name: "retry-after", Value: "5"})
	}
	return answer
}

// policy is the part of the content security policy that all pages have.
func (l *look) policy() string {
	return "default-src 'none'; style-src '" + l.hash + "'; img-src data:; font-src data:; base-uri 'none'"
}

// formAction are the sources to which a form may lead, and on from there: browsers
// hold each redirect that follows it against this list. A provider may pass people on
// to others that it logs out of, which it does not name beforehand, so that with one
// at https every site at https is allowed.
func formAction(targets []string) string {
	sources := []string{"'self'"}
	for _, t := range targets {
		u, err := url.Parse(t)
		if err != nil || u.Host == "" {
			continue
		}
		source := u.Scheme + "://" + u.Host
		if u.Scheme == "https" {
			source = "https:"
		}
		if !slices.Contains(sources, source) {
			sources = append(sources, source)
		}
	}
	return " " + strings.Join(sources, " ")
}

// set replaces the value of a field of an answer.
func set(answer *authn.Answer, name, value string) {
	for i := range answer.Headers {
		if answer.Headers[i].Name == name {
			answer.Headers[i].Value = value
		}
	}
}

func redirect(status int, to, why string) *authn.Answer {
	return &authn.Answer{Status: status, Why: why, Headers: []authz.Header{
		{Name: "location", Value: to},
		{Name: "cache-control", Value: "no-store"},
		{Name: "referrer-policy", Value: "no-referrer"},
	}}
}
