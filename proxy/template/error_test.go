package template

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/setting"
)

// edgeStackErrors is the error response in Edge Stack's documentation.
var edgeStackErrors = ErrorResponse{
	Headers: []Header{
		{"Content-Type", "application/json"},
		{"X-Correlation-ID", `{{ .httpRequestHeader.Get "X-Correlation-ID" }}`},
	},
	BodyTemplate: `{"errorMessage": {{ .message | json "    " }},
{{- if .error.ValidationError }}
"altErrorMessage": {{ if eq .error.ValidationError.Errors 16 }}"expired"{{ else }}"invalid"{{ end }},
"errorCode": {{ .error.ValidationError.Errors | json "    " }},
{{- end }}
"httpStatus": "{{ .status_code }}", "requestId": {{ .request_id | json "    " }}}`,
}

func TestEdgeStackErrors(t *testing.T) {
	e, err := NewErrors(edgeStackErrors)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		failure Failure
		want    string
	}{
		{
			Failure{Status: 401, Message: `a "quoted" text`, RequestID: "r1"},
			"{\"errorMessage\": \"a \\\"quoted\\\" text\",\n\"httpStatus\": \"401\", \"requestId\": \"r1\"}",
		},
		{
			Failure{Status: 401, Message: "no", RequestID: "r2", Token: Expired},
			"{\"errorMessage\": \"no\",\n\"altErrorMessage\": \"expired\",\n\"errorCode\": 16,\n\"httpStatus\": \"401\", \"requestId\": \"r2\"}",
		},
		{
			Failure{Status: 401, Message: "no", RequestID: "r3", Token: SignatureInvalid},
			"{\"errorMessage\": \"no\",\n\"altErrorMessage\": \"invalid\",\n\"errorCode\": 4,\n\"httpStatus\": \"401\", \"requestId\": \"r3\"}",
		},
	} {
		c.failure.Headers = []authz.Header{{Name: "x-correlation-id", Value: "c1"}}
		headers, body, own, err := e.Render(c.failure)
		if err != nil || !own {
			t.Fatal(own, err)
		}
		if d := cmp.Diff(c.want, string(body)); d != "" {
			t.Error(d)
		}
		want := []authz.Header{{Name: "content-type", Value: "application/json"}, {Name: "x-correlation-id", Value: "c1"}}
		if d := cmp.Diff(want, headers); d != "" {
			t.Error(d)
		}
	}
}

func TestErrorVariables(t *testing.T) {
	e, err := NewErrors(ErrorResponse{BodyTemplate: `{{ .error }} {{ .httpStatus }} {{ .requestId }} {{ .nothing }}.`})
	if err != nil {
		t.Fatal(err)
	}
	if _, body, own, err := e.Render(Failure{Status: 403, Message: "denied", RequestID: "r"}); string(body) != "denied 403 r ." || !own || err != nil {
		t.Errorf("%q, %v, %v", body, own, err)
	}
	if e, err = NewErrors(ErrorResponse{Headers: []Header{{"x-a", "b"}}}); err != nil {
		t.Fatal(err)
	}
	if headers, _, own, err := e.Render(Failure{}); len(headers) != 1 || own || err != nil {
		t.Errorf("without a body template: %v, %v, %v", headers, own, err)
	}
}

func TestErrorTemplatesThatAreRefused(t *testing.T) {
	_, err := NewErrors(ErrorResponse{
		Headers:      []Header{{"WWW-Authenticate", "Basic"}, {"x-a", "{{"}},
		BodyTemplate: "{{ end }}",
	})
	var keys []string
	for _, p := range setting.Problems(err) {
		keys = append(keys, p.Key)
	}
	if got := strings.Join(keys, " "); got != "headers[1].value headers[0].name body_template" {
		t.Errorf("problems of %s", got)
	}
}
