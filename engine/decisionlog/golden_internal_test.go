package decisionlog

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/engine/authz"
)

var update = flag.Bool("update", false, "write testdata/records.golden")

// goldenConfigs are the configurations that the records are written with.
func goldenConfigs() map[string]Config {
	masking, small := Default(), Default()
	masking.Mask = MaskConfig{Headers: []string{"X-Tenant"}, Query: []string{"Who_Is"}, Claims: []string{"Email", "address"}}
	small.MaxInput = 600
	return map[string]Config{"default": Default(), "masking": masking, "small": small}
}

// TestGolden holds every byte of a line: auditors' tools read them. Each record is
// written several times, since what is remembered of a record must not change it.
func TestGolden(t *testing.T) {
	var got strings.Builder
	for _, name := range []string{"default", "masking", "small"} {
		cfg := goldenConfigs()[name]
		for _, c := range goldenCases() {
			lines := goldenLines(t, cfg, c.records...)
			if name != "default" || !c.readable {
				lines = digests(lines)
			}
			fmt.Fprintf(&got, "# %s, %s\n%s", name, c.name, lines)
		}
	}
	const file = "testdata/records.golden"
	if *update {
		if err := os.WriteFile(file, []byte(got.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got.String(), "\n")); diff != "" {
		t.Error(diff)
	}
}

// digests returns a digest for each line: the lines themselves would be megabytes.
func digests(lines string) string {
	var out strings.Builder
	for line := range strings.Lines(lines) {
		sum := sha256.Sum256([]byte(line))
		fmt.Fprintf(&out, "%x\n", sum[:8])
	}
	return out.String()
}

// goldenRounds is how often each record is written.
const goldenRounds = 4

// goldenLines returns the lines of the records and what a sink saw of them.
func goldenLines(t *testing.T, cfg Config, records ...*authz.Record) string {
	t.Helper()
	var out bytes.Buffer
	s := &goldenSink{t: t}
	l, err := New(cfg, &out, Deps{
		Entrypoint: "gateway/decision", Sinks: []Sink{s},
		Now: func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 6_789_000, time.UTC) },
	})
	if err != nil {
		t.Fatal(err)
	}
	l.enc.mask.mac = hmac.New(sha256.New, []byte("a key that is no secret"))
	for range goldenRounds {
		for _, r := range records {
			l.Record(r)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.work(ctx); err != nil { // without the time limit of Run
		t.Fatal(err)
	}
	if s.lines.String() != out.String() {
		t.Errorf("written %s\nthe sink got %s", out.String(), s.lines.String())
	}
	return firstRound(t, out.String()) + firstRound(t, s.seen.String())
}

// firstRound returns one of the rounds, which must all be the same.
func firstRound(t *testing.T, text string) string {
	t.Helper()
	one := text[:len(text)/goldenRounds]
	if strings.Repeat(one, goldenRounds) != text {
		t.Errorf("the rounds differ: %s", text)
	}
	return one
}

// goldenSink keeps what a sink gets, and checks that the parts are those of the line.
type goldenSink struct {
	t           *testing.T
	lines, seen strings.Builder
}

func (s *goldenSink) Emit(_ context.Context, e *Event) {
	s.lines.Write(append(bytes.Clone(e.JSON), '\n'))
	for member, part := range map[string][]byte{"input": e.Input, "decision": e.Decision} {
		if present := bytes.Contains(e.JSON, []byte(`,"`+member+`":{`)); present != (part != nil) {
			s.t.Errorf("%s %q of %s", member, part, e.JSON)
		}
		if !bytes.Contains(e.JSON, append([]byte(`,"`+member+`":`), part...)) && part != nil {
			s.t.Errorf("%s %q is not of %s", member, part, e.JSON)
		}
	}
	fmt.Fprintf(&s.seen, "  %s %q %q %s %q %q %q %q %q %d %d\n", e.Time.UTC().Format(time.RFC3339Nano), e.RequestID, e.DecisionID, e.Outcome,
		e.Entrypoint, e.Revision, fmt.Sprint(e.Bundles), e.TraceID, e.SpanID, len(e.Input), len(e.Decision))
}

// A decision of the cache is encoded once for many records, which must not show.
func TestSharedDecisionsAreWrittenAlike(t *testing.T) {
	own, shared := decisionCases(), decisionCases()
	for i := range own {
		if own[i].Decision != nil {
			own[i].Decision.Cached, shared[i].Decision.Cached = false, true
		}
	}
	want := goldenLines(t, Default(), own...)
	got := strings.ReplaceAll(goldenLines(t, Default(), shared...), `,"cached":true`, "")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
