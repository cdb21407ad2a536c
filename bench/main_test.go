package main

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/bench/system"
	"github.com/sallyport/sallyport/bench/work"
)

func TestCommandRefusesWhatItDoesNotKnow(t *testing.T) {
	for args, want := range map[string]string{
		"race":            "unknown verb",
		"serve apache":    `unknown server "apache"`,
		"run -rounds 0":   "at least 1",
		"-length 10ms":    "at least 1s",
		"guard -rounds 0": "at least 1",
		"guard now":       `unexpected argument "now"`,
		"guard -thresholds /absent/thresholds.json": "read the thresholds",
		"run now":              `unexpected argument "now"`,
		"-systems nginx,envoy": `unknown system "envoy"`,

		"sweep -mode slow":         `unknown mode "slow"`,
		"sweep -sweeps rules,moon": `unknown sweep "moon"`,
		"sweep -rounds -1":         "must not be negative",
		"sweep now":                `unexpected argument "now"`,
	} {
		if err := command(t.Context(), strings.Fields(args), io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", args, err, want)
		}
	}
}

func TestChooseKeepsTheOrderGiven(t *testing.T) {
	got, err := choose("nginx-opa,nginx", "")
	if err != nil || len(got) != 2 || got[0].Name != "nginx-opa" || got[1].Name != "nginx" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestChooseAddsTheBaselineOfTheGatewayOnly(t *testing.T) {
	got, err := choose("nginx,sallyport-jwt", "/opt/other")
	if err != nil || len(got) != 3 || got[1].Name != "sallyport-jwt" || got[2].Name != "sallyport-jwt-baseline" {
		t.Fatalf("%v, %v", got, err)
	}
	w, err := work.New(t.TempDir(), 1, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range map[int]string{1: "/opt/this", 2: "/opt/other"} {
		specs, err := got[i].Plan(system.Site{Dir: t.TempDir(), Work: w, Programs: system.Programs{Sallyport: "/opt/this"}})
		if err != nil || specs[0].Path != want {
			t.Errorf("%s runs %v, %v", got[i].Name, specs, err)
		}
	}
}

func TestPortableNamesNoFolderOfThisMachine(t *testing.T) {
	h := &harness{dir: "/tmp/bench-1", options: options{root: "/home/me/sallyport"}}
	if got := h.portable("/home/me/sallyport/bin/sallyport -c /tmp/bench-1/x"); got != "bin/sallyport -c DIR/x" {
		t.Error(got)
	}
}

func TestSweepFlags(t *testing.T) {
	o, err := parseSweeps(strings.Fields("-sweeps start,rules -length 5s"))
	if err != nil {
		t.Fatal(err)
	}
	if o.mode.Name != "quick" || o.mode.Rounds != 3 || o.mode.Length != 5*time.Second || len(o.chosen) != 2 {
		t.Errorf("%+v", o)
	}
	if got, want := o.command(), "make bench-sweep BENCH_FLAGS='-mode quick -rounds 3 -length 5s -sweeps start,rules'"; got != want {
		t.Error(got)
	}
}
