package edgestack

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/judge"
)

// limit is one of a RateLimit that is in force.
type limit struct {
	name    string
	domain  string
	pattern []map[string]string // what the first labels of a group must be; "" and * are any value
	count   int64               // requests in a unit
	unit    string              // s, m, h or d
	burst   int64
	spec    *section
	said    bool // it limits something, or why it does not is said
}

// rate is for the policy, and for people.
func (l *limit) rate() string { return fmt.Sprintf("%d/%s", l.count, l.unit) }

// daily tells which of two limits is stricter.
func (l *limit) daily() int64 {
	return l.count * map[string]int64{"s": 86400, "m": 1440, "h": 24, "d": 1}[l.unit]
}

// readRateLimit returns the limits that can be in force here.
func readRateLimit(res *resource) (out []*limit) {
	domain := res.spec.text("domain")
	limits := res.spec.subs("limits")
	for i, s := range limits {
		l := &limit{name: cmp.Or(s.text("name"), fmt.Sprintf("%s.%s-%d", res.name, res.namespace, i)), domain: domain, spec: s}
		for _, item := range s.subs("pattern") {
			l.pattern = append(l.pattern, item.all())
		}
		if l.amount(s) && l.acts(s) {
			out = append(out, l)
		}
		s.rest()
	}
	if len(limits) == 0 {
		res.spec.differ("", "is not carried over: it has no limits")
	}
	res.spec.rest()
	return out
}

// acts reads what a limit does, and reports whether it limits.
func (l *limit) acts(s *section) bool {
	s.without("set headers in the policy (upstream.set_headers)", "injectRequestHeaders")
	s.without("set headers in the policy (response.set_headers); answers have RateLimit headers", "injectResponseHeaders")
	s.without("answers are 429 with RateLimit headers and Retry-After, in the form of the route's error_response", "errorResponse")
	switch action := s.text("action"); {
	case strings.EqualFold(action, "LogOnly"):
		s.differ("action", "is not carried over: the limit %s only logs; a shorter pattern that it kept from counting counts", l.name)
		return false
	case action != "" && !strings.EqualFold(action, "Enforce"):
		s.bad(s.path+"action", s.get("action").Line, "must be Enforce or LogOnly")
		return false
	}
	return true
}

// amount reads how much a limit lets through, and reports whether it says that.
func (l *limit) amount(s *section) bool {
	var ok bool
	if l.count, ok = s.positive("rate"); !ok {
		return false
	}
	switch unit := strings.ToLower(s.text("unit")); unit {
	case "second", "minute", "hour", "day":
		l.unit = unit[:1]
	case "":
		s.bad(s.path+"unit", s.node.Line, "is missing")
		return false
	default:
		s.bad(s.path+"unit", s.get("unit").Line, "must be second, minute, hour or day")
		return false
	}
	l.burst = l.count
	if s.get("burstFactor") != nil {
		factor, ok := s.positive("burstFactor")
		if !ok {
			return false
		}
		l.burst *= min(factor, authz.MaxRate)
		s.differ("burstFactor", "%d requests may come at once; Edge Stack has this only with AES_RATELIMIT_PREVIEW", min(l.burst, authz.MaxRate))
	}
	for key, n := range map[string]*int64{"rate": &l.count, "burstFactor": &l.burst} {
		if *n > authz.MaxRate {
			s.differ(key, "is cut: %d is the most that a limit has", authz.MaxRate)
			*n = authz.MaxRate
		}
	}
	return true
}

// positive returns a number that limits are made of.
func (s *section) positive(key string) (int64, bool) {
	n := s.get(key)
	if n == nil {
		s.bad(s.path+key, s.node.Line, "is missing")
		return 0, false
	}
	v, err := strconv.ParseInt(n.Value, 10, 32)
	if err != nil || v < 1 {
		s.bad(s.path+key, n.Line, "a whole number of 1 or more belongs here; deny in a policy what nobody may ask for")
		return 0, false
	}
	return v, true
}

// met is a limit as the requests with a label group meet it.
type met struct {
	limit      *limit
	conditions []string // terms of the policy
	key        []string // terms of the policy
	literal    []bool   // by label: the pattern names the value
	header     string   // whose values, which clients choose, have a bucket each
}

// meet returns how requests with the labels of a group meet the limit; false if they do
// not. Lost says why they would, but for a label that is not to be had.
func (l *limit) meet(g group) (m met, lost string, ok bool) {
	if g.domain != l.domain || len(l.pattern) == 0 || len(l.pattern) > len(g.labels) {
		return met{}, "", false
	}
	m.limit = l
	for i, b := range g.labels {
		if b.lost != "" && (i < len(l.pattern) || b.header != "") {
			lost = cmp.Or(lost, fmt.Sprintf("the label %s is not to be had: %s", b.key, b.lost))
		}
		if b.header != "" {
			m.conditions = append(m.conditions, b.term)
		}
		if i >= len(l.pattern) {
			continue
		}
		want, named := l.pattern[i][b.key]
		anything := want == "" || want == "*"
		if !named || b.term == "" && b.lost == "" && !anything && want != b.value {
			return met{}, "", false
		}
		if b.term != "" && !anything {
			m.conditions = append(m.conditions, b.term+" == "+quoted([]string{want}))
		}
		if anything {
			m.header = cmp.Or(m.header, b.header)
		}
		m.literal = append(m.literal, !anything)
		m.key = append(m.key, quoted([]string{b.key}), cmp.Or(b.term, quoted([]string{b.value})))
	}
	return m, lost, true
}

// precedes orders the limits of a group as Edge Stack chooses one of them: that with the
// longest pattern, then with a value where others take any. Of equals the stricter counts.
func precedes(a, b met) int {
	if c := cmp.Compare(len(b.literal), len(a.literal)); c != 0 {
		return c
	}
	for i := range a.literal {
		if a.literal[i] != b.literal[i] {
			return map[bool]int{true: -1, false: 1}[a.literal[i]]
		}
	}
	return stricter(a.limit, b.limit)
}

// stricter orders limits by how much they let through.
func stricter(a, b *limit) int {
	return cmp.Or(cmp.Compare(a.daily(), b.daily()), cmp.Compare(a.burst, b.burst))
}

// counted is a label group with the limits for it, in the order in which they are asked.
type counted struct {
	mapping *mapping
	name    string
	mets    []met
}

// limited finds which limits the requests of the routes meet.
func (o *output) limited(in inputs) {
	slices.SortStableFunc(in.limits, stricter)
	unseen := o.unseen(in.filters)
	for _, m := range in.mappings {
		if !slices.ContainsFunc(o.config.Routes, func(r route) bool { return r.Upstream == m.name }) {
			continue
		}
		var names []string
		before := len(o.counted)
		for _, g := range m.groupsWith(in.defaults) {
			c := counted{mapping: m, name: g.name, mets: meets(m, g, in.limits, unseen)}
			if len(c.mets) > 0 {
				o.counted = append(o.counted, c)
			}
			for _, e := range c.mets {
				e.limit.said = true
				if e.header != "" {
					e.limit.spec.differ("pattern", "each value of the header %s is a bucket: clients who may send any can use up rate_limits.max_keys, and then there are no new ones (503)", e.header)
				}
				names = append(names, fmt.Sprintf("%s (%s)", e.limit.name, e.limit.rate()))
			}
		}
		if len(o.counted) > before+1 {
			m.spec.differ("labels", "a decision has one limit, where Edge Stack has one for each label group: the strictest that a request meets counts, and the others do not: %s", strings.Join(names, ", "))
		}
	}
	for _, l := range in.limits {
		if !l.said {
			l.spec.differ("", "limits nothing: no Mapping in these files has labels of the domain %q that are to be had and match", l.domain)
		}
	}
	o.limits = in.limits
}

// groupsWith are the label groups of a Mapping with those of the Module before them.
func (m *mapping) groupsWith(defaults map[string][]label) (out []group) {
	labelled := map[string]bool{}
	for _, g := range m.groups {
		labelled[g.domain] = true
		out = append(out, group{g.domain, g.name, slices.Concat(defaults[g.domain], g.labels)})
	}
	for _, domain := range slices.Sorted(maps.Keys(defaults)) {
		if !labelled[domain] {
			out = append(out, group{domain, "default", defaults[domain]})
		}
	}
	return out
}

// hides reports whether requests that meet o meet m too, which is asked before.
func (m met) hides(o met) bool {
	return !slices.ContainsFunc(m.conditions, func(c string) bool { return !slices.Contains(o.conditions, c) })
}

// meets are the limits for a group, those that another one hides left out.
func meets(of *mapping, g group, limits []*limit, unseen func(string) string) (out []met) {
	g.labels = slices.Clone(g.labels)
	for i, b := range g.labels {
		if why := unseen(b.header); b.header != "" && why != "" {
			g.labels[i].lost = "the policy does not see the header " + b.header + " (" + why + ")"
		}
	}
	var all []met
	for _, l := range limits {
		m, lost, ok := l.meet(g)
		switch {
		case ok && lost != "":
			l.said = true
			l.spec.differ("pattern", "the limit %s is left out for Mapping %s: %s. Write a rate_limit by what the policy sees", l.name, of.spec.res.key(), lost)
		case ok:
			all = append(all, m)
		}
	}
	slices.SortStableFunc(all, precedes)
	for _, m := range all {
		i := slices.IndexFunc(out, func(e met) bool { return e.hides(m) })
		switch {
		case i < 0:
			out = append(out, m)
		case slices.Equal(out[i].literal, m.literal):
			m.limit.said = true
			m.limit.spec.differ("pattern", "another limit has this pattern: %s is stricter and counts", out[i].limit.name)
		}
	}
	return out
}

// unseen tells why a policy does not see a header.
func (o *output) unseen(filters map[string]*filter) func(string) string {
	var set, credentials []string
	for _, f := range filters {
		set = append(set, f.owned...)
		for _, h := range f.headers {
			set = append(set, h.Name)
		}
		for _, key := range []string{"header", "client_id_header", "client_secret_header", "client_assertion_header"} {
			if name, ok := f.auth[key].(string); ok {
				credentials = append(credentials, name)
			}
		}
	}
	return judge.Unseen(set, credentials)
}

const limitsHead = `
# Of the limits that a request meets the strictest counts; the first number is its rank.
default _limit := {}

_limit := {"rate_limit": min(_met)[1]} if count(_met) > 0

# Buckets have the labels that the limit counts by. Long ones would not be taken.
_key(labels) := text if {
	text := json.marshal(labels)
	count(text) <= 128
} else := crypto.sha256(json.marshal(labels))
`

// limitRules are the rules of the policy for limits.
func (o *output) limitRules() string {
	if len(o.counted) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString(limitsHead)
	for i, c := range o.counted {
		fmt.Fprintf(&b, "\n# Mapping %s, label group %s.\n_met contains _group_%d\n\n_group_%d := ", c.mapping.spec.res.key(), strconv.Quote(c.name), i+1, i+1)
		for j, m := range c.mets {
			if j > 0 {
				b.WriteString(" else := ")
			}
			key := slices.Concat([]string{quoted([]string{m.limit.domain}), quoted([]string{m.limit.name})}, m.key)
			fmt.Fprintf(&b, "[%d, {\"key\": _key([%s]), \"rate\": %q, \"burst\": %d}] if {\n\tinput.route.labels.mapping == %s\n",
				slices.Index(o.limits, m.limit), strings.Join(key, ", "), m.limit.rate(), m.limit.burst, quoted([]string{c.mapping.spec.res.key()}))
			for _, condition := range m.conditions {
				fmt.Fprintf(&b, "\t%s\n", condition)
			}
			b.WriteString("}")
		}
		b.WriteString("\n")
	}
	return b.String()
}
