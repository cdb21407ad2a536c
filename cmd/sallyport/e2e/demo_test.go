//go:build e2e

package e2e_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestReadme runs the demo and every curl line of the README as it stands there,
// on other ports, and demands the status that the line's comment promises.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	gateway, admin, tokens := freeAddress(t), freeAddress(t), freeAddress(t)
	p := start(t, "demo", "--gateway", gateway, "--admin", admin, "--tokens", tokens, "--upstream", freeAddress(t))
	waitReady(t, admin)
	eventually(t, 5*time.Second, "banner", func() bool { return strings.Contains(p.stderr.String(), "This is a demo") })

	move := strings.NewReplacer("127.0.0.1:8080", gateway, "127.0.0.1:8081", tokens)
	var setup []string
	lines := 0
	for line := range strings.Lines(string(readme)) {
		line = strings.TrimSpace(line)
		if !strings.Contains(p.stderr.String(), move.Replace(line)) {
			if strings.HasPrefix(line, "curl -s -w") {
				t.Errorf("the demo does not print %s", line)
			}
			continue
		}
		switch {
		case strings.HasPrefix(line, "READER=") || strings.HasPrefix(line, "WRITER="):
			setup = append(setup, move.Replace(line))
		case strings.HasPrefix(line, "curl -s -w"):
			lines++
			tryLine(t, strings.Join(setup, "\n"), move.Replace(line))
		}
	}
	if lines != 7 {
		t.Errorf("tried %d lines, want 7", lines)
	}
	// An answer does not wait for the log.
	eventually(t, 5*time.Second, "a line of the decision log for each", func() bool { return strings.Count(p.stdout.String(), "\n") >= lines })
	checkLog(t, p.stdout.String())
}

var promise = regexp.MustCompile(`# (\d{3})`)

func tryLine(t *testing.T, setup, line string) {
	t.Helper()
	out, err := exec.Command("bash", "-c", setup+"\n"+line).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	text := strings.TrimSpace(string(out))
	if want := promise.FindStringSubmatch(line)[1]; !strings.HasSuffix(text, want) {
		t.Errorf("%s\nprinted %s, want %s", line, text, want)
	}
	if strings.Contains(line, "alice") && !strings.Contains(text, `"X-User": "alice"`) {
		t.Errorf("%s\nprinted %s, want X-User: alice", line, text)
	}
	if strings.Contains(text, "root") || strings.Contains(text, "Bearer") {
		t.Errorf("%s\nthe upstream got what it must not: %s", line, text)
	}
}

// checkLog demands one JSON object per line on standard output, with no token in it.
func checkLog(t *testing.T, log string) {
	t.Helper()
	n := 0
	for line := range strings.Lines(log) {
		n++
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Errorf("decision log line %q: %v", line, err)
		}
		if v["request_id"] == nil || v["outcome"] == nil {
			t.Errorf("decision log line without request_id or outcome: %s", line)
		}
	}
	if n < 7 || strings.Contains(log, "eyJ") {
		t.Errorf("%d lines of decision log, want at least 7 and no token in them:\n%s", n, log)
	}
}
