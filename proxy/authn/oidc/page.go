package oidc

import (
	"bytes"
	"html/template"
	"net/url"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
)

// text is what a page says.
type text struct{ Title, Body, Link, Label string }

var (
	pageRestart = text{"Please log in again", "The login took too long, or was begun in another window.", "/", "Begin again"}
	pageDenied  = text{"Access denied", "The login does not give access to this page.", "/", "Back to the start"}
	pageLater   = text{"Login is not possible now", "Please try again in a moment.", "/", "Try again"}
	pageUnable  = text{"Login is not possible", "The login service does not accept this site's request. Its operator has to mend that.", "/", "Try again"}
	pageOrigin  = text{"Login is not possible here", "This address is not set up for logging in.", "", ""}
	pageOut     = text{"You are logged out", "Close the browser if others use this computer.", "/", "Log in again"}
)

// The pages work without scripts, styles and pictures, so that nothing but text is
// allowed on them.
var pages = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{{.Title}}</title></head>
<body><main>
<h1>{{.Title}}</h1>
<p>{{.Body}}</p>
{{with .Action}}<form method="post" action="{{.}}"><input type="hidden" name="token" value="{{$.Token}}"><button>Log out</button></form>
{{end}}{{if .Choices}}<ul>{{range .Choices}}<li><a href="{{.Link}}">{{.Label}}</a></li>
{{end}}</ul>
{{end}}{{if .Link}}<p><a href="{{.Link}}">{{.Label}}</a></p>
{{end}}</main></body>
</html>
`))

// choice is one of several providers.
type choice struct{ Link, Label string }

type pageData struct {
	text
	Action, Token string
	Choices       []choice
}

func (a *Authenticator) page(_ *authn.Request, status int, t text, why string) *authn.Answer {
	return render(status, pageData{text: t}, "", why)
}

// render makes an answer of a page. Forms may go to our own origin, and on from there
// to target, the provider's, if there is one.
func render(status int, d pageData, target, why string) *authn.Answer {
	var b bytes.Buffer
	if err := pages.Execute(&b, d); err != nil {
		b.Reset() // cannot happen: the template and its data are ours
	}
	form := "'self'"
	if u, err := url.Parse(target); err == nil && u.Host != "" {
		form += " " + u.Scheme + "://" + u.Host
	}
	a := &authn.Answer{Status: status, Body: b.Bytes(), Why: why, Headers: []authz.Header{
		{Name: "content-type", Value: "text/html; charset=utf-8"},
		{Name: "content-security-policy", Value: "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action " + form},
		{Name: "x-content-type-options", Value: "nosniff"},
		{Name: "referrer-policy", Value: "no-referrer"},
		{Name: "cache-control", Value: "no-store"},
	}}
	if status == 503 {
		a.Headers = append(a.Headers, authz.Header{Name: "retry-after", Value: "5"})
	}
	return a
}

func redirect(status int, to, why string) *authn.Answer {
	return &authn.Answer{Status: status, Why: why, Headers: []authz.Header{
		{Name: "location", Value: to},
		{Name: "cache-control", Value: "no-store"},
		{Name: "referrer-policy", Value: "no-referrer"},
	}}
}
