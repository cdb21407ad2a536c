package strictyaml_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/config/strictyaml"
	"github.com/sallyport/sallyport/engine/setting"
)

type inner struct {
	CertFile string        `yaml:"cert_file" sallyport:"path"`
	Files    []string      `yaml:"files" sallyport:"path"`
	Timeout  time.Duration `yaml:"timeout"`
	Max      setting.Size  `yaml:"max"`
}

type shared struct {
	Name string `yaml:"name"`
}

type outer struct {
	shared    `yaml:"-"`
	Inlined   shared            `yaml:",inline"`
	Listeners []inner           `yaml:"listeners"`
	Optional  *inner            `yaml:"optional"`
	Labels    map[string]string `yaml:"labels"`
	Count     int               `yaml:"count"`
	On        bool              `yaml:"on_off"`
	Free      map[string]any    `yaml:"free"`
}

func env(name string) (string, bool) {
	v, ok := map[string]string{"SECRET": "s3cret", "N": "7"}[name]
	return v, ok
}

func TestDecode(t *testing.T) {
	var got outer
	_, err := strictyaml.Decode("/etc/gw/c.yaml", []byte(`
name: gw
listeners:
  - {cert_file: a.pem, files: [b.pem, /abs.pem], timeout: 5s, max: 10MiB}
optional: {max: "1024"}
labels: {team: "${SECRET}", raw: "$${SECRET}"}
count: ${N}
on_off: true
free: {services: {s: {url: "http://x", token: "${SECRET}", n: 3, l: [1, a]}}}
`), env, &got)
	if err != nil {
		t.Fatal(err)
	}
	want := outer{
		Inlined:   shared{Name: "gw"},
		Listeners: []inner{{CertFile: "/etc/gw/a.pem", Files: []string{"/etc/gw/b.pem", "/abs.pem"}, Timeout: 5 * time.Second, Max: 10 << 20}},
		Optional:  &inner{Max: 1024},
		Labels:    map[string]string{"team": "s3cret", "raw": "${SECRET}"},
		Count:     7,
		On:        true,
		Free: map[string]any{"services": map[string]any{"s": map[string]any{
			"url": "http://x", "token": "s3cret", "n": 3, "l": []any{1, "a"},
		}}},
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(outer{})); d != "" {
		t.Error(d)
	}
}

func TestElementsStartAsTheirDefault(t *testing.T) {
	var got outer
	_, err := strictyaml.Decode("/c.yaml", []byte("listeners: [{timeout: 1s}, {max: 1KiB}]\noptional: {}\n"), env, &got,
		inner{Timeout: time.Minute, Max: 7})
	if err != nil {
		t.Fatal(err)
	}
	want := outer{Listeners: []inner{{Timeout: time.Second, Max: 7}, {Timeout: time.Minute, Max: 1024}}, Optional: &inner{Timeout: time.Minute, Max: 7}}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(outer{})); d != "" {
		t.Error(d)
	}
}

func TestEveryProblemAtOnce(t *testing.T) {
	var got outer
	_, err := strictyaml.Decode("c.yaml", []byte(`nam: gw
listeners:
  - cert_flie: a.pem
    timeout: fast
    max: lots
count: many
count: 2
on_off: [yes]
labels: {a: 1, b: "${MISSING}"}
optional: text
zzzzzzzzzzzz: 1
`), env, &got)
	want := []string{
		`c.yaml:1: nam: unknown key; did you mean "name"?`,
		`c.yaml:3: listeners[0].cert_flie: unknown key; did you mean "cert_file"?`,
		`c.yaml:4: listeners[0].timeout: "fast" is not a duration such as 5s or 2m`,
		`c.yaml:5: listeners[0].max: "lots" is not a valid value: "lots" is not a size such as 64KiB or 10MiB`,
		`c.yaml:6: count: "many" is not a whole number`,
		`c.yaml:7: count: given twice; first in line 6`,
		`c.yaml:8: on_off: is a list; true or false belongs here`,
		`c.yaml:9: labels.a: is a number; text belongs here: write "1" in quotes`,
		`c.yaml:9: labels.b: environment variable MISSING is not set`,
		`c.yaml:10: optional: is text; a mapping of keys belongs here`,
		`c.yaml:11: zzzzzzzzzzzz: unknown key; known here: count, free, labels, listeners, name, on_off, optional`,
	}
	if err == nil {
		t.Fatal("no problem found")
	}
	if d := cmp.Diff(want, strings.Split(err.Error(), "\n")); d != "" {
		t.Error(d)
	}
}

func TestNotOneDocument(t *testing.T) {
	for name, text := range map[string]string{
		"empty":    "",
		"two":      "name: a\n---\nname: b\n",
		"syntax":   "name: [a\n",
		"tabs":     "name:\n\tx: 1\n",
		"cycle":    "free: {x: &a [*a]}\n",
		"mergekey": "labels: &l {a: b}\noptional:\n  <<: *l\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := strictyaml.Decode("c.yaml", []byte(text), env, &outer{})
			var p *strictyaml.Problem
			if !errors.As(err, &p) || p.File != "c.yaml" {
				t.Errorf("got %v, want a problem of c.yaml", err)
			}
		})
	}
}

func TestAtFindsTheNearestEnclosingKey(t *testing.T) {
	var got outer
	doc, err := strictyaml.Decode("c.yaml", []byte("name: gw\nlisteners:\n  - timeout: 5s\n"), env, &got)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]int{
		"listeners[0].timeout":   3,
		"listeners[0].cert_file": 3,
		"listeners":              2,
		"name":                   1,
		"admin.address":          1,
	} {
		if p := doc.At(key, "x"); p.Line != want || p.Key != key {
			t.Errorf("At(%s) = line %d, want %d", key, p.Line, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("name: gw\nlisteners: [{timeout: 5s}]\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("free: {x: &a [*a]}\n"))
	f.Add([]byte("free: {a: &x {b: 1}, c: *x}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var got outer
		_, err := strictyaml.Decode("c.yaml", data, env, &got)
		var p *strictyaml.Problem
		if err != nil && !errors.As(err, &p) {
			t.Errorf("problem without position: %v", err)
		}
	})
}
