// Package system knows each system that is measured: how it is configured for
// the same work, how it is run, and which part of the work it cannot do. It
// starts nothing and measures nothing.
//
// Each is configured for speed as its own documentation says: kept connections
// on both sides, no access log, as many workers as there are cores. Where a
// system cannot do a part of the work, that is declared here with the reason,
// checked, and reported; it then does less work than the others.
package system

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/sallyport/sallyport/bench/process"
	"github.com/sallyport/sallyport/bench/work"
)

// Site is what every system is configured from.
type Site struct {
	Dir      string // for configuration files; its own for each system
	Address  string // where the system listens
	Upstream string // where it forwards to, host:port
	Admin    string // another free address, for the one that needs it
	Work     *work.Work
	Programs Programs
}

// Programs are the paths of what is run.
type Programs struct {
	Bench, Sallyport, OPA, Caddy, Nginx, HAProxy string
}

// System is one row of the table.
type System struct {
	Name  string
	About string // one line: what it is and does
	// Deviates are the cases that the system answers otherwise than one that does
	// all of the work, by the name of the case.
	Deviates map[string]Deviation

	plan func(Site) ([]process.Spec, error)
}

// Deviation is an answer that is not the one wanted, and why.
type Deviation struct {
	Status int
	Why    string
}

// All returns the systems in the order of the table.
func All() []System {
	return []System{
		nginxPlain(), haproxyPlain(), fastHTTP(), netHTTP(), caddy(),
		haproxyJWT(), nginxOPA("nginx-opa", false), nginxOPA("nginx-opa-jwtcache", true),
		sallyportPlain(), sallyportJWT(), sallyportNoLog(), sallyportCached(), sallyportTwo(), sallyportUncached(),
	}
}

// baselineSuffix names the rows of another build of the gateway.
const baselineSuffix = "-baseline"

// Baseline returns the system as another build of the gateway runs it, and
// whether it is one that the gateway runs.
func (s System) Baseline(program string) (System, bool) {
	if !strings.HasPrefix(s.Name, "sallyport") {
		return s, false
	}
	plan := s.plan
	s.Name, s.About = s.Name+baselineSuffix, "the same by the baseline's build"
	s.plan = func(site Site) ([]process.Spec, error) {
		site.Programs.Sallyport = program
		return plan(site)
	}
	return s, true
}

// Plan writes the system's configuration and returns the programs to run, in
// the order of their start.
func (s System) Plan(site Site) ([]process.Spec, error) {
	specs, err := s.plan(site)
	if err != nil {
		return nil, fmt.Errorf("configure %s: %w", s.Name, err)
	}
	return specs, nil
}

// plain are the deviations of a proxy that authenticates nobody: the limit that
// a gateway is measured against, and not an alternative to one.
func plain() map[string]Deviation {
	d := map[string]Deviation{work.Subject: {Status: 200, Why: "knows no subject"}}
	for _, name := range []string{work.Forbidden, work.NoToken, work.Expired, work.Forged} {
		d[name] = Deviation{Status: 200, Why: "plain proxy"}
	}
	return d
}

// write fills a template and writes it to a file of the system's folder.
func write(site Site, name, text string, data any) (string, error) {
	t, err := template.New(name).Parse(text)
	if err != nil {
		return "", fmt.Errorf("read the template of %s: %w", name, err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return "", fmt.Errorf("fill %s: %w", name, err)
	}
	path := filepath.Join(site.Dir, name)
	return path, os.WriteFile(path, b.Bytes(), 0o600)
}

// Addresses finds the free addresses of a site.
func (s *Site) Addresses(ctx context.Context) error {
	free, err := process.FreeAddresses(ctx, 2)
	if err != nil {
		return err
	}
	s.Address, s.Admin = free[0], free[1]
	return nil
}
