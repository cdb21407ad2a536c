// Package admin answers the admin listener: health, metrics, version, status and
// the tail of the decision log. It shows state that others own and changes none.
//
// It must never be reachable from where clients are: it tells revisions, errors
// and who was allowed what. It is bound to loopback by default.
package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/sallyport/sallyport/engine/setting"
)

// Config is the admin listener.
type Config struct {
	// Address is the host:port of the admin listener. Keep it off the network
	// that clients use.
	Address string `yaml:"address"`
}

// Default returns the configuration of an absent admin section.
func Default() Config { return Config{Address: "127.0.0.1:9901"} }

// Validate reports every key with a value that cannot work.
func (c Config) Validate() error {
	return setting.Under("address", setting.Address(c.Address))
}

// Check is one condition of readiness.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
}

// Decisions is the tail of the decision log.
type Decisions interface {
	// Recent returns at most n of the newest lines, newest first.
	Recent(n int) [][]byte
	// Follow sends lines as they come until ctx ends, then closes the channel. A
	// reader that is too slow loses some.
	Follow(ctx context.Context) <-chan []byte
}

// Deps are what the pages show.
type Deps struct {
	// Ready returns every condition that must hold before traffic may come.
	Ready     func() []Check
	Status    func() any
	Version   any
	Metrics   http.Handler
	Decisions Decisions
}

// New returns the handler of the admin listener.
func New(deps Deps) http.Handler {
	h := handler{Deps: deps}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", h.live)
	mux.HandleFunc("GET /readyz", h.ready)
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) { write(w, http.StatusOK, deps.Version) })
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { write(w, http.StatusOK, deps.Status()) })
	mux.HandleFunc("GET /v1/decisions", h.decisions)
	mux.Handle("GET /metrics", deps.Metrics)
	return mux
}

type handler struct{ Deps }

// live answers as long as the process can: a gateway that waits for its policy
// is alive, and restarting it would not help.
func (handler) live(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintln(w, "ok") //nolint:errcheck // the prober has gone
}

func (h handler) ready(w http.ResponseWriter, r *http.Request) {
	checks := h.Ready()
	status, word := http.StatusOK, "ok"
	var lines strings.Builder
	for _, c := range checks {
		mark := "ok"
		if !c.OK {
			mark, status, word = "FAILED", http.StatusServiceUnavailable, "not ready"
		}
		fmt.Fprintf(&lines, "%s %s", mark, c.Name)
		if c.Detail != "" {
			fmt.Fprintf(&lines, ": %s", c.Detail)
		}
		lines.WriteByte('\n')
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	if _, verbose := r.URL.Query()["verbose"]; verbose {
		fmt.Fprint(w, lines.String()) //nolint:errcheck // the prober has gone
	}
	fmt.Fprintln(w, word) //nolint:errcheck // the prober has gone
}

// maxTail bounds ?n= of /v1/decisions.
const maxTail = 1000

// decisions writes the newest lines as NDJSON, and goes on with ?follow.
func (h handler) decisions(w http.ResponseWriter, r *http.Request) {
	n := 100
	if v := r.URL.Query().Get("n"); v != "" {
		given, err := strconv.Atoi(v)
		if err != nil || given < 0 || given > maxTail {
			http.Error(w, fmt.Sprintf("n is a number from 0 to %d", maxTail), http.StatusBadRequest)
			return
		}
		n = given
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	_, follow := r.URL.Query()["follow"]
	var lines <-chan []byte
	if follow {
		lines = h.Decisions.Follow(r.Context()) // before Recent, so that none falls between
	}
	recent := h.Decisions.Recent(n)
	slices.Reverse(recent) // oldest first, as in a file
	for _, line := range recent {
		if !send(w, line) {
			return
		}
	}
	if !follow {
		return
	}
	for flush(w); ; flush(w) {
		line, open := <-lines
		if !open || !send(w, line) {
			return
		}
	}
}

func send(w http.ResponseWriter, line []byte) bool {
	_, err := w.Write(append(slices.Clip(line), '\n'))
	return err == nil
}

func flush(w http.ResponseWriter) {
	_ = http.NewResponseController(w).Flush() // a writer that cannot flush delivers late
}

func write(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v) // the reader has gone
}
