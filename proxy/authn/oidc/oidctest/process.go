package oidctest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// scripts is where the providers are, in the module.
var scripts = filepath.Join("proxy", "authn", "jwt", "testdata", "idp")

// Find returns the folder of the scripts and the Node.js that they run on: the one that is
// installed there, as a distribution's may be too old for them, else the system's.
func Find() (dir, node string, err error) {
	root, err := moduleRoot()
	if err != nil {
		return "", "", err
	}
	dir = filepath.Join(root, scripts)
	if _, err := os.Stat(filepath.Join(dir, "node_modules")); err != nil {
		return "", "", fmt.Errorf("the OpenID provider of this test is not installed; do it with: npm ci --prefix %s", filepath.ToSlash(scripts))
	}
	if own, err := filepath.Glob(filepath.Join(dir, "node_modules", "node-*", "bin", "node")); err == nil && len(own) == 1 {
		return dir, own[0], nil
	}
	if node, err = exec.LookPath("node"); err != nil {
		return "", "", fmt.Errorf("install Node.js, which the OpenID provider of this test runs on: %w", err)
	}
	return dir, node, nil
}

// moduleRoot returns the folder of go.mod: a test runs in the folder of its package.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("find the OpenID provider: no go.mod above the test")
		}
		dir = up
	}
}

// Process is a script that runs.
type Process struct {
	In io.WriteCloser // closing it ends the process, also when the test's own dies

	cmd   *exec.Cmd
	out   *bufio.Reader
	ended bool
}

// Run runs a script with env, of NAME=value, in addition to the test's environment until
// the test ends. The test is skipped where the scripts are not installed.
func Run(t testing.TB, env []string, script string, args ...string) *Process {
	t.Helper()
	dir, node, err := Find()
	if err != nil {
		t.Skip(err)
	}
	// The test's own context ends before what it cleans up, which may still need the provider.
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), node, append([]string{script}, args...)...) //nolint:gosec // the test's own
	cmd.Dir, cmd.Stderr, cmd.Env = dir, os.Stderr, append(os.Environ(), env...)
	p := &Process{cmd: cmd}
	if p.In, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return p
}

// Read reads a line of JSON that the process says.
func (p *Process) Read(t testing.TB, into any) {
	t.Helper()
	slow := p.killIn(patience)
	defer slow.Stop()
	line, err := p.out.ReadBytes('\n')
	if err = errors.Join(err, json.Unmarshal(line, into)); err != nil {
		t.Fatalf("%s said %q: %v", p.cmd.Args[1], line, err)
	}
}

// Stop ends the process.
func (p *Process) Stop() {
	if p.ended {
		return
	}
	p.ended = true
	slow := p.killIn(patience)
	defer slow.Stop()
	_ = p.In.Close()
	_ = p.cmd.Wait() // however it ended, it did
}

func (p *Process) killIn(d time.Duration) *time.Timer {
	return time.AfterFunc(d, func() { _ = p.cmd.Process.Kill() })
}
