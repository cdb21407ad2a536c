package sweep_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/bench/peer"
	"github.com/sallyport/sallyport/bench/report"
	"github.com/sallyport/sallyport/bench/sweep"
	"github.com/sallyport/sallyport/bench/system"
	"github.com/sallyport/sallyport/bench/work"
)

func TestNamedKeepsTheOrderGiven(t *testing.T) {
	got, err := sweep.Named("start,rules")
	if err != nil || len(got) != 2 || got[0].Name() != "start" || got[1].Name() != "rules" {
		t.Errorf("%v, %v", got, err)
	}
	if all, err := sweep.Named(""); err != nil || len(all) != 8 {
		t.Errorf("%d sweeps, %v", len(all), err)
	}
	if _, err := sweep.Named("rules,walls"); err == nil || !strings.Contains(err.Error(), `unknown sweep "walls"`) {
		t.Errorf("got %v", err)
	}
}

// ground builds the gateway and serves the upstream in this process.
func ground(t *testing.T) *sweep.Ground {
	t.Helper()
	gateway := filepath.Join(t.TempDir(), "sallyport")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", gateway, "../../cmd/sallyport").CombinedOutput(); err != nil {
		t.Fatalf("build the gateway: %v: %s", err, out)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = peer.Upstream(t.Context(), ln) }() // ends with the test
	w, err := work.New(t.TempDir(), 4, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return &sweep.Ground{
		Dir: t.TempDir(), Programs: system.Programs{Sallyport: gateway}, Upstream: ln.Addr().String(), Work: w,
		Mode: sweep.Modes()["mini"], Say: t.Logf,
	}
}

// Sweeps run from end to end with the real gateway at the smallest sizes. The
// figures mean nothing; that they are there, and that all is torn down, does. The
// one that reloads takes too long for a test; its parts have their own.
func TestSweepsRun(t *testing.T) {
	g := ground(t)
	chosen, err := sweep.Named("rules,data,tokens,connections,bodies,start")
	if err != nil {
		t.Fatal(err)
	}
	page := report.Sweeps{Mode: g.Mode.Name}
	for _, s := range chosen {
		got := s.Run(t.Context(), g)
		if got.Failed != "" {
			t.Errorf("%s: %s", got.Name, got.Failed)
		}
		for _, l := range got.Lines {
			if len(l.Points) == 0 {
				t.Errorf("%s: no point of %q", got.Name, l.Name)
			}
			for _, p := range l.Points {
				if v, ok := p.Values[got.Plotted]; !ok && p.At > 0 || v.Min < 0 {
					t.Errorf("%s, %s: %s is %+v", got.Name, p.Label, got.Plotted, v)
				}
			}
		}
		page.Sweeps = append(page.Sweeps, got)
	}
	out := t.TempDir()
	if err := page.Write(out); err != nil {
		t.Fatal(err)
	}
	for _, s := range page.Sweeps {
		if raw, err := os.ReadFile(filepath.Join(out, "sweep-"+s.Name+".svg")); err != nil || len(raw) == 0 {
			t.Errorf("plot of %s: %d bytes, %v", s.Name, len(raw), err)
		}
	}
	left, err := filepath.Glob(filepath.Join(g.Dir, "gateway-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestAFailureStandsOnThePage(t *testing.T) {
	g := &sweep.Ground{Dir: t.TempDir(), Mode: sweep.Modes()["mini"], Say: t.Logf, Programs: system.Programs{Sallyport: "/no/such/gateway"}}
	w, err := work.New(t.TempDir(), 2, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	g.Work = w
	for _, s := range sweep.All() {
		got := s.Run(t.Context(), g)
		if !strings.Contains(got.Failed, "no/such/gateway") {
			t.Errorf("%s: %q", got.Name, got.Failed)
		}
		for _, l := range got.Lines {
			if len(l.Points) > 0 {
				t.Errorf("%s has points of a gateway that never ran", got.Name)
			}
		}
	}
}
