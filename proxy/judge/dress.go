package judge

import (
	"errors"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/template"
)

// dress gives an answer of the gateway's own the look that its route wants. The
// status and the fields of the protocol stay. Templates that fail leave the answer
// as it is: it refuses either way.
func (v *Verdict) dress(a *Answer, message string) {
	if v.Route == nil || v.Route.Errors == nil {
		return
	}
	headers, body, own, err := v.Route.Errors.Render(template.Failure{
		Status: a.Status, Message: message, RequestID: v.Input.Request.ID,
		Token: tokenFault(v.Err), Headers: v.Input.Request.Headers,
	})
	if err != nil {
		v.Err = errors.Join(v.Err, err)
		return
	}
	if own {
		a.Body = body
		a.set("content-type", "text/plain; charset=utf-8")
		a.set("x-content-type-options", "nosniff")
	}
	for _, h := range headers {
		a.set(h.Name, h.Value)
	}
}

// tokenFault says what is wrong with a token as far as clients may know.
func tokenFault(err error) (bits uint32) {
	for _, f := range [...]struct {
		err error
		bit uint32
	}{
		{authn.ErrMalformed, template.Malformed},
		{authn.ErrSignature, template.SignatureInvalid},
		{authn.ErrAudience, template.Audience},
		{authn.ErrExpired, template.Expired},
		{authn.ErrIssuer, template.Issuer},
		{authn.ErrNotYetValid, template.NotValidYet},
	} {
		if errors.Is(err, f.err) {
			bits |= f.bit
		}
	}
	return bits
}
