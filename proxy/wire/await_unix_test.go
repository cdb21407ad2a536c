//go:build unix

package wire

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// A socket that has nothing to say costs no buffer, and one that has gets its
// bytes, whoever had the buffer before.
func TestIdleSocketHoldsNoBuffer(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	r := NewReader(server)
	const head = "GET / HTTP/1.1\r\n\r\n"
	for range 3 {
		if err := server.SetReadDeadline(time.Now()); err != nil {
			t.Fatal(err)
		}
		if err := r.Await(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("nothing was sent: %v", err)
		}
		if r.small != nil || r.buf != nil {
			t.Fatal("an idle connection holds a buffer")
		}
		if err := server.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(client, head); err != nil {
			t.Fatal(err)
		}
		if err := r.Await(); err != nil {
			t.Fatal(err)
		}
		got, err := r.ReadHead(1<<10, func() error { return nil })
		if err != nil || string(got) != head {
			t.Fatalf("read %q, %v", got, err)
		}
	}
	_ = client.Close()
	if err := r.Await(); !errors.Is(err, io.EOF) {
		t.Errorf("after the client closed: %v", err)
	}
}
