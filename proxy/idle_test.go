package proxy

import (
	"bufio"
	"net"
	"runtime"
	"runtime/debug"
	"testing"
)

// TestIdleConnectionMemory pins what a kept connection costs the process, both
// of its ends included, since client and gateway share it here.
func TestIdleConnectionMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector has its own memory")
	}
	up := listenRaw(t, nil)
	g := start(t, up.addr(), func(_ *Config, _ *Parts, d *Deps) { d.Recorder = discard{} })
	const n = 1000
	before := inUse()
	conns := make([]net.Conn, n)
	for i := range conns {
		c := dial(t, g.addr)
		exchangeOn(t, c, bufio.NewReaderSize(c, 16), "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		conns[i] = c
	}
	per := (inUse() - before) / n
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	t.Logf("%d bytes per idle connection; stacks %d", per, m.StackInuse/n)
	if per > 9<<10 {
		t.Errorf("%d bytes per idle connection, want at most 9 KiB", per)
	}
	runtime.KeepAlive(conns)
}

func inUse() int64 {
	for range 4 { // each collection halves a stack that is too large
		debug.FreeOSMemory()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}
