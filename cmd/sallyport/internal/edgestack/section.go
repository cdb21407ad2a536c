package edgestack

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// report collects what is wrong with the input and what is different in the output.
type report struct {
	errs        []error
	differences []Difference
}

// section is a mapping of keys that notes which of them were read, so that none is
// dropped without a word. A nil section has no keys.
type section struct {
	report *report
	res    *resource
	node   *yaml.Node
	path   string // below spec, with a dot at the end; empty for spec itself
	used   map[string]bool
}

func newSection(r *report, res *resource, node *yaml.Node, path string) *section {
	s := &section{report: r, res: res, node: node, path: path, used: map[string]bool{}}
	if node.Kind != yaml.MappingNode {
		s.node = &yaml.Node{Kind: yaml.MappingNode, Line: node.Line}
		if node.Tag != "!!null" {
			s.bad(strings.TrimSuffix(path, "."), node.Line, "keys belong here")
		}
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(s.node.Content); i += 2 {
		key := s.node.Content[i]
		if key.Tag == "!!merge" {
			s.bad(path+"<<", key.Line, "merge keys are not read: write the keys out")
		}
		if seen[key.Value] { // readers of YAML disagree on which of them counts
			s.bad(path+key.Value, key.Line, "stands twice")
		}
		seen[key.Value] = true
	}
	return s
}

func (s *section) bad(key string, line int, text string) {
	s.report.errs = append(s.report.errs, fmt.Errorf("%s", Difference{s.res.file, line, s.res.title(), key, text}))
}

// get returns the value of key, nil if it is absent or null.
func (s *section) get(key string) *yaml.Node {
	if s == nil {
		return nil
	}
	for i := 0; i+1 < len(s.node.Content); i += 2 {
		if s.node.Content[i].Value == key {
			s.used[key] = true
			if v := resolved(s.node.Content[i+1]); v.Tag != "!!null" {
				return v
			}
			return nil
		}
	}
	return nil
}

func resolved(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// text returns a scalar as it is written, empty if absent.
func (s *section) text(key string) string {
	n := s.get(key)
	if n == nil {
		return ""
	}
	if n.Kind != yaml.ScalarNode {
		s.bad(s.path+key, n.Line, "a text belongs here")
		return ""
	}
	return n.Value
}

// texts returns a list of scalars; one scalar is a list of one.
func (s *section) texts(key string) []string {
	n := s.get(key)
	if n == nil {
		return nil
	}
	if n.Kind == yaml.ScalarNode {
		return []string{n.Value}
	}
	var out []string
	for _, e := range n.Content {
		if e = resolved(e); n.Kind != yaml.SequenceNode || e.Kind != yaml.ScalarNode {
			s.bad(s.path+key, n.Line, "a list of texts belongs here")
			return nil
		}
		out = append(out, e.Value)
	}
	return out
}

// flag returns a boolean, false if absent.
func (s *section) flag(key string) bool {
	n := s.get(key)
	if n == nil {
		return false
	}
	v, err := strconv.ParseBool(n.Value)
	if err != nil || n.Kind != yaml.ScalarNode {
		s.bad(s.path+key, n.Line, "true or false belongs here")
	}
	return v
}

// millis returns a number of milliseconds and whether it is there.
func (s *section) millis(key string) (time.Duration, bool) {
	n := s.get(key)
	if n == nil {
		return 0, false
	}
	v, err := strconv.ParseInt(n.Value, 10, 32)
	if err != nil || v < 0 {
		s.bad(s.path+key, n.Line, "a number of milliseconds belongs here")
	}
	return time.Duration(v) * time.Millisecond, true
}

// duration returns a duration such as 5s, 0 if absent.
func (s *section) duration(key string) time.Duration {
	text := s.text(key)
	if text == "" {
		return 0
	}
	v, err := time.ParseDuration(text)
	if err != nil || v < 0 {
		s.bad(s.path+key, s.get(key).Line, "a duration such as 5s belongs here")
	}
	return v
}

// pairs returns a mapping of texts, never nil.
func (s *section) pairs(key string) map[string]string {
	if below := s.sub(key); below != nil {
		return below.all()
	}
	return map[string]string{}
}

// all returns every key with its text.
func (s *section) all() map[string]string {
	out := map[string]string{}
	for i := 0; i+1 < len(s.node.Content); i += 2 {
		name := s.node.Content[i].Value
		out[name] = s.text(name)
	}
	return out
}

// sub returns the keys below key, nil if absent.
func (s *section) sub(key string) *section {
	n := s.get(key)
	if n == nil {
		return nil
	}
	return newSection(s.report, s.res, n, s.path+key+".")
}

// subs returns the elements of a list of mappings.
func (s *section) subs(key string) (out []*section) {
	n := s.get(key)
	if n == nil {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		s.bad(s.path+key, n.Line, "a list belongs here")
		return nil
	}
	for i, e := range n.Content {
		out = append(out, newSection(s.report, s.res, resolved(e), fmt.Sprintf("%s%s[%d].", s.path, key, i)))
	}
	return out
}

// differ says what is different about a key, which counts as read.
func (s *section) differ(key, format string, args ...any) {
	line := s.node.Line
	for i := 0; i+1 < len(s.node.Content); i += 2 {
		if s.node.Content[i].Value == key {
			line = s.node.Content[i].Line
		}
	}
	s.used[key] = true
	path := strings.TrimSuffix(s.path+key, ".")
	s.report.differences = append(s.report.differences, Difference{s.res.file, line, s.res.title(), path, fmt.Sprintf(format, args...)})
}

// without says of each key that is there, and says something, that it is not
// carried over.
func (s *section) without(advice string, keys ...string) {
	if s == nil {
		return
	}
	for _, key := range keys {
		if n := s.get(key); n != nil && n.Value != "false" {
			s.differ(key, "is not carried over: %s", advice)
		}
	}
}

// rest says of every key that nobody has read that it is not carried over, and
// reports whether there was one.
func (s *section) rest() (some bool) {
	if s == nil {
		return false
	}
	for i := 0; i+1 < len(s.node.Content); i += 2 {
		if key := s.node.Content[i].Value; !s.used[key] {
			s.differ(key, "is not carried over: this key is not known")
			some = true
		}
	}
	return some
}
