// Package program gets what is run: the gateway as it is released, the peers
// that are Go modules at their pinned versions, and those that the system has. It
// also asks each for its version. It never installs anything on the system:
// .ci/bench-deps does.
package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/sallyport/sallyport/bench/system"
)

// need are the programs of the system that must be there, with the package that
// has them in Debian.
var need = [][2]string{{"wrk", "wrk"}, {"nginx", "nginx"}, {"haproxy", "haproxy"}, {"make", "make"}, {"go", "golang-go"}}

// Find returns the paths of the system's programs, or an error that names each
// one that is missing.
func Find() (map[string]string, error) {
	found := map[string]string{}
	var errs []error
	for _, n := range need {
		path, err := exec.LookPath(n[0])
		if err != nil {
			errs = append(errs, fmt.Errorf("find %s: %w (apt-get install %s, or run .ci/bench-deps)", n[0], err, n[1]))
			continue
		}
		found[n[0]] = path
	}
	return found, errors.Join(errs...)
}

// Build builds the gateway and the peers of the tools module in root, and
// returns where all programs are. Self is the harness's own.
func Build(ctx context.Context, root, self string) (system.Programs, error) {
	found, err := Find()
	if err != nil {
		return system.Programs{}, err
	}
	p, err := BuildGateway(ctx, root, self)
	if err != nil {
		return p, err
	}
	tools := filepath.Join(root, ".bin")
	if _, err := output(ctx, found["go"], "-C", filepath.Join(root, ".ci", "bench-tools"), "build", "-o", tools+string(filepath.Separator), "tool"); err != nil {
		return p, fmt.Errorf("build the peers: %w", err)
	}
	p.OPA, p.Caddy = filepath.Join(tools, "opa"), filepath.Join(tools, "caddy")
	p.Nginx, p.HAProxy = found["nginx"], found["haproxy"]
	return p, nil
}

// BuildGateway builds the gateway alone, as it is released.
func BuildGateway(ctx context.Context, root, self string) (system.Programs, error) {
	if _, err := output(ctx, "make", "--no-print-directory", "-C", root, "build"); err != nil {
		return system.Programs{}, fmt.Errorf("build the gateway: %w", err)
	}
	return system.Programs{Bench: self, Sallyport: filepath.Join(root, "bin", "sallyport")}, nil
}

// Versions asks programs what they are.
func Versions(ctx context.Context, root string, p system.Programs) (map[string]string, error) {
	out, err := GatewayVersions(ctx, root)
	if err != nil {
		return nil, err
	}
	peers, err := ask(ctx, map[string][]string{
		"nginx": {p.Nginx, "-v"}, "haproxy": {p.HAProxy, "-v"}, "opa": {p.OPA, "version"},
		"caddy":    {"go", "-C", filepath.Join(root, ".ci", "bench-tools"), "list", "-m", "github.com/caddyserver/caddy/v2"},
		"fasthttp": {"go", "-C", root, "list", "-m", "github.com/valyala/fasthttp"},
	})
	maps.Copy(out, peers)
	out["wrk"] = wrkVersion(ctx)
	return out, err
}

// GatewayVersions asks for the versions of the gateway and of what built it.
func GatewayVersions(ctx context.Context, root string) (map[string]string, error) {
	return ask(ctx, map[string][]string{
		"go":        {"go", "version"},
		"sallyport": {"git", "-C", root, "describe", "--tags", "--always", "--dirty"},
	})
}

// ask runs commands and returns the first line of each.
func ask(ctx context.Context, commands map[string][]string) (map[string]string, error) {
	out := map[string]string{}
	for name, args := range commands {
		text, err := output(ctx, args...)
		if err != nil {
			return nil, fmt.Errorf("ask for the version of %s: %w", name, err)
		}
		first, _, _ := strings.Cut(text, "\n")
		out[name] = strings.TrimSpace(first)
	}
	return out, nil
}

// wrkVersion reads what wrk prints beside its usage, with which it exits 1.
func wrkVersion(ctx context.Context) string {
	raw, _ := exec.CommandContext(ctx, "wrk", "-v").CombinedOutput() // its status says nothing
	first, _, _ := strings.Cut(string(raw), " Copyright")
	return strings.TrimSpace(first)
}

// output runs a command and returns what it wrote. nginx writes its version to
// standard error.
func output(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...) //nolint:gosec // programs of the harness
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(b.String()))
	}
	return b.String(), nil
}
