package mtls

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/proxy/certs/certstest"
)

// FuzzRFC9440: no header panics, and what is read is what was written, in its one spelling.
func FuzzRFC9440(f *testing.F) {
	ca := certstest.NewCA(f, "CA")
	leaf := ca.Issue(f, "alice", nil)
	item := func(der []byte) string { return ":" + base64.StdEncoding.EncodeToString(der) + ":" }
	f.Add(item(leaf.Leaf.Raw), item(ca.Certificate.Raw))
	f.Add(item(leaf.Leaf.Raw), item(ca.Certificate.Raw)+" , "+item(ca.Certificate.Raw))
	f.Add(item(nil), ":,:")
	f.Add("::", ",")
	f.Fuzz(func(t *testing.T, text, chain string) {
		c, err := readRFC9440(text, chain)
		if err != nil {
			return
		}
		if item(c.leaf.Raw) != text {
			t.Errorf("%q is read as %q", text, item(c.leaf.Raw))
		}
		if len(c.others) > maxForwarded || len(c.others) != strings.Count(chain, ":")/2 {
			t.Errorf("%q: %d certificates", chain, len(c.others))
		}
	})
}
