package decisionlog_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/decisionlog"
	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/engine/meter/metertest"
	"github.com/sallyport/sallyport/engine/setting"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newLog(t testing.TB, w io.Writer, change func(*decisionlog.Config, *decisionlog.Deps)) *decisionlog.Log {
	t.Helper()
	cfg, deps := decisionlog.Default(), decisionlog.Deps{Entrypoint: "gateway/decision"}
	if change != nil {
		change(&cfg, &deps)
	}
	l, err := decisionlog.New(cfg, w, deps)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// write returns the lines that the records become.
func write(t testing.TB, change func(*decisionlog.Config, *decisionlog.Deps), records ...*authz.Record) []string {
	t.Helper()
	var out bytes.Buffer
	l := newLog(t, &out, change)
	for _, r := range records {
		l.Record(r)
	}
	runToEnd(t, l)
	if out.Len() == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
}

// runToEnd runs the log with a context that has ended: it writes what is queued.
func runToEnd(t testing.TB, l *decisionlog.Log) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

func record() *authz.Record {
	return &authz.Record{
		Input: &authz.Input{
			Request: authz.Request{
				ID: "r1", Method: "GET", Scheme: "https", Host: "api.example.com", Port: 443, Path: "/v1/orders/42",
				Segments: []string{"v1", "orders", "42"}, RawQuery: "a=1&access_token=s3cret&a=2",
				Headers:  []authz.Header{{Name: "accept", Value: "*/*"}, {Name: "x-api-key", Value: "s3cret"}},
				Protocol: "HTTP/1.1", ContentLength: -1, Time: time.UnixMilli(1767323045678),
			},
			Source: authz.Source{IP: "192.0.2.1", Port: 4711},
			Identity: &authz.Identity{
				Authenticated: true, Authenticator: "corp", Kind: "jwt", Subject: "alice",
				Claims: map[string]any{"roles": []any{"reader"}, "n": json.Number("1.50")},
			},
			Route: authz.Route{Name: "orders", Params: map[string]string{"id": "42"}, Upstream: "orders"},
		},
		DecisionID: "d1",
		Decision: &authz.Decision{
			Allow: true, Reason: "may read", Labels: map[string]string{"rule": "read"}, Revision: "one", Bundles: map[string]string{"authz": "r1", "data": "r2"},
			Upstream: authz.UpstreamObligation{SetHeaders: map[string]string{"x-user": "alice", "Authorization": "Bearer s3cret"}},
		},
		Outcome: authz.OutcomeAllowed, Status: 200, Upstream: "orders",
		Authenticate: 12 * time.Microsecond, Decide: 34 * time.Microsecond, Forward: 5 * time.Millisecond,
		TraceID: "0af7651916cd43dd8448eb211c80319c", SpanID: "b7ad6b7169203331",
	}
}

func TestRecord(t *testing.T) {
	lines := write(t, nil, record())
	if len(lines) != 1 {
		t.Fatalf("lines: %q", lines)
	}
	if strings.Contains(lines[0], "s3cret") {
		t.Errorf("a secret is written: %s", lines[0])
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(lines[0]), &got); err != nil {
		t.Fatal(err)
	}
	input := member[map[string]any](t, got, "input")
	request := member[map[string]any](t, input, "request")
	hash := member[[]any](t, request, "headers", "x-api-key")[0]
	if s, ok := hash.(string); !ok || !strings.HasPrefix(s, "hmac:") || len(s) != 5+24 {
		t.Errorf("masked value %v", hash)
	}
	// The same secret is the same hash wherever it stands.
	if diff := cmp.Diff([]any{hash}, request["query"].(map[string]any)["access_token"]); diff != "" {
		t.Error(diff)
	}
	if want := fmt.Sprintf("a=1&access_token=%v&a=2", hash); request["raw_query"] != want {
		t.Errorf("raw query %v, want %s", request["raw_query"], want)
	}
	delete(got, "input")
	decision := member[map[string]any](t, got, "decision", "upstream", "set_headers")
	if s, ok := decision["Authorization"].(string); !ok || !strings.HasPrefix(s, "hmac:") {
		t.Errorf("authorization for the upstream: %v", decision)
	}
	decision["Authorization"] = "masked"
	want := map[string]any{
		"timestamp": "2026-01-02T03:04:05.678Z", "request_id": "r1", "decision_id": "d1", "outcome": "allowed", "status": 200.0,
		"reason": "may read", "labels": map[string]any{"rule": "read"}, "revision": "one", "bundles": map[string]any{"authz": map[string]any{"revision": "r1"}, "data": map[string]any{"revision": "r2"}}, "entrypoint": "gateway/decision",
		"decision": map[string]any{"allow": true, "upstream": map[string]any{
			"set_headers": map[string]any{"x-user": "alice", "Authorization": "masked"},
		}},
		"upstream": "orders", "timings_us": map[string]any{"authenticate": 12.0, "decide": 34.0, "forward": 5000.0},
		"trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func member[T any](t *testing.T, doc map[string]any, path ...string) T {
	t.Helper()
	var v any = doc
	for _, name := range path {
		m, ok := v.(map[string]any)
		if !ok {
			t.Fatalf("%v has no members, want %v", v, path)
		}
		v = m[name]
	}
	out, ok := v.(T)
	if !ok {
		t.Fatalf("%v is %T", path, v)
	}
	return out
}

func TestRecordSaysWhatWasCached(t *testing.T) {
	r := record()
	if line := write(t, nil, r)[0]; strings.Contains(line, `"cached"`) {
		t.Errorf("evaluated, but recorded as %s", line)
	}
	r.Decision.Cached = true
	if line := write(t, nil, r)[0]; !strings.Contains(line, `"cached":true`) {
		t.Errorf("cached, but recorded as %s", line)
	}
}

func TestRecordWithoutDecision(t *testing.T) {
	lines := write(t, func(_ *decisionlog.Config, d *decisionlog.Deps) {
		d.Now = func() time.Time { return time.UnixMilli(0) }
	}, &authz.Record{Outcome: authz.OutcomeUnauthenticated, Status: 401, Error: "token expired"})
	want := []string{`{"timestamp":"1970-01-01T00:00:00.000Z","outcome":"unauthenticated","status":401,"error":"token expired","timings_us":{"authenticate":0,"decide":0,"forward":0}}`}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
}

func TestDroppedByThePolicy(t *testing.T) {
	drop, fault := record(), record()
	drop.Decision.LogDrop = true
	fault.Decision = &authz.Decision{LogDrop: true, Fault: &authz.Fault{Kind: authz.FaultEval, Detail: "conflict"}}
	lines := write(t, nil, drop, fault)
	if len(lines) != 1 || !strings.Contains(lines[0], `"fault":{"kind":"eval","detail":"conflict"}`) {
		t.Errorf("lines: %q", lines)
	}
}

// unread is a body that must not be touched any more.
type unread struct{ t *testing.T }

func (u unread) Buffer(context.Context) ([]byte, bool, error) {
	u.t.Error("the log reads the body")
	return nil, false, nil
}

func TestBodyIsNotRecorded(t *testing.T) {
	r := record()
	r.Input.Request.Body = unread{t}
	if lines := write(t, nil, r); len(lines) != 1 || strings.Contains(lines[0], "body") {
		t.Errorf("lines: %q", lines)
	}
	if r.Input.Request.Body == nil {
		t.Error("the caller's record was changed")
	}
}

func TestLargeInputIsLeftOut(t *testing.T) {
	r := record()
	r.Input.Request.Headers = append(r.Input.Request.Headers, authz.Header{Name: "x-large", Value: strings.Repeat("x", 2000)})
	lines := write(t, func(c *decisionlog.Config, _ *decisionlog.Deps) { c.MaxInput = 1000 }, r, record())
	if !strings.Contains(lines[0], `"input_omitted":true`) || strings.Contains(lines[0], `"input":`) || !strings.Contains(lines[1], `"input":`) {
		t.Errorf("lines: %q", lines)
	}
}

// The clock is read for records only that have no time of their own.
func TestTimeOfARecord(t *testing.T) {
	read := 0
	lines := write(t, func(_ *decisionlog.Config, d *decisionlog.Deps) {
		d.Now = func() time.Time { read++; return time.UnixMilli(0) }
	}, record(), &authz.Record{Outcome: authz.OutcomeRefused})
	if !strings.Contains(lines[0], `"timestamp":"2026-01-02T03:04:05.678Z"`) || !strings.Contains(lines[1], `"timestamp":"1970-01-01T00:00:00.000Z"`) || read != 1 {
		t.Errorf("the clock was read %d times for %q", read, lines)
	}
}

func TestFullQueueDropsAndCounts(t *testing.T) {
	metrics := meter.New()
	var out bytes.Buffer
	l := newLog(t, &out, func(c *decisionlog.Config, d *decisionlog.Deps) {
		c.Queue, d.Metrics = 3, metrics
	})
	for range 5 {
		l.Record(record())
	}
	runToEnd(t, l)
	l.Record(record()) // after the end: dropped too
	if got := strings.Count(out.String(), "\n"); got != 3 {
		t.Errorf("%d lines", got)
	}
	if got := metertest.Counts(metrics)["sallyport.decision_log.dropped "]; got != 3 {
		t.Errorf("%d counted as dropped, want 3", got)
	}
	if got := metertest.Counts(metrics)["sallyport.decision_log.written "]; got != 3 {
		t.Errorf("%d counted as written, want 3", got)
	}
}

func TestRecentAndFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog(t, io.Discard, func(c *decisionlog.Config, _ *decisionlog.Deps) { c.Recent = 3 })
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		leaveCtx, leave := context.WithCancel(t.Context())
		leaving, staying := l.Follow(leaveCtx), l.Follow(t.Context())
		for i := range 5 {
			r := record()
			r.Input.Request.ID = fmt.Sprint(i)
			l.Record(r)
		}
		time.Sleep(time.Second) // of the bubble: the log lets records come together
		if diff := cmp.Diff([]string{"4", "3", "2"}, ids(t, l.Recent(10))); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{"4"}, ids(t, l.Recent(1))); diff != "" {
			t.Error(diff)
		}
		leave()
		synctest.Wait()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		for name, ch := range map[string]<-chan []byte{"leaving": leaving, "staying": staying} {
			var got [][]byte
			for e := range ch {
				got = append(got, e)
			}
			if diff := cmp.Diff([]string{"0", "1", "2", "3", "4"}, ids(t, got)); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
		}
		if _, open := <-l.Follow(t.Context()); open {
			t.Error("a log that has ended can be followed")
		}
	})
}

func ids(t *testing.T, lines [][]byte) (out []string) {
	t.Helper()
	for _, line := range lines {
		var e struct {
			RequestID string `json:"request_id"`
		}
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		out = append(out, e.RequestID)
	}
	return out
}

// A follower that does not read delays nobody and misses the rest.
func TestSlowFollowerMisses(t *testing.T) {
	l := newLog(t, io.Discard, nil)
	ch := l.Follow(t.Context())
	for range 1000 {
		l.Record(record())
	}
	runToEnd(t, l)
	n := 0
	for range ch {
		n++
	}
	if n == 0 || n >= 1000 {
		t.Errorf("the follower got %d of 1000", n)
	}
}

type sink struct {
	mu   sync.Mutex
	seen []string
	bad  bool
}

func (s *sink) Emit(_ context.Context, e *decisionlog.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, e.DecisionID+" "+string(e.Outcome)+" "+string(e.Input)+string(e.Decision)+string(e.JSON))
	if s.bad {
		panic("broken sink")
	}
}

func TestSinksGetMaskedEvents(t *testing.T) {
	broken, good := &sink{bad: true}, &sink{}
	write(t, func(_ *decisionlog.Config, d *decisionlog.Deps) { d.Sinks = []decisionlog.Sink{good, broken} }, record(), record())
	if len(good.seen) != 2 || len(broken.seen) != 2 || !strings.HasPrefix(good.seen[0], "d1 allowed {") {
		t.Errorf("sinks saw %q and %q", good.seen, broken.seen)
	}
	if strings.Contains(strings.Join(good.seen, ""), "s3cret") {
		t.Error("a sink got a secret")
	}
}

// flaky fails its first writes.
type flaky struct {
	bytes.Buffer
	failures int
}

func (f *flaky) Write(p []byte) (int, error) {
	if f.failures > 0 {
		f.failures--
		return 0, errors.New("disk full")
	}
	return f.Buffer.Write(p)
}

func TestWritingGoesOnAfterAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, told := &flaky{failures: 2}, &bytes.Buffer{}
		l := newLog(t, out, func(_ *decisionlog.Config, d *decisionlog.Deps) { d.Logger = slog.New(slog.NewTextHandler(told, nil)) })
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		for range 3 {
			l.Record(record())
			time.Sleep(time.Second) // of the bubble: the log lets records come together
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if got := strings.Count(out.String(), "\n"); got != 1 {
			t.Errorf("%d lines after two failed writes of three", got)
		}
		if got := strings.Count(told.String(), "disk full"); got != 1 || !strings.Contains(told.String(), "written again") {
			t.Errorf("operator's log %s", told)
		}
	})
}

// stuck is a pipe that nobody reads.
type stuck chan struct{}

func (s stuck) Write(p []byte) (int, error) {
	<-s
	return len(p), nil
}

func TestReaderThatTakesNothingDoesNotKeepTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pipe := make(stuck)
		l := newLog(t, pipe, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		l.Record(record())
		synctest.Wait()
		l.Record(record())
		cancel()
		begin := time.Now()
		if err := <-done; err == nil || time.Since(begin) > 10*time.Second {
			t.Errorf("got %v after %v", err, time.Since(begin))
		}
		close(pipe)
	})
}

func TestConfigReportsAllProblems(t *testing.T) {
	cfg := decisionlog.Config{Queue: 0, Recent: -1, MaxInput: -1, Mask: decisionlog.MaskConfig{Headers: []string{""}}}
	var keys []string
	for _, p := range setting.Problems(cfg.Validate()) {
		keys = append(keys, p.Key)
	}
	if diff := cmp.Diff([]string{"queue", "recent", "max_input", "mask.headers"}, keys); diff != "" {
		t.Error(diff)
	}
	if _, err := decisionlog.New(cfg, io.Discard, decisionlog.Deps{}); err == nil {
		t.Error("a log with a bad configuration")
	}
}
