package session

import (
	"slices"
	"strings"

	"github.com/sallyport/sallyport/proxy/authn"
)

// Tagged returns the cookies of one of several things of the same purpose that a
// browser has at once. The tag is letters and digits.
func (c *Cookies) Tagged(tag string) *Cookies {
	// No purpose has a tilde in its name, so that no two names become one.
	return &Cookies{secure: c.secure + "~" + tag, plain: c.plain + "~" + tag, domain: c.domain}
}

// Tags returns the tags of those that a request has, each once, at most limit.
func (c *Cookies) Tags(r *authn.Request, limit int) []string {
	var tags []string
	for pair := range strings.SplitSeq(r.Header("cookie"), ";") {
		full, _, _ := strings.Cut(strings.Trim(pair, " \t"), "=")
		rest, ours := strings.CutPrefix(strings.Trim(full, " \t"), c.name(r)+"~")
		tag, _, _ := strings.Cut(rest, ".")
		if ours && tag != "" && len(tags) < limit && !slices.Contains(tags, tag) && !strings.ContainsFunc(tag, notTag) {
			tags = append(tags, tag)
		}
	}
	return tags
}

func notTag(r rune) bool {
	return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
}
