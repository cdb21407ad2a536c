package wire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/problem"
)

// memConn is a connection whose peer has sent data in the given pieces.
type memConn struct {
	net.Conn
	pieces [][]byte
}

func (m *memConn) Read(p []byte) (int, error) {
	if len(m.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(p, m.pieces[0])
	if m.pieces[0] = m.pieces[0][n:]; len(m.pieces[0]) == 0 {
		m.pieces = m.pieces[1:]
	}
	return n, nil
}

func conn(pieces ...string) *memConn {
	m := &memConn{}
	for _, p := range pieces {
		if p != "" {
			m.pieces = append(m.pieces, []byte(p))
		}
	}
	return m
}

// bytewise sends each byte alone.
func bytewise(s string) *memConn { return conn(strings.Split(s, "")...) }

const pair = "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc" + "GET /b HTTP/1.1\r\nHOST: y\r\n\r\n"

func TestReaderHandsOutEveryByteOnce(t *testing.T) {
	for name, c := range map[string]*memConn{"at once": conn(pair), "byte by byte": bytewise(pair), "in halves": conn(pair[:30], pair[30:])} {
		r := NewReader(c)
		raw, err := r.ReadHead(1<<10, func() error { return nil })
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		h, err := ParseHead(raw)
		if err != nil || h.Target != "/a" || h.Length != 3 {
			t.Fatalf("%s: %+v, %v", name, h, err)
		}
		var b Body
		b.Reset(r, h.Length, 10, nil)
		if got, err := io.ReadAll(&b); string(got) != "abc" || err != nil {
			t.Fatalf("%s: body %q, %v", name, got, err)
		}
		if raw, err = r.ReadHead(1<<10, func() error { return nil }); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if h, err = ParseHead(raw); err != nil || h.Target != "/b" || h.Headers[0] != (authz.Header{Name: "host", Value: "y"}) {
			t.Fatalf("%s: %+v, %v", name, h, err)
		}
		if _, err := r.ReadHead(1<<10, func() error { return nil }); !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v, want the end", name, err)
		}
	}
}

func TestHeadLimit(t *testing.T) {
	for _, size := range []int{100, 5000, 20000, 32768} {
		head := "GET / HTTP/1.1\r\nA: "
		head += strings.Repeat("x", size-len(head)-4) + "\r\n\r\n"
		for _, c := range []*memConn{conn(head), conn(head[:50], head[50:])} {
			if got, err := NewReader(c).ReadHead(size, func() error { return nil }); err != nil || len(got) != size {
				t.Errorf("%d bytes within the limit: %d, %v", size, len(got), err)
			}
		}
		if _, err := NewReader(conn(head)).ReadHead(size-1, func() error { return nil }); !errors.Is(err, problem.ErrHeadTooLarge) {
			t.Errorf("%d bytes over the limit: %v", size, err)
		}
	}
	endless := conn("GET / HTTP/1.1\r\n" + strings.Repeat("x", 1<<20))
	r := NewReader(endless)
	if _, err := r.ReadHead(8<<10, func() error { return nil }); !errors.Is(err, problem.ErrHeadTooLarge) || len(r.buf) > 16<<10 {
		t.Errorf("endless line: %v with a buffer of %d", err, len(r.buf))
	}
}

func TestBufferShrinksAfterALongHead(t *testing.T) {
	long := "GET / HTTP/1.1\r\nA: " + strings.Repeat("x", 20000) + "\r\n\r\n"
	r := NewReader(conn(long, "GET / HTTP/1.1\r\n\r\n"))
	for range 2 {
		if _, err := r.ReadHead(32<<10, func() error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.buf) != startBuffer {
		t.Errorf("an idle connection holds %d bytes", len(r.buf))
	}
}

func TestDiscard(t *testing.T) {
	tests := []struct {
		name   string
		length int64
		raw    string
		limit  int64
		done   bool
	}{
		{"none", 0, "", 0, true},
		{"all", 4, "abcd", 10, true},
		{"exactly", 4, "abcd", 4, true},
		{"too much", 4, "abcd", 3, false},
		{"cut", 4, "ab", 10, false},
		{"chunked", -1, "4\r\nabcd\r\n0\r\n\r\n", 4, true},
		{"chunked too much", -1, "5\r\nabcde\r\n0\r\n\r\n", 4, false},
		{"chunked cut", -1, "4\r\nabcd\r\n", 10, false},
	}
	for _, tc := range tests {
		var b Body
		b.Reset(NewReader(conn(tc.raw)), tc.length, 100, nil)
		if got := b.Discard(tc.limit); got != tc.done {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}

func TestBareCRInAValue(t *testing.T) {
	if h, err := ParseHead([]byte("GET / HTTP/1.1\r\nA: b\rContent-Length: 5\r\n\r\n")); !errors.Is(err, problem.ErrMalformed) {
		t.Errorf("got %+v, %v", h, err)
	}
}

// TestChunkBeyondTheLimitIsRefusedByItsSize: nothing of it needs to arrive.
func TestChunkBeyondTheLimitIsRefusedByItsSize(t *testing.T) {
	var b Body
	b.Reset(NewReader(conn("ffffff\r\n")), -1, 100, nil)
	if n, err := b.Read(make([]byte, 10)); n != 0 || !errors.Is(err, authz.ErrBodyTooLarge) {
		t.Errorf("read %d, %v", n, err)
	}
}

func TestCopyBodyNeverEndsAShortBody(t *testing.T) {
	tests := []struct {
		name   string
		src    string
		length int64
		raw    bool
		want   string
		fails  bool
	}{
		{"sized", "abc", 3, false, "abc", false},
		{"longer than said", "abcd", 3, false, "abc", false},
		{"shorter than said", "ab", 3, false, "ab", true},
		{"chunked", "abc", Unknown, false, "3\r\nabc\r\n0\r\n\r\n", false},
		{"raw", "abc", Unknown, true, "abc", false},
	}
	for _, tc := range tests {
		var out bytes.Buffer
		w := bufio.NewWriter(&out)
		err := CopyBody(w, strings.NewReader(tc.src), tc.length, tc.raw)
		_ = w.Flush()
		if (err != nil) != tc.fails || out.String() != tc.want {
			t.Errorf("%s: wrote %q, %v", tc.name, out.String(), err)
		}
		var cp *CopyError
		if tc.fails && (!errors.As(err, &cp) || !cp.Reading) {
			t.Errorf("%s: %v does not blame the source", tc.name, err)
		}
	}
}

// FuzzMessage: what is accepted is read by net/http as the same requests, and
// what is left over begins at the same byte.
func FuzzMessage(f *testing.F) {
	for _, s := range []string{
		pair, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\nrest",
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "GET / HTTP/1.0\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\nA:b\r\n c\r\n\r\n", "GET / HTTP/1.1\nHost: x\n\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		r := NewReader(conn(raw))
		head, err := r.ReadHead(4<<10, func() error { return nil })
		if err != nil {
			return
		}
		h, err := ParseHead(head)
		if err != nil {
			return
		}
		var b Body
		b.Reset(r, h.Length, 1<<20, nil)
		body, err := io.ReadAll(&b)
		if err != nil {
			return
		}
		ours := raw[len(raw)-r.Buffered()-left(r):]
		br := bufio.NewReader(strings.NewReader(strings.TrimPrefix(raw, "\r\n")))
		req, err := http.ReadRequest(br)
		if err != nil {
			return // net/http looks into URLs and versions, which is the judge's work here
		}
		theirs, err := io.ReadAll(req.Body)
		if err != nil {
			t.Fatalf("%q: read as body %q, but net/http: %v", raw, body, err)
		}
		rest, _ := io.ReadAll(br)
		if !bytes.Equal(theirs, body) || string(rest) != ours || req.Method != h.Method {
			t.Fatalf("%q: body %q rest %q, net/http: body %q rest %q", raw, body, ours, theirs, rest)
		}
	})
}

// left is what the connection has not yet handed out.
func left(r *Reader) int {
	n := 0
	for _, p := range r.conn.(*memConn).pieces {
		n += len(p)
	}
	return n
}

func BenchmarkParseHead(b *testing.B) {
	raw := []byte("GET /v1/orders/42?a=1 HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: curl/8\r\nAccept: */*\r\nAuthorization: Bearer " + strings.Repeat("x", 800) + "\r\n\r\n")
	buf := make([]byte, len(raw))
	b.ReportAllocs()
	for b.Loop() {
		copy(buf, raw)
		if _, err := ParseHead(buf); err != nil {
			b.Fatal(err)
		}
	}
}
