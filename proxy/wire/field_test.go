package wire

import (
	"bufio"
	"bytes"
	"strings"
	"testing"
)

// A field is the same whether it fits into the rest of the buffer or not.
func TestWriteField(t *testing.T) {
	for size := 16; size < 80; size++ {
		var out bytes.Buffer
		w := bufio.NewWriterSize(&out, size)
		WriteField(w, "x-request-id", "abc")
		WriteField(w, "www-authenticate", "Bearer")
		WriteField(w, "x--y", strings.Repeat("v", 50))
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		want := "X-Request-Id: abc\r\nWWW-Authenticate: Bearer\r\nX--Y: " + strings.Repeat("v", 50) + "\r\n"
		if out.String() != want {
			t.Errorf("buffer of %d: %q", size, out.String())
		}
	}
}

func TestAllocationsOfAField(t *testing.T) {
	w := bufio.NewWriterSize(&bytes.Buffer{}, 4<<10)
	if got := testing.AllocsPerRun(10, func() { WriteField(w, "x-request-id", "abc"); w.Reset(&bytes.Buffer{}) }); got > 1 {
		t.Errorf("%v allocations beside the buffer's own", got)
	}
}
