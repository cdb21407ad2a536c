package edgestack

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// readRateLimit says of each limit what is not limited any more. The labels that it
// counts by come from Mappings, which have none here.
func readRateLimit(res *resource) {
	domain := res.spec.text("domain")
	limits := res.spec.subs("limits")
	for _, l := range limits {
		does := "is not carried over: "
		if strings.EqualFold(l.text("action"), "LogOnly") {
			does += "it only logs, and "
		}
		l.differ("", "%s%s for requests of domain %q with %s; keep it in front of the gateway", does, l.rate(), domain, cmp.Or(l.labels(), "any labels"))
		for _, key := range []string{"name", "injectRequestHeaders", "injectResponseHeaders", "errorResponse"} {
			l.get(key) // part of what was said
		}
		l.rest()
	}
	if len(limits) == 0 {
		res.spec.differ("", "is not carried over: it has no limits")
	}
	res.spec.rest()
}

// labels are those of the pattern.
func (s *section) labels() string {
	var out []string
	for _, p := range s.subs("pattern") {
		for name, value := range p.all() {
			out = append(out, name+"="+cmp.Or(value, "*"))
		}
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// rate is "at most 5 requests a minute".
func (s *section) rate() string {
	n, unit := s.text("rate"), strings.ToLower(s.text("unit"))
	burst := s.text("burstFactor")
	if n == "" || unit == "" {
		return "a rate that is not said"
	}
	out := fmt.Sprintf("at most %s requests a %s", n, unit)
	if burst != "" {
		out += ", " + burst + " times as many at once"
	}
	return out
}
