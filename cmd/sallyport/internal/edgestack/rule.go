package edgestack

import (
	"fmt"
	"slices"
)

// rule is one rule of a FilterPolicy as routes can say it.
type rule struct {
	region region
	// over tells that region has, beyond what the rule takes, the path without the
	// slash at its end.
	over    bool
	skip    bool     // it opens something that cannot be said: what comes after is stricter
	closed  string   // why everything that it takes is denied
	filters []string // keys of filters, each of which alone lets a request through
	scopes  []string
	label   string
	spec    *section
	used    bool
	of      *rule // that this one is a part of; nil: none
}

// opens reports whether what the rule takes needs no filter.
func (r *rule) opens() bool { return len(r.filters) == 0 && r.closed == "" }

// part returns the rule for what it and another one take both, and whether there is
// anything.
func (r *rule) part(o *rule) (*rule, bool) {
	both, some := r.region.and(o.region)
	without := func(r *rule) bool { return r.over && slices.Equal(both.segments, r.region.segments) }
	part := *r
	part.region, part.over, part.of = both, both.rest && (without(r) || without(o)), r
	return &part, some
}

// cautious puts before each rule that opens what rules of other FilterPolicies filter
// of it: nobody knows which policy Edge Stack asks first.
func cautious(rules []*rule) (out []*rule) {
	for _, r := range rules {
		for _, o := range rules {
			if !r.opens() || r.skip || o.opens() || o.spec.res == r.spec.res {
				continue
			}
			if part, some := o.part(r); some {
				out = append(out, part)
			}
		}
		out = append(out, r)
	}
	return out
}

func readRules(res *resource) (out []*rule) {
	res.spec.without("all resources are taken to be for this gateway", "ambassador_id")
	for i, s := range res.spec.subs("rules") {
		r := &rule{spec: s, label: fmt.Sprintf("%s rules[%d]", res.key(), i)}
		r.filter(s)
		r.where(s)
		if s.rest() {
			r.close("has a key that is not known")
		}
		out = append(out, r)
	}
	res.spec.rest()
	return out
}

func (r *rule) close(why string) {
	if r.closed == "" {
		r.closed = "the rule " + why
	}
}

// where reads host and path. What a route cannot say takes more than the rule
// does, and is closed; unless the rule opens: then it is left out.
func (r *rule) where(s *section) {
	host, path := s.text("host"), s.text("path")
	h, ok := hostPattern(host)
	p, exact := pathPattern(path)
	r.region = p
	r.region.host = h
	r.over = exact && p.rest && len(p.segments) > 0
	for key, bad := range map[string]bool{"host": !ok, "path": !exact} {
		if !bad {
			continue
		}
		if len(r.filters) == 0 && r.closed == "" {
			r.skip = true
			s.differ(key, "a route cannot say this pattern: the rule, which opens what it takes, is left out, and the rules after it count")
			continue
		}
		r.closed = "the pattern of the rule cannot be said by a route"
		s.differ(key, "a route cannot say this pattern: %s of host %s denies everything until you write it out", r.region.pattern(), anyIfEmpty(h))
	}
}

func anyIfEmpty(host string) string {
	if host == "" {
		return "*"
	}
	return host
}

// reference is one filter that a rule names.
type reference struct {
	key                  string
	scopes               []string
	conditional          bool
	goesOn, stopsOnAllow bool // onDeny: continue, onAllow: break
	spec                 *section
}

// filter reads the list of filters. In Edge Stack all of them run one after the
// other; a route's authenticators are alternatives. So one filter is carried over,
// and several if the first that allows ends the list.
func (r *rule) filter(s *section) {
	var refs []reference
	for _, f := range s.subs("filters") {
		refs = append(refs, r.reference(f))
	}
	for i, ref := range refs {
		if ref.stopsOnAllow && !ref.goesOn && !ref.conditional && i < len(refs)-1 {
			refs = refs[:i+1] // the others never run
			break
		}
	}
	if len(refs) == 0 {
		return
	}
	for i, ref := range refs {
		r.filters = append(r.filters, ref.key)
		last := i == len(refs)-1
		switch {
		case ref.conditional && len(refs) > 1:
			r.close("has a filter with ifRequestHeader among others")
			ref.spec.differ("ifRequestHeader", "is not carried over beside other filters: what the rule takes is denied")
		case ref.conditional:
			ref.spec.differ("ifRequestHeader", "is not carried over: the filter is asked for every request")
		}
		switch {
		case last && ref.goesOn:
			ref.spec.differ("onDeny", "is not carried over: what the filter denies is denied")
		case !last && (!ref.goesOn || !ref.stopsOnAllow):
			r.close("has several filters that must all allow")
			ref.spec.differ("", "several filters that must all allow are not carried over: what the rule takes is denied until you write the others in Rego")
		case !last && !slices.Equal(ref.scopes, refs[len(refs)-1].scopes):
			r.close("has filters with different scopes")
			ref.spec.differ("arguments", "filters with different scopes are not carried over: what the rule takes is denied")
		case !last:
			ref.spec.differ("onDeny", "a token of this filter's issuer that is bad is refused, and not shown to the next filter")
		}
	}
	r.scopes = refs[0].scopes
}

func (r *rule) reference(f *section) reference {
	ref := reference{spec: f, key: f.text("namespace") + "/" + f.text("name")}
	if f.text("namespace") == "" {
		ref.key = f.res.namespace + "/" + f.text("name")
	}
	ref.conditional = f.get("ifRequestHeader") != nil
	for key, want := range map[string]string{"onDeny": "continue", "onAllow": "break"} {
		switch v := f.text(key); v {
		case "", "break", "continue":
			if v == want && key == "onDeny" {
				ref.goesOn = true
			} else if v == want {
				ref.stopsOnAllow = true
			}
		default:
			f.bad(f.path+key, f.get(key).Line, "must be break or continue")
		}
	}
	if a := f.sub("arguments"); a != nil {
		ref.scopes = append(a.texts("scope"), a.texts("scopes")...)
		a.without("requests without a login are told apart by Accept and X-Requested-With", "insteadOfRedirect")
		a.without("session cookies are SameSite=Lax", "sameSite")
		if a.rest() {
			r.close("gives a filter an argument that is not known")
		}
	}
	if f.rest() {
		r.close("names a filter with a key that is not known")
	}
	return ref
}
