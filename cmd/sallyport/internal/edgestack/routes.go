package edgestack

import (
	"fmt"
	"slices"
)

// routes are what Mappings and rules make together: for each Mapping, in the order
// in which Edge Stack tries them, the parts that the rules take, in their order,
// and then what none takes. So the first route that a request matches has its
// Mapping and the first rule that is for it.
func (o *output) routes(in inputs) {
	order(in.mappings)
	if len(in.mappings) == 0 {
		o.report.differences = append(o.report.differences, Difference{Text: "there is no Mapping in these files, and so there are no routes: give the files with the Mappings, too"})
	}
	cells := make([]*cell, len(in.mappings))
	for i, m := range in.mappings {
		cells[i] = &cell{output: o, in: in, mapping: m}
	}
	for i, c := range cells {
		if c.mapping.over {
			c.bare(cells[i+1:])
		}
		c.all(c.mapping.region)
	}
	for _, c := range cells {
		if c.count == 0 {
			c.mapping.spec.differ("", "takes no request: other Mappings before it take the same ones")
		}
	}
	for _, r := range in.rules {
		if !r.used && !r.skip && r.of == nil {
			r.spec.differ("", "no request comes to this rule: there is no Mapping for it, or rules before it take the same requests")
		}
	}
	for _, f := range in.filters {
		if !f.used {
			f.spec.differ("", "is used by no route and not written")
		}
	}
}

// cell makes the routes of one Mapping.
type cell struct {
	output  *output
	in      inputs
	mapping *mapping
	count   int
}

// all makes the routes for a part of the Mapping's requests.
func (c *cell) all(part region) {
	if c.mapping.bypass {
		c.cut(part, c.in.certified)
		return
	}
	c.cut(part, slices.Concat(c.in.certified, c.in.rules))
}

// bare gives the path without the slash at its end, which the Mapping does not take
// but its route would, to the Mappings after it. Without one it is closed: rewritten
// it could be another path's way around that path's filters.
func (c *cell) bare(later []*cell) {
	bare := region{host: c.mapping.region.host, segments: c.mapping.region.segments}
	for _, l := range later {
		part, some := bare.and(l.mapping.region)
		if its := !l.mapping.over || !slices.Equal(part.segments, l.mapping.region.segments); some && its {
			l.all(part)
		}
	}
	before := len(c.output.names)
	c.add(bare, nil, "no Mapping takes this path", "")
	if len(c.output.names) > before {
		c.mapping.spec.differ("prefix", "%s without the slash at its end is answered with 403, where Edge Stack has 404", bare.pattern())
	}
}

// cut gives the parts of what to the rules that take them, the first rule first.
func (c *cell) cut(what region, rules []*rule) {
	if len(rules) == 0 {
		c.open(what)
		return
	}
	first, later := rules[0], rules[1:]
	part, some := what.and(first.region)
	if !some || first.skip {
		c.cut(what, later)
		return
	}
	// The path without the slash at its end is not the rule's, but its route would
	// take it: a route before gives it to the rules that come after.
	bare := region{host: part.host, segments: first.region.segments}
	if first.over && part.equal(bare) {
		c.cut(what, later)
		return
	}
	if first.over && bare.within(part) {
		c.cut(bare, later)
	}
	c.filtered(part, first)
	if !what.within(first.region) {
		c.cut(what, later)
	}
}

func (c *cell) open(at region) { c.add(at, nil, "", "") }

// filtered adds the route for what a rule takes.
func (c *cell) filtered(at region, r *rule) {
	if r.used = true; r.of != nil {
		r.of.used = true
	}
	if len(r.filters) == 0 && r.closed == "" {
		c.add(at, nil, "", r.label)
		return
	}
	var filters []*filter
	closed := r.closed
	for _, key := range r.filters {
		f, ok := c.in.filters[key]
		switch {
		case !ok:
			closed = "the filter " + key + " is not among the imported resources"
			if r.closed == "" {
				r.spec.differ("filters", "there is no Filter %s in these files: what the rule takes is denied", key)
			}
		case f.closed != "":
			closed = f.closed
			f.used = true
		case slices.Contains(filters, f):
		default:
			filters = append(filters, f)
		}
	}
	if asks := slices.ContainsFunc(filters, func(f *filter) bool { return f.service != nil }); closed == "" && asks && (len(filters) > 1 || len(r.scopes) > 0) {
		closed = "a filter of type External has alternatives or scopes"
		r.spec.differ("filters", "a filter of type External with alternatives or scopes is not carried over: what the rule takes is denied")
	}
	if closed == "" && !alike(filters) {
		closed = "the filters of the rule set different headers"
		r.spec.differ("filters", "alternatives that inject different headers are not carried over: what the rule takes is denied")
	}
	if closed != "" {
		r.closed = closed
		c.add(at, nil, closed, r.label)
		return
	}
	c.add(at, &guard{filters, r.scopes}, "", r.label)
}

// alike reports whether it does not matter which of the filters let a request in.
func alike(filters []*filter) bool {
	for _, f := range filters[1:] {
		if fmt.Sprint(f.headers, f.owned, f.errors != nil) != fmt.Sprint(filters[0].headers, filters[0].owned, filters[0].errors != nil) || f.errors != nil {
			return false
		}
	}
	return true
}

// guard is what a route asks of its callers.
type guard struct {
	filters []*filter
	scopes  []string
}

// add writes one route, unless an earlier one takes all of its requests.
func (c *cell) add(at region, g *guard, closed, label string) {
	m := c.mapping
	for _, e := range c.output.taken {
		if at.within(e.region) && covers(e.mapping, m) {
			return
		}
	}
	c.output.taken = append(c.output.taken, placed{at, m})
	c.count++
	name := m.name
	if c.count > 1 {
		name = fmt.Sprintf("%s-%d", m.name, c.count)
	}
	for base, n := name, 2; slices.Contains(c.output.names, name); n++ {
		name = fmt.Sprintf("%s-r%d", base, n)
	}
	c.output.names = append(c.output.names, name)
	c.output.route(name, at, m, g, closed, label)
}

// placed is a region that a route takes, under the other conditions of a Mapping.
type placed struct {
	region  region
	mapping *mapping
}

// covers reports whether whatever fulfils the method and the headers of b does
// those of a.
func covers(a, b *mapping) bool {
	if len(a.methods) > 0 && !slices.Equal(a.methods, b.methods) {
		return false
	}
	for name, value := range a.headers {
		if got, ok := b.headers[name]; !ok || got != value {
			return false
		}
	}
	return true
}
