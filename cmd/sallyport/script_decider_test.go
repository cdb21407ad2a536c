package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"sync/atomic"

	"github.com/rogpeppe/go-internal/testscript"
)

// decider starts a service that decides requests by the last segment of their path, and
// puts its URL into a variable: decider NAME.
func decider(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: decider NAME")
	}
	var once atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		what := path.Base(r.URL.Path)
		if what == "once" && once.Add(1)%2 == 1 {
			what = "allow"
		}
		decide(w, r, what)
	}))
	ts.Defer(s.Close)
	ts.Setenv(args[0], s.URL)
}

func decide(w http.ResponseWriter, r *http.Request, what string) {
	h := w.Header()
	h.Set("X-Secret", "not for others")
	status, body := http.StatusForbidden, "go away"
	switch what {
	case "allow":
		h.Set("X-User", "alice")
		h.Set("X-Seen", strings.Join(append([]string{r.Method, r.RequestURI}, seen(r.Header)...), " "))
		status, body = http.StatusOK, ""
	case "deny":
		h.Set("Content-Type", "application/json")
		h.Set("WWW-Authenticate", `Basic realm="shop"`)
		h.Set("Set-Cookie", "a=1")
		h.Set("X-User", "nobody")
		status, body = http.StatusUnauthorized, `{"why":"no token"}`
	case "login":
		h.Set("Location", "https://login.example/?back=1")
		status = http.StatusFound
	case "nowhere":
		status = http.StatusFound
	case "created":
		status = http.StatusCreated
	case "broken":
		status = http.StatusInternalServerError
	case "hang":
		<-r.Context().Done()
		return
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body) // the gateway may have gone
}

// seen are the headers that the service looks at.
func seen(h http.Header) (out []string) {
	for _, name := range []string{"X-Tenant", "X-Other", "Authorization", "Cookie", "X-Forwarded-Proto", "X-Forwarded-For"} {
		if v := h.Get(name); v != "" {
			out = append(out, v)
		}
	}
	return out
}
