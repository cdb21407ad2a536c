package template

import (
	"errors"
	"fmt"
	"strings"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/setting"
)

// ErrorResponse is how the gateway's own answers look in place of
// application/problem+json (RFC 9457). Status and challenges stay.
type ErrorResponse struct {
	// Headers are set on the answer; their values are templates over the same data as body_template.
	Headers []Header `yaml:"headers"`
	// BodyTemplate is the body, a Go template over .message, .error (with .ValidationError.Errors, a sum of 1 malformed, 4 signature, 8 audience, 16 expired, 64 issuer, 128 not valid yet), .status_code, .httpStatus, .request_id, .requestId and .httpRequestHeader. Write what comes from requests with json.
	BodyTemplate string `yaml:"body_template"`
}

// Errors are parsed templates of an ErrorResponse. They are immutable.
type Errors struct {
	headers *Headers
	body    *text // nil: the answer keeps its own
}

// NewErrors parses the templates.
func NewErrors(c ErrorResponse) (*Errors, error) {
	e := &Errors{}
	var errs []error
	var err error
	if e.headers, err = NewHeaders(c.Headers); err != nil {
		errs = append(errs, setting.Under("headers", err))
	}
	for i, h := range c.Headers {
		if strings.EqualFold(h.Name, "www-authenticate") {
			errs = append(errs, setting.Problemf(fmt.Sprintf("headers[%d].name", i), "%q says how to authenticate, which the authenticators know", h.Name))
		}
	}
	if c.BodyTemplate != "" {
		if e.body, err = parseText(c.BodyTemplate, maxBody); err != nil {
			errs = append(errs, setting.Problemf("body_template", "%w", err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return e, nil
}

// Bits of ValidationError.Errors, as github.com/dgrijalva/jwt-go numbers them.
const (
	Malformed        uint32 = 1
	SignatureInvalid uint32 = 4
	Audience         uint32 = 8
	Expired          uint32 = 16
	Issuer           uint32 = 64
	NotValidYet      uint32 = 128
)

// Failure is what the gateway answers for.
type Failure struct {
	Status    int
	Message   string // for clients
	RequestID string
	Token     uint32 // what is wrong with a token, a sum of the bits above; 0: not a token's fault
	Headers   []authz.Header
}

// ValidationError says what is wrong with a token.
type ValidationError struct{ Errors uint32 }

// cause is .error of a template. It prints as the message.
type cause struct {
	ValidationError *ValidationError // nil when it is not a token's fault
	message         string
}

// String returns the message that clients may see.
func (c cause) String() string { return c.message }

// Render returns headers and body; without a body_template, or if it said
// doNotSet, own is false.
func (e *Errors) Render(f Failure) (headers []authz.Header, body []byte, own bool, err error) {
	why := cause{message: f.Message}
	if f.Token != 0 {
		why.ValidationError = &ValidationError{f.Token}
	}
	data := map[string]any{
		"message": f.Message, "error": why, "status_code": f.Status, "httpStatus": f.Status,
		"request_id": f.RequestID, "requestId": f.RequestID, "httpRequestHeader": RequestHeader(f.Headers),
	}
	if headers, err = e.headers.Render(data); err != nil || e.body == nil {
		return headers, nil, false, err
	}
	text, own, err := e.body.render(data)
	if err != nil {
		return nil, nil, false, fmt.Errorf("body_template: %w", err)
	}
	return headers, []byte(text), own, nil
}
