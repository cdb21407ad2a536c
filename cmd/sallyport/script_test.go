package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets the scripts run this test binary as sallyport.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"sallyport": main})
}

// TestScripts drives the verbs as a person would, by scripts that say what is
// printed and with which status the process ends.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status":   status,
			"setenv":   setenv,
			"address":  address,
			"upstream": upstream,
			"decider":  decider,
			"request":  request,
			"iap":      iap,
			"snippet":  snippet,
		},
	})
}

// snippet writes a piece of shell of a page of the documentation into a file: snippet PAGE
// NUMBER FILE. The first is 1.
func snippet(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: snippet PAGE NUMBER FILE")
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", args[0]))
	ts.Check(err)
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	pieces := strings.Split(string(text), "```sh\n")
	if n < 1 || n >= len(pieces) {
		ts.Fatalf("%s has %d pieces of shell, not %d", args[0], len(pieces)-1, n)
	}
	piece, _, _ := strings.Cut(pieces[n], "```")
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), []byte(piece), 0o600))
}

// status runs a command and demands its exit status: status N CMD ARGS...
func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND [ARG...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := "0"
	if err != nil {
		exit, ok := err.(*exec.ExitError) //nolint:errorlint // testscript returns it bare
		if !ok {
			ts.Fatalf("run %s: %v", args[1], err)
		}
		code = strings.TrimPrefix(exit.String(), "exit status ")
	}
	if code != args[0] {
		ts.Fatalf("exit status %s, want %s", code, args[0])
	}
}
