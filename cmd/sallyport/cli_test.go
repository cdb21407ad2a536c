package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

//go:generate go test -run ^TestReference$ . -update

var update = flag.Bool("update", false, "write the files that come from the code")

const referenceFile = "../../docs/reference/cli.md"

// TestReference holds the page of the verbs to the verbs.
func TestReference(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Command line\n\nGenerated from the code by `make generate`.\n\n")
	b.WriteString("| exit status | meaning |\n|---|---|\n| 0 | ok |\n| 1 | failed while running |\n| 2 | wrong arguments |\n| 3 | the configuration is wrong |\n| 4 | a policy is wrong: it does not compile, its tests fail |\n")
	cmd := root()
	cmd.InitDefaultCompletionCmd()
	for _, c := range every(cmd)[1:] {
		if c.Name() != "help" && (c.Runnable() || !c.HasParent()) {
			page(&b, c)
		}
	}
	want := b.String()
	got, err := os.ReadFile(referenceFile)
	if *update && !bytes.Equal(got, []byte(want)) {
		err = os.WriteFile(referenceFile, []byte(want), 0o644)
		got = []byte(want)
	}
	if err != nil || string(got) != want {
		t.Errorf("%s is not what the verbs say (%v); run make generate", referenceFile, err)
	}
}

func page(b *strings.Builder, c *cobra.Command) {
	fmt.Fprintf(b, "\n## `%s`\n\n%s.\n", c.UseLine(), strings.TrimSuffix(c.Short, "."))
	if c.Long != "" && !strings.HasPrefix(c.CommandPath(), "sallyport completion") {
		fmt.Fprintf(b, "\n%s\n", c.Long)
	}
	if usages := c.LocalFlags().FlagUsages(); usages != "" {
		fmt.Fprintf(b, "\n```\n%s```\n", usages)
	}
}
