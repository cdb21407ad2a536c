package kubernetes

import (
	"errors"
	"maps"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/proxy/authn"
)

// TestAccessQuestion: what the API server is asked, by configuration and request.
func TestAccessQuestion(t *testing.T) {
	type object = map[string]any
	for _, tt := range []struct {
		name         string
		review       AccessReview
		method, path string
		want         object
	}{
		{"the request itself", AccessReview{}, "GET", "/orders/7", object{"nonResourceAttributes": object{"path": "/orders/7", "verb": "get"}}},
		{"method of a path", AccessReview{}, "DELETE", "/", object{"nonResourceAttributes": object{"path": "/", "verb": "delete"}}},
		{"HEAD of a path", AccessReview{}, "HEAD", "/x", object{"nonResourceAttributes": object{"path": "/x", "verb": "head"}}},
		{"fixed path", AccessReview{Path: "/orders"}, "POST", "/orders/7", object{"nonResourceAttributes": object{"path": "/orders", "verb": "post"}}},
		{"resource", AccessReview{Group: "shop.example", Resource: "orders", Namespace: "prod"}, "POST", "/x", object{"resourceAttributes": object{"group": "shop.example", "resource": "orders", "namespace": "prod", "verb": "create"}}},
		{"resource, PUT", AccessReview{Resource: "pods"}, "PUT", "/x", object{"resourceAttributes": object{"resource": "pods", "verb": "update"}}},
		{"resource, PATCH", AccessReview{Resource: "pods"}, "PATCH", "/x", object{"resourceAttributes": object{"resource": "pods", "verb": "patch"}}},
		{"resource, HEAD", AccessReview{Resource: "pods"}, "HEAD", "/x", object{"resourceAttributes": object{"resource": "pods", "verb": "get"}}},
		{"resource, unusual method", AccessReview{Resource: "pods"}, "PURGE", "/x", object{"resourceAttributes": object{"resource": "pods", "verb": "purge"}}},
		{"one object, fixed verb", AccessReview{Resource: "pods", Subresource: "log", Name: "a", Verb: "watch"}, "DELETE", "/x", object{"resourceAttributes": object{"resource": "pods", "subresource": "log", "name": "a", "verb": "watch"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newAPIServer(t)
			s.access = func(map[string]any) map[string]any { return map[string]any{"allowed": true, "reason": "RBAC: allowed"} }
			a := s.open(func(c *Config) { c.AccessReview = &tt.review })
			r := request(token(t, nil))
			r.Method, r.Path = tt.method, tt.path
			id := authenticate(t, a, r)
			if d := cmp.Diff(map[string]any{"allowed": true, "denied": false, "reason": "RBAC: allowed"}, id.Claims["access"]); d != "" {
				t.Error(d)
			}
			want := object{
				"user": builder, "uid": "u-1", "groups": []any{"system:serviceaccounts", "system:serviceaccounts:ci"},
				"extra": object{
					"authentication.kubernetes.io/pod-name": []any{"build-7"}, "authentication.kubernetes.io/pod-uid": []any{"p-7"}, "other": []any{"x"},
				},
			}
			maps.Copy(want, tt.want)
			if d := cmp.Diff(want, s.specs()[1]); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestAccessIsOfTheRequest: an answer counts for its caller and its request, a while,
// and not longer than the token's.
func TestAccessIsOfTheRequest(t *testing.T) {
	s := newAPIServer(t)
	s.access = func(spec map[string]any) map[string]any {
		return map[string]any{"allowed": spec["nonResourceAttributes"].(map[string]any)["verb"] == "get"}
	}
	a := s.open(func(c *Config) { c.AccessReview = &AccessReview{} })
	allowed := func(r *authn.Request) bool {
		return authenticate(t, a, r).Claims["access"].(map[string]any)["allowed"].(bool)
	}
	get, post := request(token(t, nil)), request(token(t, nil))
	post.Method = "POST"
	for range 2 {
		if !allowed(get) || allowed(post) {
			t.Error("the answers of two requests are mixed up")
		}
	}
	if n, m := s.tokens.Load(), s.accesses.Load(); n != 1 || m != 2 {
		t.Errorf("%d questions about the token and %d about access, want 1 and 2", n, m)
	}
	if authenticate(t, a, get) != authenticate(t, a, request(token(t, nil))) {
		t.Error("equal requests have identities of their own")
	}
	allowed(request(token(t, map[string]any{"jti": "other"})))
	if m := s.accesses.Load(); m != 3 {
		t.Errorf("%d questions: another token got an answer of the first", m)
	}
	s.change(func() { s.access = func(map[string]any) map[string]any { return map[string]any{"allowed": false} } })
	if !allowed(at(token(t, nil), 10*time.Second-1)) || allowed(at(token(t, nil), 10*time.Second)) {
		t.Error("an answer does not count for cache_max_age")
	}
}

// TestAccessFaults: no answer closes.
func TestAccessFaults(t *testing.T) {
	for name, status := range map[string]map[string]any{
		"no status":           nil,
		"authorizer failed":   {"allowed": false, "evaluationError": "webhook: timeout"},
		"yes and no":          {"allowed": true, "denied": true},
		"allowed as a string": {"allowed": "true"},
	} {
		s := newAPIServer(t)
		s.access = func(map[string]any) map[string]any { return status }
		a := s.open(func(c *Config) { c.AccessReview = &AccessReview{} })
		if id, err := a.Authenticate(t.Context(), request(token(t, nil))); !errors.Is(err, authn.ErrUnavailable) {
			t.Errorf("%s: %v, %v; want ErrUnavailable", name, id, err)
		}
		s.change(func() { s.access = func(map[string]any) map[string]any { return map[string]any{"allowed": true} } })
		authenticate(t, a, request(token(t, nil)))
	}
	s := newAPIServer(t)
	s.access = func(map[string]any) map[string]any { return map[string]any{"allowed": true} }
	a := s.open(func(c *Config) { c.AccessReview = &AccessReview{} })
	authenticate(t, a, request(token(t, nil)))
	s.change(func() {
		s.answer = func(w http.ResponseWriter) bool { w.WriteHeader(http.StatusForbidden); return true }
	})
	r := request(token(t, nil))
	r.Path = "/other"
	if _, err := a.Authenticate(t.Context(), r); !errors.Is(err, authn.ErrUnavailable) {
		t.Errorf("API server without an answer about access: %v", err)
	}
}
