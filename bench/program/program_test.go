package program_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/bench/program"
)

func TestFindNamesEverythingThatIsMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := program.Find()
	if err == nil {
		t.Fatal("found programs in an empty folder")
	}
	for _, name := range []string{"wrk", "nginx", "haproxy"} {
		if !strings.Contains(err.Error(), "find "+name) || !strings.Contains(err.Error(), "apt-get install "+name) {
			t.Errorf("%s is not named: %v", name, err)
		}
	}
}

// The OPA that is measured is the one that the gateway embeds.
func TestOneVersionOfOPA(t *testing.T) {
	require := regexp.MustCompile(`github\.com/open-policy-agent/opa (v\S+)`)
	var versions []string
	for _, name := range []string{"../../go.mod", "../../.ci/bench-tools/go.mod"} {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		m := require.FindStringSubmatch(string(raw))
		if m == nil {
			t.Fatalf("%s does not require OPA", name)
		}
		versions = append(versions, m[1])
	}
	if versions[0] != versions[1] {
		t.Errorf("the gateway embeds %s, the peer is %s", versions[0], versions[1])
	}
}
