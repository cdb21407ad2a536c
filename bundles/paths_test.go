package bundles_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/bundles"
	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/policies"
)

func TestPathsFollowTheFiles(t *testing.T) {
	t.Parallel()
	ctx, dir, e := context.Background(), t.TempDir(), newEngine(t)
	write(t, dir, "gateway.rego", saying("one"))
	s := newSource(t, bundles.Config{Paths: []string{dir}}, e)

	if _, err := e.Decide(ctx, &authz.Input{}); !errors.Is(err, authz.ErrNoPolicy) {
		t.Errorf("before loading: %v, want ErrNoPolicy", err)
	}
	if s.Status().Ready {
		t.Error("ready before anything was loaded")
	}
	run(t, s)
	eventually(t, func() bool { return s.Status().Ready }, func() string { return "not ready: " + s.Status().Error })
	if got := reason(t, e); got != "one" {
		t.Errorf("decided %q, want one", got)
	}
	first := s.Status().Revision

	write(t, dir, "gateway.rego", saying("two"))
	if err := s.Reload(ctx); err != nil {
		t.Fatal(err)
	}
	if got := reason(t, e); got != "two" {
		t.Errorf("after an edit: decided %q, want two", got)
	}
	if s.Status().Revision == first {
		t.Error("another policy has the same revision")
	}
}

func TestPathsKeepTheLastGood(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		files []string
		want  []string // parts of the error
	}{
		"syntax":        {[]string{"gateway.rego", "package gateway\n\ndecision := {"}, []string{"gateway.rego:3"}},
		"type of input": {[]string{"gateway.rego", "package gateway\n\ndecision if input.identity.eamil == \"a\"\n"}, []string{"gateway.rego:3", "undefined ref: input.identity.eamil"}},
		"unused":        {[]string{"gateway.rego", "package gateway\n\ndecision if {\n\tx := 1\n}\n"}, []string{"gateway.rego:4", "unused"}},
		"forbidden":     {[]string{"gateway.rego", "package gateway\n\ndecision if http.send({\"url\": input.request.host, \"method\": \"get\"})\n"}, []string{"gateway.rego:3", "http.send"}},
		"no entrypoint": {[]string{"gateway.rego", "package elsewhere\n\ndecision := true\n"}, []string{"entrypoint"}},
		"data":          {[]string{"data.json", "{"}, []string{"data.json"}},
		"conflict":      {[]string{"gateway/data.json", `{"decision": true}`}, []string{"conflicting rule for data path gateway/decision"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, dir, e := context.Background(), t.TempDir(), newEngine(t)
			write(t, dir, "gateway.rego", saying("good"))
			s := newSource(t, bundles.Config{Paths: []string{dir}}, e)
			if err := s.Reload(ctx); err != nil {
				t.Fatal(err)
			}
			good := s.Status().Revision
			write(t, dir, tc.files...)
			err := s.Reload(ctx)
			if err == nil {
				t.Fatal("a broken policy was accepted")
			}
			if got := reason(t, e); got != "good" {
				t.Errorf("decided %q, want that of the last good policy", got)
			}
			st := s.Status()
			if !st.Ready || st.Revision != good {
				t.Errorf("ready %v, revision %s, want the last good %s", st.Ready, st.Revision, good)
			}
			for _, part := range tc.want {
				if !strings.Contains(st.Error, part) {
					t.Errorf("status says %q, want it to have %q", st.Error, part)
				}
			}
			if st.Bundles["paths"].LastError == "" {
				t.Error("the bundle has no error")
			}
			write(t, dir, "gateway.rego", saying("better"))
			for _, f := range tc.files {
				if strings.HasSuffix(f, ".json") {
					_ = os.Remove(filepath.Join(dir, f))
				}
			}
			if err := s.Reload(ctx); err != nil {
				t.Fatal(err)
			}
			if st := s.Status(); st.Error != "" || st.Bundles["paths"].LastError != "" {
				t.Errorf("the error stays after it was mended: %q", st.Error)
			}
		})
	}
}

func TestPathsTakeABrokenEditBack(t *testing.T) {
	t.Parallel()
	ctx, dir, e := context.Background(), t.TempDir(), &counting{Engine: newEngine(t)}
	write(t, dir, "gateway.rego", saying("good"))
	s, err := bundles.New(bundles.Config{Paths: []string{dir}}, bundles.Deps{Engine: e})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(ctx); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "gateway.rego", "package gateway\n\ndecision := ")
	if err := s.Reload(ctx); err == nil {
		t.Fatal("a broken policy was accepted")
	}
	write(t, dir, "gateway.rego", saying("good"))
	if err := s.Reload(ctx); err != nil {
		t.Fatal(err)
	}
	if st := s.Status(); st.Error != "" || e.n.Load() != 1 {
		t.Errorf("error %q after %d activations, want none after 1", st.Error, e.n.Load())
	}
}

// Each request is judged by one revision as a whole, the newest or the one before.
func TestPathsReloadUnderLoad(t *testing.T) {
	t.Parallel()
	ctx, dir, e := context.Background(), t.TempDir(), newEngine(t)
	publish := func(n int) {
		write(t, dir,
			"gateway.rego", fmt.Sprintf("package gateway\n\ndecision := {\"allow\": false, \"reason\": sprintf(\"%d %%d\", [data.n])}\n", n),
			"data.json", fmt.Sprintf(`{"n": %d}`, n))
	}
	publish(0)
	s := newSource(t, bundles.Config{Paths: []string{dir}}, e)
	if err := s.Reload(ctx); err != nil {
		t.Fatal(err)
	}
	done, stopped := make(chan struct{}), make(chan int)
	go func() {
		last, decisions := 0, 0
		for {
			select {
			case <-done:
				stopped <- decisions
				return
			default:
			}
			got := reason(t, e)
			var rule, datum int
			if _, err := fmt.Sscanf(got, "%d %d", &rule, &datum); err != nil || rule != datum || rule < last {
				t.Errorf("decided %q after revision %d", got, last)
			}
			last = rule
			decisions++
		}
	}()
	for n := range 20 {
		publish(n + 1)
		if err := s.Reload(ctx); err != nil {
			t.Error(err)
		}
	}
	close(done)
	if n := <-stopped; n == 0 {
		t.Error("nothing was decided meanwhile")
	}
	if got := reason(t, e); got != "20 20" {
		t.Errorf("decided %q, want that of the last revision", got)
	}
}

func TestPathsRefuseNothing(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	dir := t.TempDir()
	write(t, dir, "gateway_test.rego", saying("a test is no policy"))
	s := newSource(t, bundles.Config{Paths: []string{dir}}, e)
	if err := s.Reload(context.Background()); err == nil || s.Status().Ready {
		t.Errorf("a directory without policies: error %v, ready %v", err, s.Status().Ready)
	}
	if got := reason(t, e); got != authz.ErrNoPolicy.Error() {
		t.Errorf("decided %q, want %v", got, authz.ErrNoPolicy)
	}
}

func TestPathsLeaveOutTestsAndHiddenFiles(t *testing.T) {
	t.Parallel()
	dir, e := t.TempDir(), newEngine(t)
	// As kubelet mounts a ConfigMap.
	write(t, dir, "..2026_01_01/gateway.rego", saying("mounted"))
	for link, target := range map[string]string{"..data": "..2026_01_01", "gateway.rego": "..data/gateway.rego"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	write(t, dir, "gateway_test.rego", "package gateway\n\ntest_it if http.send({})\n")
	s := newSource(t, bundles.Config{Paths: []string{dir}}, e)
	if err := s.Reload(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := reason(t, e); got != "mounted" {
		t.Errorf("decided %q, want mounted", got)
	}
}

func TestPathsRootDataAsOPADoes(t *testing.T) {
	t.Parallel()
	dir, e := t.TempDir(), newEngine(t)
	write(t, dir,
		"gateway.rego", "package gateway\n\ndecision := {\"allow\": false, \"reason\": sprintf(\"%s %s %s\", [data.top, data.a.b.c, data.y.z])}\n",
		"data.json", `{"top": "1"}`, "a/b/any.json", `{"c": "2"}`, "y/data.yaml", "z: '3'\n")
	s := newSource(t, bundles.Config{Paths: []string{dir}}, e)
	if err := s.Reload(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := reason(t, e); got != "1 2 3" {
		t.Errorf("decided %q, want 1 2 3", got)
	}
}

func TestEmbeddedPolicyDecides(t *testing.T) {
	t.Parallel()
	ctx, e := context.Background(), newEngine(t)
	s, err := bundles.New(bundles.Config{Paths: []string{"."}}, bundles.Deps{Engine: e, FS: policies.Tree()})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(ctx); err != nil {
		t.Fatal(err)
	}
	alice := &authz.Identity{Authenticated: true, Subject: "alice", Claims: map[string]any{"roles": []any{"reader"}}}
	for _, tc := range []struct {
		name     string
		method   string
		segments []string
		identity *authz.Identity
		allow    bool
		status   int
	}{
		{"reader reads", "GET", []string{"v1", "orders", "42"}, alice, true, 0},
		{"reader writes", "POST", []string{"v1", "orders"}, alice, false, 0},
		{"nobody reads", "GET", []string{"v1", "orders"}, nil, false, 401},
		{"public", "GET", []string{"public", "x"}, nil, true, 0},
		{"elsewhere", "GET", []string{"admin"}, alice, false, 0},
	} {
		d, err := e.Decide(ctx, &authz.Input{
			Request: authz.Request{Method: tc.method, Segments: tc.segments}, Identity: tc.identity,
		})
		if err != nil || d.Fault != nil {
			t.Fatalf("%s: %v, fault %v", tc.name, err, d.Fault)
		}
		if d.Allow != tc.allow || d.Status != tc.status {
			t.Errorf("%s: allow %v, status %d (%s), want %v, %d", tc.name, d.Allow, d.Status, d.Reason, tc.allow, tc.status)
		}
		if d.Allow && tc.identity != nil && d.Upstream.SetHeaders["x-user"] != "alice" {
			t.Errorf("%s: upstream headers %v, want x-user", tc.name, d.Upstream.SetHeaders)
		}
	}
}

func TestNoSourceIsNotReady(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	s := newSource(t, bundles.Config{}, e)
	run(t, s)
	if st := s.Status(); st.Ready || st.Error == "" {
		t.Errorf("without a source: %+v, want not ready and why", st)
	}
	if got := reason(t, e); got != authz.ErrNoPolicy.Error() {
		t.Errorf("decided %q, want %v", got, authz.ErrNoPolicy)
	}
}

// What the default policy reads is what the engine builds for each request.
func TestEmbeddedPolicyReadsLittle(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	s, err := bundles.New(bundles.Config{Paths: []string{"."}}, bundles.Deps{Engine: e, FS: policies.Tree()})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(context.Background()); err != nil {
		t.Fatal(err)
	}
	reads, ok := e.Reads(policies.Entrypoint)
	if !ok {
		t.Fatal("the entrypoint is not prepared")
	}
	want := []string{
		"input.identity.authenticated", "input.identity.authenticator", "input.identity.claims.roles",
		"input.identity.scopes", "input.identity.subject",
		"input.request.method", "input.request.segments", "input.route.name",
	}
	got := reads.Input.Paths()
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("input that the default policy reads (-want +got):\n%s", diff)
	}
	if len(reads.Nondeterministic) != 0 {
		t.Errorf("it calls %v: its decisions cannot be cached", reads.Nondeterministic)
	}
}
