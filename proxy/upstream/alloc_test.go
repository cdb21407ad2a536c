//go:build !race

package upstream

import (
	"bufio"
	"io"
	"net"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
)

// frugal answers heads without parsing them, so that what is counted is the
// gateway's.
func frugal(t *testing.T) *server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		r := bufio.NewReader(c)
		for {
			line, err := r.ReadSlice('\n')
			if err != nil {
				return
			}
			if len(line) != len("\r\n") {
				continue
			}
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	}()
	return &server{ln: ln}
}

// TestExchangeAllocations pins a request over a kept connection and its response.
func TestExchangeAllocations(t *testing.T) {
	p := pool(t, nil, frugal(t))
	r := &Request{
		Method: "GET", Target: "/v1/orders/42?a=1", Host: "api.example.com",
		Headers: []authz.Header{{Name: "accept", Value: "*/*"}, {Name: "x-user", Value: "alice"}},
	}
	body := make([]byte, 16)
	got := testing.AllocsPerRun(200, func() {
		r.Deadline = time.Now().Add(time.Minute)
		x, err := p.Do(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = x.Read(body)
		}
		x.Close(err == io.EOF) //nolint:errorlint // what a reader returns at its end
	})
	t.Logf("%v allocations", got)
	if got > 3 {
		t.Errorf("%v allocations, want at most 3", got)
	}
}
