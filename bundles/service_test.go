package bundles_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/bundles"
	"github.com/sallyport/sallyport/bundles/server"
	"github.com/sallyport/sallyport/engine"
)

func TestServiceFollowsTheBundleServer(t *testing.T) {
	t.Parallel()
	for _, algorithm := range []string{"RS256", "ES256", "HS256"} {
		for _, longPolling := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s long polling %v", algorithm, longPolling), func(t *testing.T) {
				t.Parallel()
				ctx, dir, e, key := context.Background(), t.TempDir(), newEngine(t), newKey(t, algorithm)
				write(t, dir, "policy/gateway.rego", saying("one"))
				srv, err := server.New(ctx, server.Config{Directory: dir, Signing: key.signing("release")}, server.Deps{})
				if err != nil {
					t.Fatal(err)
				}
				hs := httptest.NewServer(srv)
				t.Cleanup(hs.Close)
				cfg := opaConfig(hs.URL, &key)
				if longPolling {
					polling := cfg["bundles"].(map[string]any)["policy"].(map[string]any)["polling"].(map[string]any)
					polling["long_polling_timeout_seconds"] = 30
				}
				s := newSource(t, bundles.Config{OPA: cfg}, e)
				run(t, s)
				waitFor(t, s, "the first bundle", isReady)
				if got := reason(t, e); got != "one" {
					t.Errorf("decided %q, want one", got)
				}
				first := s.Status().Revision
				if first == "" || first != s.Status().Bundles["policy"].Revision {
					t.Errorf("revision %q, of the bundle %q", first, s.Status().Bundles["policy"].Revision)
				}

				write(t, dir, "policy/gateway.rego", saying("two"))
				if err := srv.Reload(ctx); err != nil {
					t.Fatal(err)
				}
				waitFor(t, s, "the second revision", func(st bundles.Status) bool { return st.Revision != first })
				if got := reason(t, e); got != "two" {
					t.Errorf("decided %q, want two", got)
				}
			})
		}
	}
}

func TestServiceAsksWithTheTag(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	shelf := newShelf(t, build(t, nil, "gateway.rego", saying("one")))
	s := newSource(t, bundles.Config{OPA: opaConfig(shelf.URL, nil)}, e)
	run(t, s)
	waitFor(t, s, "the bundle", isReady)
	since := s.Status().Since
	eventually(t, func() bool { return shelf.matched.Load() >= 2 }, func() string { return "no If-None-Match that matched" })
	if st := s.Status(); !st.Since.Equal(since) {
		t.Error("activated again although nothing changed")
	}
}

// What is wrong with a bundle, and what Status has to say about it.
func badBundles(t *testing.T, key keyPair) map[string]struct {
	archive []byte
	want    string
} {
	other := newKey(t, "RS256")
	signed := build(t, key.signing("release"), "gateway.rego", saying("bad"))
	unsigned := build(t, nil, "gateway.rego", saying("bad"))
	return map[string]struct {
		archive []byte
		want    string
	}{
		"wrong key":       {build(t, other.signing("release"), "gateway.rego", saying("bad")), "verify JWT signature"},
		"unsigned":        {unsigned, "missing .signatures.json"},
		"truncated":       {signed[:len(signed)/2], "unexpected EOF"},
		"flipped bit":     {flipped(signed), ""},
		"no archive":      {[]byte("<html>not found</html>"), "gzip"},
		"changed file":    {swap(t, signed, "gateway.rego", saying("worse")), "digest mismatch"},
		"added file":      {add(t, signed, "more.rego", "package more\n"), "not included in bundle signature"},
		"unsigned delta":  {pack(t, "patch.json", `{"data":[{"op":"upsert","path":"/x","value":1}]}`), "delta"},
		"does not parse":  {signedRaw(t, key, "gateway.rego", "package gateway\n\ndecision := {"), "gateway.rego:3"},
		"no compile":      {signedRaw(t, key, "gateway.rego", "package gateway\n\ndecision := x\n"), "var x is unsafe"},
		"type of input":   {signedRaw(t, key, "gateway.rego", "package gateway\n\ndecision if input.user.name == \"a\"\n"), "undefined ref: input.user"},
		"forbidden":       {signedRaw(t, key, "gateway.rego", "package gateway\n\ndecision if http.send({\"method\": \"get\", \"url\": \"http://127.0.0.1/\"})\n"), "http.send"},
		"forbidden, with": {signedRaw(t, key, "gateway.rego", "package gateway\n\ndecision if upper(input.request.host) with upper as net.lookup_ip_addr\n"), "var net is unsafe"},
		"no entrypoint":   {signedRaw(t, key, "other.rego", "package other\n\ndecision := true\n"), "entrypoint"},
		"system package":  {signedRaw(t, key, "gateway.rego", saying("bad"), "log.rego", "package system.log\n\nmask := []\n"), "data.system"},
		"system data":     {signedRaw(t, key, "gateway.rego", saying("bad"), "data.json", `{"system": {"authz": {"allow": true}}}`), "data.system"},
		"system root":     {signedRaw(t, key, ".manifest", `{"roots": ["gateway", "system/log"]}`, "gateway.rego", saying("bad")), "system/log"},
	}
}

func TestServiceKeepsTheLastGood(t *testing.T) {
	t.Parallel()
	key := newKey(t, "RS256")
	for name, tc := range badBundles(t, key) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEngine(t)
			shelf := newShelf(t, build(t, key.signing("release"), "gateway.rego", saying("good")))
			persist := t.TempDir()
			s := newSource(t, bundles.Config{OPA: persisted(opaConfig(shelf.URL, &key), persist)}, e)
			run(t, s)
			waitFor(t, s, "the good bundle", isReady)
			good, file := s.Status().Revision, filepath.Join(persist, "bundles", "policy", "bundle.tar.gz")
			eventually(t, func() bool { _, err := os.Stat(file); return err == nil }, func() string { return "not persisted" })
			onDisk := readFile(t, file)

			shelf.serve(tc.archive)
			waitFor(t, s, "the error", hasError)
			st := s.Status()
			if !strings.Contains(st.Bundles["policy"].LastError, tc.want) {
				t.Errorf("status says %q, want it to have %q", st.Bundles["policy"].LastError, tc.want)
			}
			if !st.Ready || st.Revision != good {
				t.Errorf("ready %v, revision %s, want the last good %s", st.Ready, st.Revision, good)
			}
			if got := reason(t, e); got != "good" {
				t.Errorf("decided %q, want that of the last good policy", got)
			}
			if !bytes.Equal(readFile(t, file), onDisk) {
				t.Error("the bad bundle was persisted")
			}

			shelf.serve(build(t, key.signing("release"), "gateway.rego", saying("better")))
			waitFor(t, s, "the better bundle", func(st bundles.Status) bool { return st.Revision != good && isMended(st) })
			if got := reason(t, e); got != "better" {
				t.Errorf("decided %q, want better", got)
			}
		})
	}
}

func TestServiceOutlivesTheServer(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	shelf := newShelf(t, build(t, nil, "gateway.rego", saying("good")))
	s := newSource(t, bundles.Config{OPA: opaConfig(shelf.URL, nil)}, e)
	run(t, s)
	waitFor(t, s, "the bundle", isReady)
	shelf.handle(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	waitFor(t, s, "the error", hasError)
	shelf.CloseClientConnections()
	_ = shelf.Listener.Close()
	waitFor(t, s, "the refused connection", func(st bundles.Status) bool {
		return strings.Contains(st.Bundles["policy"].LastError, "refused")
	})
	if got := reason(t, e); got != "good" || !s.Status().Ready {
		t.Errorf("decided %q, ready %v, want good and ready", got, s.Status().Ready)
	}
}

func TestServiceLimitsTheSize(t *testing.T) {
	t.Parallel()
	big := `{"x": "` + strings.Repeat("a", 600<<10) + `"}`
	for name, files := range map[string][]string{
		"one file":   {"gateway.rego", saying("bad"), "data.json", big + strings.Repeat(" ", 1<<20)},
		"many files": {"gateway.rego", saying("bad"), "a/data.json", big, "b/data.json", big, "c/data.json", big},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEngine(t)
			shelf := newShelf(t, build(t, nil, "gateway.rego", saying("good")))
			cfg := opaConfig(shelf.URL, nil)
			cfg["bundles"].(map[string]any)["policy"].(map[string]any)["size_limit_bytes"] = 1 << 20
			s := newSource(t, bundles.Config{OPA: cfg}, e)
			run(t, s)
			waitFor(t, s, "the bundle", isReady)
			shelf.serve(pack(t, files...)) // a few kilobytes on the wire
			waitFor(t, s, "the error", hasError)
			if got := s.Status().Bundles["policy"].LastError; !strings.Contains(got, "size limit of 1048576 bytes") {
				t.Errorf("status says %q, want it to name the limit", got)
			}
			if got := reason(t, e); got != "good" {
				t.Errorf("decided %q, want good", got)
			}
		})
	}
}

func TestPersistedBundleServesWithoutTheServer(t *testing.T) {
	t.Parallel()
	key, dir := newKey(t, "ES256"), t.TempDir()
	shelf := newShelf(t, build(t, key.signing("release"), "gateway.rego", saying("good")))
	func() { // a first life of the gateway
		ctx, cancel := context.WithCancel(context.Background())
		s := newSource(t, bundles.Config{OPA: persisted(opaConfig(shelf.URL, &key), dir)}, newEngine(t))
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		waitFor(t, s, "the bundle", isReady)
		file := filepath.Join(dir, "bundles", "policy", "bundle.tar.gz")
		eventually(t, func() bool { _, err := os.Stat(file); return err == nil }, func() string { return "not persisted" })
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	shelf.Close()
	file := filepath.Join(dir, "bundles", "policy", "bundle.tar.gz")
	good := readFile(t, file)
	for name, tc := range map[string]struct {
		archive []byte
		ready   bool
	}{
		"persisted":   {good, true},
		"nothing":     {nil, false},
		"flipped bit": {flipped(good), false},
		"truncated":   {good[:len(good)/2], false},
		"unsigned":    {build(t, nil, "gateway.rego", saying("bad")), false},
		"changed":     {swap(t, good, "gateway.rego", saying("bad")), false},
		"forbidden":   {signedRaw(t, key, "gateway.rego", "package gateway\n\ndecision if opa.runtime().env.X\n"), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, dir := newEngine(t), t.TempDir()
			if tc.archive != nil {
				write(t, dir, "bundles/policy/bundle.tar.gz", string(tc.archive))
			}
			start := time.Now()
			s := newSource(t, bundles.Config{OPA: persisted(opaConfig(shelf.URL, &key), dir)}, e)
			run(t, s)
			if tc.ready {
				waitFor(t, s, "the persisted bundle", isReady)
				if took := time.Since(start); took > 2*time.Second {
					t.Errorf("ready after %v, want within 2s", took)
				}
				if got := reason(t, e); got != "good" {
					t.Errorf("decided %q, want good", got)
				}
				return
			}
			waitFor(t, s, "the error", hasError)
			if got := reason(t, e); s.Status().Ready || !strings.Contains(got, "no policy") {
				t.Errorf("ready %v, decided %q, want neither", s.Status().Ready, got)
			}
		})
	}
}

// counting counts activations of a real engine.
type counting struct {
	*engine.Engine
	n atomic.Int64
}

func (c *counting) Activate(ctx context.Context, r engine.Revision) error {
	c.n.Add(1)
	return c.Engine.Activate(ctx, r)
}

func TestWrongTagIsNoStorm(t *testing.T) {
	t.Parallel()
	e := &counting{Engine: newEngine(t)}
	archive := build(t, nil, "gateway.rego", saying("good"))
	shelf := newShelf(t, archive)
	var n atomic.Int64
	shelf.handle(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", fmt.Sprintf(`"%d"`, n.Add(1)))
		w.Header().Set("Content-Type", "application/vnd.openpolicyagent.bundles") // makes OPA ask again at once
		_, _ = w.Write(archive)
	})
	cfg := opaConfig(shelf.URL, nil)
	cfg["bundles"].(map[string]any)["policy"].(map[string]any)["polling"].(map[string]any)["long_polling_timeout_seconds"] = 30
	s, err := bundles.New(bundles.Config{OPA: cfg}, bundles.Deps{Engine: e})
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	start := time.Now()
	eventually(t, func() bool { return n.Load() >= 6 }, func() string { return "not asked again" })
	if took := time.Since(start); took < time.Second {
		t.Errorf("6 requests in %v: they are not paced", took)
	}
	if got := e.n.Load(); got != 1 {
		t.Errorf("%d activations of the same bundle, want 1", got)
	}
}

func TestSeveralBundlesAreReadyTogether(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	rules := newShelf(t, pack(t, ".manifest", `{"revision": "r1", "roots": ["gateway"]}`,
		"gateway.rego", "package gateway\n\ndecision := {\"allow\": false, \"reason\": data.texts.reason}\n"))
	texts := newShelf(t, nil)
	texts.handle(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	cfg := opaConfig(rules.URL, nil)
	cfg["services"].(map[string]any)["texts"] = map[string]any{"url": texts.URL}
	cfg["bundles"].(map[string]any)["texts"] = map[string]any{
		"service": "texts", "polling": map[string]any{"min_delay_seconds": 0, "max_delay_seconds": 0},
	}
	s := newSource(t, bundles.Config{OPA: cfg}, e)
	run(t, s)
	waitFor(t, s, "the error of the second", func(st bundles.Status) bool { return st.Bundles["texts"].LastError != "" })
	eventually(t, func() bool { return rules.matched.Load() > 0 }, func() string { return "the first is not there" })
	if s.Status().Ready {
		t.Error("ready with half of the policy")
	}
	if got := reason(t, e); !strings.Contains(got, "no policy") {
		t.Errorf("decided %q with half of the policy", got)
	}
	texts.serve(pack(t, ".manifest", `{"revision": "t1", "roots": ["texts"]}`, "texts/data.json", `{"reason": "both"}`))
	waitFor(t, s, "both", isReady)
	if got := reason(t, e); got != "both" {
		t.Errorf("decided %q, want both", got)
	}
	if got := s.Status().Revision; got != "policy@r1,texts@t1" {
		t.Errorf("revision %q", got)
	}
	// Data alone changes; the rules are the same.
	texts.serve(pack(t, ".manifest", `{"revision": "t2", "roots": ["texts"]}`, "texts/data.json", `{"reason": "new"}`))
	waitFor(t, s, "new data", func(st bundles.Status) bool { return st.Revision == "policy@r1,texts@t2" })
	if got := reason(t, e); got != "new" {
		t.Errorf("decided %q, want new", got)
	}
}

// Deltas cannot be signed: they are for those who sign nothing.
func TestDeltaChangesData(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	manifest := func(revision string) string { return `{"revision": "` + revision + `", "roots": ["gateway", "texts"]}` }
	shelf := newShelf(t, pack(t, ".manifest", manifest("one"), "texts/data.json", `{"reason": "snapshot", "other": 1}`,
		"gateway.rego", "package gateway\n\ndecision := {\"allow\": false, \"reason\": sprintf(\"%s %d\", [data.texts.reason, data.texts.other])}\n"))
	s := newSource(t, bundles.Config{OPA: opaConfig(shelf.URL, nil)}, e)
	run(t, s)
	waitFor(t, s, "the snapshot", isReady)
	shelf.serve(pack(t, ".manifest", manifest("two"), "patch.json", `{"data": [{"op": "upsert", "path": "/texts/reason", "value": "delta"}]}`))
	waitFor(t, s, "the delta", func(st bundles.Status) bool { return st.Revision == "two" })
	if got := reason(t, e); got != "delta 1" {
		t.Errorf("decided %q, want delta 1", got)
	}
}

func TestSystemBundlesWhereAllowed(t *testing.T) {
	t.Parallel()
	shelf := newShelf(t, pack(t, "gateway.rego", saying("good"), "log.rego", "package system.log\n\nmask contains \"/input/request/headers\"\n"))
	s := newSource(t, bundles.Config{OPA: opaConfig(shelf.URL, nil), AllowSystemBundles: true}, newEngine(t))
	run(t, s)
	waitFor(t, s, "the bundle", isReady)
}

func TestOPALogsWithTheGateway(t *testing.T) {
	t.Parallel()
	var out lockedBuffer
	shelf := newShelf(t, build(t, nil, "gateway.rego", saying("good")))
	s, err := bundles.New(bundles.Config{OPA: opaConfig(shelf.URL, nil)}, bundles.Deps{
		Engine: newEngine(t), Logger: slog.New(slog.NewJSONHandler(&out, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	waitFor(t, s, "the bundle", isReady)
	for _, want := range []string{"Bundle loaded and activated successfully", "bundles are not verified"} {
		eventually(t, func() bool { return strings.Contains(out.String(), want) }, func() string {
			return "no line with " + want + " in\n" + out.String()
		})
	}
}
