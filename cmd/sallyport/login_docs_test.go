package main

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLoginPage: the settings for several hosts, and for a proxy in front, are what
// check has nothing to say against.
func TestLoginPage(t *testing.T) {
	data, err := os.ReadFile("../../docs/log-users-in.md")
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, block := range blocks(string(data), "yaml") {
		if !strings.Contains(block, "origins:") {
			continue
		}
		checked++
		dir := t.TempDir()
		for name, text := range map[string]string{
			"secret": "a-secret\n", "session.key": base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32)) + "\n",
			"policy.rego": "package gateway\n\ndefault decision := false\n",
			"sallyport.yaml": "version: v1\nlisteners: [{name: public, address: 127.0.0.1:0}]\nupstreams: {app: {endpoints: [http://127.0.0.1:1]}}\n" +
				"routes: [{name: app, match: {path: /**}, authenticate: [login], upstream: app}]\npolicy: {entrypoint: gateway/decision, paths: [policy.rego]}\n" + block,
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		sallyport(t, "check", "-c", filepath.Join(dir, "sallyport.yaml"))
	}
	if checked != 2 {
		t.Errorf("%d blocks checked, want 2", checked)
	}
}
