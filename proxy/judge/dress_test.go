package judge

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/problem"
	"github.com/sallyport/sallyport/proxy/route"
	"github.com/sallyport/sallyport/proxy/template"
)

func dressed(t *testing.T, m mechanism, d *authz.Decision, look template.ErrorResponse) *Judge {
	t.Helper()
	return judgeWith(t, m, func(c *Config, r *route.Config) {
		r.ErrorResponse, r.Match.Path = &look, "/x"
		c.Decider = fixedDecider{d}
	})
}

func TestErrorResponses(t *testing.T) {
	look := template.ErrorResponse{
		Headers: []template.Header{
			{Name: "Content-Type", Value: "application/json"},
			{Name: "X-Correlation-ID", Value: `{{ .httpRequestHeader.Get "x-correlation-id" }}{{ .httpRequestHeader.Get "authorization" }}`},
		},
		BodyTemplate: `{"m": {{ json "" .message }}, "code": {{ if .error.ValidationError }}{{ .error.ValidationError.Errors }}{{ else }}0{{ end }}, "s": {{ .status_code }}, "id": {{ json "" .request_id }}}`,
	}
	refused := func(reason error) mechanism {
		return func(*authn.Request) (*authz.Identity, error) {
			return nil, fmt.Errorf("%w: %w: secret detail", authn.ErrInvalid, reason)
		}
	}
	allow, deny := &authz.Decision{Allow: true}, &authz.Decision{}
	for name, tc := range map[string]struct {
		m            mechanism
		d            *authz.Decision
		status, code int
	}{
		"expired":   {refused(authn.ErrExpired), allow, 401, 16},
		"signature": {refused(authn.ErrSignature), allow, 401, 4},
		"malformed": {refused(authn.ErrMalformed), allow, 401, 1},
		"audience":  {refused(authn.ErrAudience), allow, 401, 8},
		"issuer":    {refused(authn.ErrIssuer), allow, 401, 64},
		"not yet":   {refused(authn.ErrNotYetValid), allow, 401, 128},
		"other":     {refused(fmt.Errorf("other")), allow, 401, 0},
		"none":      {func(*authn.Request) (*authz.Identity, error) { return nil, authn.ErrNotMine }, allow, 401, 0},
		"down":      {func(*authn.Request) (*authz.Identity, error) { return nil, authn.ErrUnavailable }, allow, 503, 0},
		"denied":    {alice(nil, nil), deny, 403, 0},
		"status":    {alice(nil, nil), &authz.Decision{Status: 451}, 451, 0},
		"fault":     {alice(nil, nil), &authz.Decision{Fault: &authz.Fault{Kind: authz.FaultEval, Detail: "secret detail"}}, 403, 0},
	} {
		t.Run(name, func(t *testing.T) {
			v := dressed(t, tc.m, tc.d, look).Judge(t.Context(), arrival("GET", "/x",
				authz.Header{Name: "x-correlation-id", Value: "c1"}, authz.Header{Name: "authorization", Value: "Bearer t"}))
			var body struct {
				M       string
				Code, S int
				ID      string
			}
			if v.Answer == nil || json.Unmarshal(v.Answer.Body, &body) != nil {
				t.Fatalf("answer %+v", v.Answer)
			}
			if v.Answer.Status != tc.status || body.S != tc.status || body.Code != tc.code || body.ID != v.Input.Request.ID || body.M == "" || strings.Contains(body.M, "detail") {
				t.Errorf("status %d, body %s", v.Answer.Status, v.Answer.Body)
			}
			for header, want := range map[string][]string{"content-type": {"application/json"}, "x-correlation-id": {"c1"}, "x-content-type-options": {"nosniff"}, "cache-control": {"no-store"}} {
				if got := values(v.Answer.Headers, header); !slices.Equal(got, want) {
					t.Errorf("%s: %q, want %q", header, got, want)
				}
			}
			if got := len(values(v.Answer.Headers, "www-authenticate")); (got == 1) != (tc.status == 401) {
				t.Errorf("%d challenges", got)
			}
		})
	}
}

func TestAnswersThatKeepTheirLook(t *testing.T) {
	look := template.ErrorResponse{BodyTemplate: "ours", Headers: []template.Header{{Name: "X-Ours", Value: "1"}}}
	for name, d := range map[string]*authz.Decision{
		"a body of the policy": {Body: json.RawMessage(`{"a":1}`)},
		"a redirect":           {Redirect: "https://idp.example/"},
	} {
		v := dressed(t, alice(nil, nil), d, look).Judge(t.Context(), arrival("GET", "/x"))
		if string(v.Answer.Body) == "ours" || len(values(v.Answer.Headers, "x-ours")) > 0 {
			t.Errorf("%s: %+v", name, v.Answer)
		}
	}
	if v := dressed(t, alice(nil, nil), &authz.Decision{}, look).Judge(t.Context(), arrival("GET", "/y")); v.Answer.Status != 404 || string(v.Answer.Body) == "ours" {
		t.Errorf("no route: %+v", v.Answer)
	}
	v := dressed(t, alice(nil, nil), &authz.Decision{}, template.ErrorResponse{Headers: look.Headers}).Judge(t.Context(), arrival("GET", "/x"))
	if !slices.Equal(values(v.Answer.Headers, "content-type"), []string{problem.ContentType}) || len(values(v.Answer.Headers, "x-ours")) != 1 {
		t.Errorf("without a body template: %+v", v.Answer)
	}
}

func TestErrorResponsesThatFailRefuseAllTheSame(t *testing.T) {
	look := template.ErrorResponse{BodyTemplate: "{{ range 100000 }}{{ end }}"}
	v := dressed(t, alice(nil, nil), &authz.Decision{}, look).Judge(t.Context(), arrival("GET", "/x"))
	if v.Answer == nil || v.Answer.Status != 403 || !slices.Equal(values(v.Answer.Headers, "content-type"), []string{problem.ContentType}) || v.Err == nil {
		t.Errorf("answer %+v, %v", v.Answer, v.Err)
	}
}

func TestUpstreamFailuresAreDressed(t *testing.T) {
	look := template.ErrorResponse{BodyTemplate: "{{ .message }} {{ .status_code }}"}
	v := dressed(t, alice(nil, nil), &authz.Decision{Allow: true}, look).Judge(t.Context(), arrival("GET", "/x"))
	if a := v.Fail(problem.ErrUnreachable); string(a.Body) != "The upstream cannot be reached. 502" || v.Answer != nil {
		t.Errorf("answer %+v", a)
	}
}
