package main

import (
	"io"
	"strings"
	"testing"
)

func TestCommandRefusesWhatItDoesNotKnow(t *testing.T) {
	for args, want := range map[string]string{
		"race":                 "unknown verb",
		"serve apache":         `unknown server "apache"`,
		"run -rounds 0":        "at least 1",
		"-length 10ms":         "at least 1s",
		"run now":              `unexpected argument "now"`,
		"-systems nginx,envoy": `unknown system "envoy"`,
		"-systems sallyport":   "sallyport cannot be measured: the gateway has no decision cache",
	} {
		if err := command(t.Context(), strings.Fields(args), io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", args, err, want)
		}
	}
}

func TestChooseKeepsTheOrderGiven(t *testing.T) {
	got, err := choose("nginx-opa,nginx")
	if err != nil || len(got) != 2 || got[0].Name != "nginx-opa" || got[1].Name != "nginx" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestPortableNamesNoFolderOfThisMachine(t *testing.T) {
	h := &harness{dir: "/tmp/bench-1", options: options{root: "/home/me/sallyport"}}
	if got := h.portable("/home/me/sallyport/bin/sallyport -c /tmp/bench-1/x"); got != "bin/sallyport -c DIR/x" {
		t.Error(got)
	}
}
