package basic

import (
	"encoding/base64"
	"strings"
	"testing"
)

// FuzzCredentials: no Authorization value panics, and what is read is what was sent, in its
// one spelling.
func FuzzCredentials(f *testing.F) {
	for _, text := range []string{"alice:secret", "alice:", ":", "alice", "al\x00ice:x", "a:b:c", "\xff:x"} {
		f.Add("Basic " + base64.StdEncoding.EncodeToString([]byte(text)))
	}
	f.Add("basic   YWxpY2U6c2VjcmV0")
	f.Add("Basic YWxpY2U6c2VjcmV1\r\n")
	f.Fuzz(func(t *testing.T, authorization string) {
		who, password, err := credentials(authorization)
		if err != nil {
			if who != "" || password != "" {
				t.Errorf("%q: %v, and %q, %q", authorization, err, who, password)
			}
			return
		}
		if who == "" || strings.Contains(who, ":") || password == "" || len(password) > maxPassword {
			t.Errorf("%q: %q, %q", authorization, who, password)
		}
		_, sent, _ := strings.Cut(authorization, " ")
		if again := base64.StdEncoding.EncodeToString([]byte(who + ":" + password)); again != strings.TrimLeft(sent, " ") {
			t.Errorf("%q: read as %q", authorization, again)
		}
	})
}
