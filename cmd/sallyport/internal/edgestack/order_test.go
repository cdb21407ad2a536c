package edgestack_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/edgestack"
	"github.com/sallyport/sallyport/proxy/route"
)

// globs are patterns of rules, the last two of which a route cannot say.
var globs = []string{"*", "/a/*", "/a", "/a/", "/a/b/*", "/a/b", "/b/*", "/a/*/c", "/a*"}

const beyond = 2

// prefixes are of Mappings.
var prefixes = []string{"/", "/a/", "/a/b/", "/a", "/b/"}

var paths = []string{"/", "/a", "/a/", "/a/b", "/a/b/", "/a/b/c", "/a/x/c", "/a/x", "/b", "/b/x", "/c", "/ax"}

// TestFirstMatch compares for pairs of rules and of Mappings what a request meets in
// Edge Stack, computed from its own patterns, with the route that takes it: the same
// Mapping and the same rule. What routes cannot say is at least as closed.
func TestFirstMatch(t *testing.T) {
	tried := 0
	for i, one := range globs {
		for j, two := range globs {
			for k, prefix := range prefixes {
				other := prefixes[(k+1+(i+j)%(len(prefixes)-1))%len(prefixes)]
				for _, open := range []int{-1, 0, 1} {
					e := example{rules: [2]string{one, two}, hosts: [2]string{[]string{"*", "a.example"}[(i+k)%2], "*"}, open: open, prefixes: [2]string{prefix, other}}
					tried += e.check(t, i < len(globs)-beyond && j < len(globs)-beyond)
				}
			}
		}
	}
	if tried < 1000 {
		t.Errorf("only %d requests tried", tried)
	}
}

type example struct {
	rules, hosts, prefixes [2]string
	open                   int // the rule without filters
}

func (e example) yaml() []byte {
	var b strings.Builder
	const head = "---\napiVersion: getambassador.io/v3alpha1\n"
	for i := range 2 {
		fmt.Fprintf(&b, head+"kind: Filter\nmetadata: {name: f%d}\nspec: {JWT: {issuer: \"https://idp.example\", audience: a}}\n", i)
		fmt.Fprintf(&b, head+"kind: Mapping\nmetadata: {name: m%d}\nspec: {prefix: %s, service: s}\n", i, e.prefixes[i])
	}
	b.WriteString(head + "kind: FilterPolicy\nmetadata: {name: p}\nspec:\n  rules:\n")
	for i := range 2 {
		filters := fmt.Sprintf("[{name: f%d}]", i)
		if e.open == i {
			filters = "null"
		}
		fmt.Fprintf(&b, "  - {host: %q, path: %q, filters: %s}\n", e.hosts[i], e.rules[i], filters)
	}
	return []byte(b.String())
}

// wanted returns the Mapping of a request and what guards it, by Edge Stack's rules.
func (e example) wanted(host, path string) (mapping, guard string) {
	best := -1
	for i, p := range e.prefixes {
		if strings.HasPrefix(path, p) && (best < 0 || len(p) > len(e.prefixes[best])) {
			best = i
		}
	}
	if best < 0 {
		return "", ""
	}
	for i := range 2 {
		if glob(e.hosts[i], host) && glob(e.rules[i], path) {
			if e.open == i {
				return fmt.Sprintf("m%d", best), "open"
			}
			return fmt.Sprintf("m%d", best), fmt.Sprintf("f%d", i)
		}
	}
	return fmt.Sprintf("m%d", best), "open"
}

func glob(pattern, text string) bool {
	return regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*") + "$").MatchString(text)
}

func (e example) check(t *testing.T, exact bool) (tried int) {
	t.Helper()
	res, err := edgestack.Import([]edgestack.File{{Name: "f", Data: e.yaml()}}, edgestack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Parse("c", res.Config, func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatalf("%+v: %v\n%s", e, err, res.Config)
	}
	table, err := route.New(cfg.Routes)
	if err != nil {
		t.Fatal(err)
	}
	closed := section(string(res.Policy), "_closed := {")
	for _, host := range []string{"a.example", "b.example"} {
		for _, path := range paths {
			mapping, guard := e.wanted(host, path)
			r := table.Match(&route.Query{Method: "GET", Host: host, Segments: strings.Split(path[1:], "/")})
			gotMapping, got := "", ""
			if r != nil {
				gotMapping, got = r.Config.Upstream, strings.TrimPrefix(r.Config.Authenticate[0], "_")
				if got == "anyone" {
					got = "open"
				}
				if strings.Contains(closed, fmt.Sprintf("%q:", r.Config.Name)) {
					got = "closed"
				}
			}
			tried++
			switch {
			case got == guard && gotMapping == mapping:
			case got == "" || mapping == "" && got == "closed": // 404 or 403 where Edge Stack has the Mapping or 404
				if path != "/ax" && mapping != "" {
					t.Errorf("%+v: %s %s: no route, want %s", e, host, path, mapping)
				}
			case path == "/ax" && got == guard: // another Mapping: /a takes whole segments here
			case !exact && (got == "closed" || guard == "open"): // stricter than it was
			default:
				t.Errorf("%+v: %s %s: got %s %s, want %s %s\n%s", e, host, path, gotMapping, got, mapping, guard, res.Config)
			}
		}
	}
	if exact && slices.ContainsFunc(res.Differences, func(d edgestack.Difference) bool { return strings.Contains(d.Text, "cannot say") }) {
		t.Errorf("%+v: %v", e, res.Differences)
	}
	return tried
}

// section returns the lines of text after the one that begins with head.
func section(text, head string) string {
	_, after, _ := strings.Cut(text, head)
	return after
}
