package edgestack

import (
	"cmp"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// label is one of a request, by which limits count. It has a value, or a term of the
// policy that has it, or a reason why it has none here.
type label struct {
	key    string
	value  string
	term   string
	header string // lower-case name: without the header the whole group is absent
	lost   string
}

// group is a label group of a Mapping: Envoy's descriptor.
type group struct {
	domain, name string
	labels       []label
}

// readLabels reads the labels of a Mapping, by their domains. The names of groups mean
// nothing in Edge Stack.
func readLabels(s *section) (out []group) {
	domains := s.sub("labels")
	if domains == nil {
		return nil
	}
	for i := 0; i+1 < len(domains.node.Content); i += 2 {
		domain := domains.node.Content[i].Value
		for _, item := range domains.subs(domain) {
			for j := 0; j+1 < len(item.node.Content); j += 2 {
				name := item.node.Content[j].Value
				out = append(out, group{domain, name, readGroup(item, name)})
			}
		}
	}
	return out
}

// readDefaults reads the labels that the Module puts before those of every group.
func readDefaults(s *section) map[string][]label {
	out := map[string][]label{}
	config := s.sub("config")
	if config == nil {
		return out
	}
	domains := config.sub("default_labels")
	if domains == nil {
		return out
	}
	for i := 0; i+1 < len(domains.node.Content); i += 2 {
		domain := domains.node.Content[i].Value
		if d := domains.sub(domain); d != nil {
			out[domain] = readGroup(d, "defaults")
			d.rest()
		}
	}
	return out
}

// readGroup reads a list of label specifiers, of which v2 writes some as texts.
func readGroup(s *section, key string) (out []label) {
	n := s.get(key)
	if n == nil {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		s.bad(s.path+key, n.Line, "a list belongs here")
		return nil
	}
	for i, e := range n.Content {
		if e = resolved(e); e.Kind == yaml.ScalarNode {
			out = append(out, shorthand(e.Value))
			continue
		}
		l := newSection(s.report, s.res, e, fmt.Sprintf("%s%s[%d].", s.path, key, i))
		out = append(out, readLabel(l))
		l.rest()
	}
	return out
}

const unknownLabel = "its kind is not known"

func shorthand(text string) label {
	switch text {
	case "remote_address":
		return label{key: text, term: "input.source.ip"}
	case "source_cluster", "destination_cluster":
		return label{key: text, lost: "there are no clusters of Envoy here"}
	}
	return label{key: "generic_key", value: text}
}

func readLabel(s *section) label {
	for _, key := range []string{"remote_address", "source_cluster", "destination_cluster"} {
		if s.get(key) != nil {
			l := shorthand(key)
			below := s.sub(key)
			l.key = cmp.Or(below.text("key"), key)
			below.rest()
			return l
		}
	}
	if n := s.get("generic_key"); n != nil && n.Kind == yaml.ScalarNode {
		return label{key: cmp.Or(s.text("v3Key"), "generic_key"), value: n.Value}
	} else if n != nil {
		below := s.sub("generic_key")
		defer below.rest()
		return label{key: cmp.Or(below.text("key"), "generic_key"), value: below.text("value")}
	}
	if len(s.node.Content) == 0 {
		return label{lost: unknownLabel}
	}
	key := s.node.Content[0].Value
	if len(s.node.Content) > 2 || resolved(s.node.Content[1]).Kind != yaml.MappingNode {
		return label{key: key, lost: unknownLabel}
	}
	below := s.sub(key)
	defer below.rest()
	below.flag("omit_if_not_present") // that it is true is all that Edge Stack has
	if name := below.text("header_name"); key == "request_headers" && name != "" {
		return headerLabel(below, below.text("key"), "header_name", name)
	}
	return headerLabel(below, key, "header", below.text("header"))
}

// headerLabel takes its value from a header, or from what HTTP/2 has as one.
func headerLabel(s *section, key, from, header string) label {
	switch header = strings.ToLower(header); header {
	case "":
		return label{key: key, lost: unknownLabel}
	case ":method":
		return label{key: key, term: "input.request.method"}
	case ":scheme":
		return label{key: key, term: "input.request.scheme"}
	case ":authority", "host":
		s.differ(from, "the host counts without its port")
		return label{key: key, term: "input.request.host"}
	}
	if strings.HasPrefix(header, ":") {
		return label{key: key, lost: header + " is no label here"}
	}
	return label{key: key, header: header, term: "input.request.headers[" + quoted([]string{header}) + "][0]"}
}
