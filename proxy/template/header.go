package template

import (
	"errors"
	"fmt"
	"strings"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/setting"
)

// Header is a header whose value is a template.
type Header struct {
	// Name of the header.
	Name string `yaml:"name" jsonschema:"required"`
	// Value is a Go template, with the functions hasKey, doNotSet and json beside Go's own. What is missing prints nothing.
	Value string `yaml:"value"`
}

// Headers are parsed templates. They are immutable.
type Headers struct {
	names  []string // lower case
	values []*text
}

// NewHeaders parses templates. Each problem is under its index.
func NewHeaders(config []Header) (*Headers, error) {
	h := &Headers{}
	var errs []error
	seen := map[string]int{}
	for i, c := range config {
		at := fmt.Sprintf("[%d]", i)
		name := strings.ToLower(c.Name)
		if err := checkName(name); err != nil {
			errs = append(errs, setting.Problemf(at+".name", "%q %w", c.Name, err))
		} else if first, there := seen[name]; there {
			errs = append(errs, setting.Problemf(at+".name", "%q is set by [%d] too", c.Name, first))
		}
		seen[name] = i
		value, err := parseText(c.Value, maxValue)
		if err == nil {
			err = checkValue(value.constant)
		}
		if err != nil {
			errs = append(errs, setting.Problemf(at+".value", "%w", err))
		}
		h.names, h.values = append(h.names, name), append(h.values, value)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return h, nil
}

// Names returns the names that the templates can set, in lower case.
func (h *Headers) Names() []string { return h.names }

// Render returns the headers that the templates set. An error means that one of
// them cannot be made, and that none is to be used.
func (h *Headers) Render(data map[string]any) ([]authz.Header, error) {
	out := make([]authz.Header, 0, len(h.values))
	for i, t := range h.values {
		value, set, err := t.render(data)
		if err == nil {
			value = strings.Trim(value, " \t")
			err = checkValue(value)
		}
		if err != nil {
			return nil, fmt.Errorf("header %s: %w", h.names[i], err)
		}
		if set {
			out = append(out, authz.Header{Name: h.names[i], Value: value})
		}
	}
	return out, nil
}

// reserved are fields that frame a message, end at the next hop, or are the
// gateway's own.
const reserved = " connection proxy-connection keep-alive te trailer transfer-encoding upgrade proxy-authenticate" +
	" proxy-authorization http2-settings content-length host expect x-request-id forwarded "

func checkName(name string) error {
	for i := range len(name) {
		if c := name[i]; (c < '0' || c > '9') && (c < 'a' || c > 'z') && c != '-' {
			return errors.New("is not a header name")
		}
	}
	switch {
	case name == "":
		return errors.New("is not a header name")
	case strings.Contains(reserved, " "+name+" ") || strings.HasPrefix(name, "x-forwarded-"):
		return errors.New("is the gateway's alone")
	}
	return nil
}

// checkValue refuses what would end a header or hide in one (RFC 9110 section
// 5.5): a claim is somebody else's text.
func checkValue(value string) error {
	for i := range len(value) {
		if c := value[i]; c < 0x20 && c != '\t' || c == 0x7f {
			return fmt.Errorf("control character %#02x in the value", c)
		}
	}
	return nil
}
