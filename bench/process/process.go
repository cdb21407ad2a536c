// Package process runs the programs that are measured and reads what they use
// from /proc. It owns their start and their end, and that none outlives the
// harness; what they are is not its business.
package process

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Spec is a program to run.
type Spec struct {
	Name string // of its output files
	Path string
	Args []string
	Env  []string // beside PATH and HOME, which is the run's folder
	// Listens is the address that it answers at when it is ready.
	Listens string
}

// String is the command as a person types it.
func (s Spec) String() string {
	return strings.Join(append([]string{s.Path}, s.Args...), " ")
}

// Process is a running program.
type Process struct {
	spec   Spec
	cmd    *exec.Cmd
	stderr string
	ended  chan struct{} // closed when the program has ended
}

// Start runs spec with its output in files of dir, and waits until it answers.
func Start(ctx context.Context, dir string, spec Spec) (*Process, error) {
	p, err := Launch(dir, spec)
	if err != nil {
		return nil, err
	}
	if err := p.ready(ctx); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

// Launch runs spec with its output in files of dir, and does not wait for it.
// Standard output goes to a file as it would in operation: the decision log is
// part of the work.
func Launch(dir string, spec Spec) (*Process, error) {
	p := &Process{spec: spec, stderr: filepath.Join(dir, spec.Name+".err"), ended: make(chan struct{})}
	stdout, err := os.Create(filepath.Join(dir, spec.Name+".out")) //nolint:gosec // in the run's own folder
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	defer func() { _ = stdout.Close() }() // the program has its own handle
	stderr, err := os.Create(p.stderr)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	defer func() { _ = stderr.Close() }()
	p.cmd = exec.Command(spec.Path, spec.Args...) //nolint:gosec,noctx // a program of the harness; Stop ends it gently, a context would not
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, stdout, stderr
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}, spec.Env...)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	go func() {
		_ = p.cmd.Wait() // an early end is found by whoever needs the program
		close(p.ended)
	}()
	return p, nil
}

// startTime bounds the start of a program.
const startTime = 15 * time.Second

func (p *Process) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	var dialer net.Dialer
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if nc, err := dialer.DialContext(ctx, "tcp", p.spec.Listens); err == nil {
			return nc.Close()
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended at once: %s", p.spec, p.complaint())
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer at %s: %w: %s", p.spec.Name, p.spec.Listens, ctx.Err(), p.complaint())
		case <-tick.C:
		}
	}
}

// complaint is the end of what the program wrote to standard error.
func (p *Process) complaint() string {
	raw, err := os.ReadFile(p.stderr)
	if err != nil {
		return err.Error()
	}
	text := strings.TrimSpace(string(raw))
	return text[max(0, len(text)-2000):]
}

// Alive reports an error when the program has ended.
func (p *Process) Alive() error {
	select {
	case <-p.ended:
		return fmt.Errorf("%s has ended: %s", p.spec.Name, p.complaint())
	default:
		return nil
	}
}

// PID is the program's first process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Spec is what was started.
func (p *Process) Spec() Spec { return p.spec }

// Stop asks the program to end, and after five seconds ends it.
func (p *Process) Stop() error {
	select {
	case <-p.ended:
		return nil
	default:
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.spec.Name, err)
	}
	t := time.NewTimer(5 * time.Second)
	defer t.Stop()
	select {
	case <-p.ended:
		return nil
	case <-t.C:
	}
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", p.spec.Name, err)
	}
	<-p.ended
	return nil
}

// FreeAddresses returns so many different loopback addresses that nobody listens
// at. Their ports are below those that Linux gives to whoever names none
// (ip_local_port_range), or a connection or another server could have one before it is
// used, and answer in place of the program.
func FreeAddresses(ctx context.Context, count int) (addresses []string, err error) {
	for range count {
		ln, listenErr := listenSomewhere(ctx)
		if listenErr != nil {
			return nil, fmt.Errorf("find a free port: %w", listenErr)
		}
		defer func() { err = errors.Join(err, ln.Close()) }() // all are held until the last is found
		addresses = append(addresses, ln.Addr().String())
	}
	return addresses, nil
}

func listenSomewhere(ctx context.Context) (ln net.Listener, err error) {
	var lc net.ListenConfig
	for range 100 {
		port := 10_000 + rand.IntN(22_000) //nolint:gosec // G404: any port will do
		if ln, err = lc.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			return ln, nil
		}
	}
	return nil, err
}

// FreeAddress is FreeAddresses for one.
func FreeAddress(ctx context.Context) (string, error) {
	all, err := FreeAddresses(ctx, 1)
	if err != nil {
		return "", err
	}
	return all[0], nil
}
