// Package sweep measures the gateway alone while one thing grows: rules, data,
// tokens, paths, connections, bodies, reloads; and how long it takes to start. It
// owns the policies and the traffic of these measurements. How the gateway is
// configured is the business of package system, what is made of the figures that
// of package report.
package sweep

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/bench/report"
	"github.com/sallyport/sallyport/bench/system"
	"github.com/sallyport/sallyport/bench/work"
)

// Ground is what every sweep stands on.
type Ground struct {
	Dir      string // for what nobody keeps
	Programs system.Programs
	Upstream string // host:port
	Work     *work.Work
	Mode     Mode
	Say      func(format string, args ...any)
}

// Mode says how large things become and how long each is looked at.
type Mode struct {
	Name        string
	Rounds      int
	Length      time.Duration // of a point in a round
	Warm        time.Duration // before the first round
	Rules       []int
	Data        []int // MB, 10^6 bytes of JSON
	Tokens      []int
	Paths       []int
	Connections []int
	Bodies      []int         // bytes
	Reload      time.Duration // with and without reloads, in each round
	ReloadData  int           // MB
	Starts      int
	Decision    time.Duration // timeout of a decision; 0 is the product's
}

// Modes are the sizes by name.
func Modes() map[string]Mode {
	quick := Mode{
		Name: "quick", Rounds: 3, Length: 2 * time.Second, Warm: time.Second,
		Rules: []int{10, 100, 200, 1_000, 10_000}, Data: []int{1, 10, 100},
		Tokens: []int{1, 1_000, 10_000, 100_000, 1_000_000}, Paths: []int{1, 1_000, 100_000, 1_000_000},
		Connections: []int{64, 1_000, 10_000}, Bodies: []int{0, 1 << 10, 64 << 10, 1 << 20, 10 << 20},
		Reload: 5 * time.Second, ReloadData: 10, Starts: 11,
	}
	long := quick
	long.Name, long.Rounds, long.Length, long.Reload, long.Starts = "long", 9, 4*time.Second, 15*time.Second, 31
	return map[string]Mode{"quick": quick, "long": long, "mini": {
		// On a busy machine, a decision may take longer than the product allows by
		// default, of which a test should not fail.
		Name: "mini", Rounds: 1, Length: 100 * time.Millisecond, Warm: 50 * time.Millisecond, Decision: 10 * time.Second,
		Rules: []int{10}, Data: []int{1}, Tokens: []int{100}, Paths: []int{100},
		Connections: []int{100}, Bodies: []int{64 << 10}, Reload: 1500 * time.Millisecond, ReloadData: 1, Starts: 2,
	}}
}

// Sweep is one of the measurements.
type Sweep struct {
	page report.Sweep // without figures
	run  func(context.Context, *Ground, *report.Sweep) error
}

// Name is what the sweep is chosen by.
func (s Sweep) Name() string { return s.page.Name }

// All returns the sweeps in the order of the page.
func All() []Sweep {
	return []Sweep{rules(), data(), tokens(), paths(), connections(), bodies(), reloads(), starts()}
}

// Named returns the sweeps with these names, which commas separate, or all.
func Named(names string) ([]Sweep, error) {
	all := All()
	if names == "" {
		return all, nil
	}
	var out []Sweep
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(all, func(s Sweep) bool { return s.Name() == name })
		if i < 0 {
			return nil, fmt.Errorf("unknown sweep %q", name)
		}
		out = append(out, all[i])
	}
	return out, nil
}

// Run measures. What goes wrong stands on the page, beside the figures there are.
func (s Sweep) Run(ctx context.Context, g *Ground) report.Sweep {
	page := s.page
	g.Say("sweep %s", page.Name)
	if err := s.run(ctx, g, &page); err != nil {
		page.Failed = strings.ReplaceAll(err.Error(), g.Dir, "DIR")
		g.Say("%s: %v", page.Name, err)
	}
	return page
}

// count writes a number with its thousands apart.
func count(n int) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
