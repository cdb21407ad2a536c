package system_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/bench/peer"
	"github.com/sallyport/sallyport/bench/system"
	"github.com/sallyport/sallyport/bench/work"
)

func newWork(t *testing.T) *work.Work {
	t.Helper()
	w, err := work.New(t.TempDir(), 1, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestEverySystemIsPlanned(t *testing.T) {
	w := newWork(t)
	names := map[string]bool{}
	for _, s := range system.All() {
		t.Run(s.Name, func(t *testing.T) {
			site := system.Site{
				Dir: t.TempDir(), Address: "127.0.0.1:1111", Admin: "127.0.0.1:2222", Upstream: "127.0.0.1:3333", Work: w,
				Programs: system.Programs{Bench: "b", Sallyport: "s", OPA: "o", Caddy: "c", Nginx: "n", HAProxy: "h"},
			}
			specs, err := s.Plan(site)
			if err != nil || len(specs) == 0 {
				t.Fatalf("%v, %v", specs, err)
			}
			if specs[len(specs)-1].Listens != site.Address {
				t.Errorf("the last program listens at %s", specs[len(specs)-1].Listens)
			}
			for _, spec := range specs {
				for _, arg := range spec.Args {
					if raw, err := os.ReadFile(arg); err == nil && strings.Contains(string(raw), "<no value>") {
						t.Errorf("%s has a hole:\n%s", arg, raw)
					}
				}
			}
		})
		if names[s.Name] {
			t.Errorf("%s twice", s.Name)
		}
		names[s.Name] = true
	}
}

// answers is a system that does all of the work, but for what change does.
func answers(t *testing.T, w *work.Work, cases []work.Case, change func(http.ResponseWriter, *http.Request) bool) string {
	t.Helper()
	good := w.Tokens[0]
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch {
		case change(rw, r):
		case r.Header.Get("Authorization") != "Bearer "+good.Text:
			rw.WriteHeader(401)
		case r.Method != http.MethodGet:
			rw.WriteHeader(403)
		case r.Header.Get(peer.EchoHeader) != "":
			rw.Header().Set(peer.SeenHeader, good.Subject)
		}
	}))
	t.Cleanup(s.Close)
	if !slices.ContainsFunc(cases, func(c work.Case) bool { return c.Name == work.Forged }) {
		t.Fatal("no case with a forged token")
	}
	return s.Listener.Addr().String()
}

func TestCheck(t *testing.T) {
	w := newWork(t)
	cases, err := w.Cases(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	keep := func(http.ResponseWriter, *http.Request) bool { return false }
	letsForbidden := func(_ http.ResponseWriter, r *http.Request) bool { return r.Method == http.MethodPost }
	passesClaimOn := func(rw http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get(peer.EchoHeader) == "" {
			return false
		}
		rw.Header().Set(peer.SeenHeader, r.Header.Get("X-User"))
		return true
	}
	whole := system.System{Name: "whole"}
	less := system.System{Name: "less", Deviates: map[string]system.Deviation{work.Forbidden: {Status: 200, Why: "cannot"}}}
	for name, c := range map[string]struct {
		of     system.System
		change func(http.ResponseWriter, *http.Request) bool
		fails  string
		why    string
	}{
		"all of the work":                      {whole, keep, "", ""},
		"lets a forbidden request through":     {whole, letsForbidden, "check whole, forbidden", ""},
		"declares that it does":                {less, letsForbidden, "", "cannot"},
		"does more than it declares":           {less, keep, "", ""},
		"passes on what the client says it is": {whole, passesClaimOn, "check whole, subject", ""},
		"answers neither as wanted nor declared": {less, func(rw http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPost {
				rw.WriteHeader(500)
				return true
			}
			return false
		}, "check less, forbidden", ""},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := c.of.Check(t.Context(), answers(t, w, cases, c.change), cases)
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Errorf("got %v, want %q", err, c.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var why string
			for _, f := range found {
				why += f.Why
			}
			if len(found) != len(cases) || why != c.why {
				t.Errorf("%+v", found)
			}
		})
	}
}
