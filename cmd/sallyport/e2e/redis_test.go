//go:build e2e

package e2e_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// redisServer is a real Redis of a test's own, which keeps what it has over its death.
type redisServer struct {
	t            *testing.T
	dir, address string
	cmd          *exec.Cmd
}

// newRedis starts a Redis with its own configuration. Files of it are in dir.
func newRedis(t *testing.T, dir, config string) *redisServer {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("redis-server is not installed, which this test runs; do it with: make deps")
	}
	r := &redisServer{t: t, dir: dir, address: freeAddress(t)}
	_, port, err := net.SplitHostPort(r.address)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "redis.conf"), os.Expand(config, func(string) string { return port })+`
bind 127.0.0.1
dir `+dir+`
save ""
appendonly yes
`)
	r.start()
	t.Cleanup(r.kill)
	return r
}

func (r *redisServer) start() {
	r.t.Helper()
	r.cmd = exec.Command("redis-server", filepath.Join(r.dir, "redis.conf"))
	r.cmd.Stderr = os.Stderr
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	eventually(r.t, 20*time.Second, "Redis listens", func() bool {
		c, err := net.Dial("tcp", r.address)
		if err != nil {
			return false
		}
		return c.Close() == nil
	})
}

func (r *redisServer) kill() {
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
}

// empty removes what a dead Redis kept.
func (r *redisServer) empty() {
	r.t.Helper()
	if err := os.RemoveAll(filepath.Join(r.dir, "appendonlydir")); err != nil {
		r.t.Fatal(err)
	}
}

func (r *redisServer) signal(sig os.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(sig); err != nil {
		r.t.Fatal(err)
	}
}
