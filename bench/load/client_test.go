package load_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/bench/load"
)

// server answers with what answer returns, and counts.
func server(t *testing.T, answer func(*http.Request) int) (address string, asked *atomic.Int64) {
	t.Helper()
	asked = &atomic.Int64{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.WriteHeader(answer(r))
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), asked
}

func get(dst []byte, n int64) []byte {
	return fmt.Appendf(dst, "GET /%d HTTP/1.1\r\nHost: bench\r\n\r\n", n)
}

func ok(*http.Request) int { return http.StatusOK }

func TestClientSendsEachRequestOnceFromRunToRun(t *testing.T) {
	var mu sync.Mutex
	paths := map[string]int{}
	address, _ := server(t, func(r *http.Request) int {
		mu.Lock()
		defer mu.Unlock()
		paths[r.URL.Path]++
		return http.StatusOK
	})
	c := &load.Client{Address: address, Connections: 3, Request: get}
	for range 2 {
		r, err := c.Run(t.Context(), load.Until{Count: 50})
		if err != nil || r.Requests != 50 || r.Failed != 0 || r.Longest < r.P99 || r.P99 < r.P50 {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	for n := range 100 {
		if p := fmt.Sprintf("/%d", n); paths[p] != 1 {
			t.Errorf("%s was asked %d times", p, paths[p])
		}
	}
}

func TestClientKeepsToItsRate(t *testing.T) {
	address, asked := server(t, ok)
	c := &load.Client{Address: address, Connections: 2, Request: get, Rate: 100}
	r, err := c.Run(t.Context(), load.Until{Length: 200 * time.Millisecond})
	if err != nil || asked.Load() > 21 {
		t.Errorf("%d requests at 100 a second in 0.2 s: %+v, %v", asked.Load(), r, err)
	}
}

// A slow answer delays those that would have been asked on its connection: they
// count from when they were due.
func TestClientCountsTheWaitBehindASlowAnswer(t *testing.T) {
	slow := make(chan struct{})
	var once sync.Once
	address, _ := server(t, func(*http.Request) int {
		once.Do(func() { time.AfterFunc(300*time.Millisecond, func() { close(slow) }) })
		<-slow
		return http.StatusOK
	})
	c := &load.Client{Address: address, Connections: 1, Request: get, Rate: 1000}
	r, err := c.Run(t.Context(), load.Until{Count: 100})
	if err != nil || r.P50 < 100_000 {
		t.Errorf("the median is %d µs, although 100 requests were due in the first 100 ms and none was answered for 300: %v", r.P50, err)
	}
}

func TestClientSendsBodies(t *testing.T) {
	body := strings.Repeat("x", 100_000)
	address, _ := server(t, func(r *http.Request) int {
		if raw, err := io.ReadAll(r.Body); err != nil || string(raw) != body {
			return http.StatusBadRequest
		}
		return http.StatusOK
	})
	c := &load.Client{Address: address, Connections: 2, Body: []byte(body), Request: func(dst []byte, _ int64) []byte {
		return fmt.Appendf(dst, "POST / HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n", len(body))
	}}
	if _, err := c.Run(t.Context(), load.Until{Count: 4}); err != nil {
		t.Error(err)
	}
}

func TestClientSaysWhatFailed(t *testing.T) {
	address, _ := server(t, func(*http.Request) int { return http.StatusForbidden })
	c := &load.Client{Address: address, Connections: 1, Request: get}
	r, err := c.Run(t.Context(), load.Until{Count: 5})
	if err == nil || !strings.Contains(err.Error(), "status 403") || r.Failed != 5 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestHeldConnectionsAllAskAtOnce(t *testing.T) {
	const count = 100
	var arrived atomic.Int64
	all := make(chan struct{})
	address, asked := server(t, func(r *http.Request) int {
		if r.URL.Path != "/1" {
			return http.StatusOK
		}
		if arrived.Add(1) == count {
			close(all)
		}
		<-all // so that none is answered before all have asked
		return http.StatusOK
	})
	h, err := load.Hold(t.Context(), address, count, get(nil, 0))
	if err != nil || asked.Load() != count {
		t.Fatalf("%d asked: %v", asked.Load(), err)
	}
	if w := h.Wake(get(nil, 1)); w.Failed != 0 || w.All <= 0 {
		t.Errorf("%+v", w)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
}

func TestWakeCountsWhatFailed(t *testing.T) {
	address, _ := server(t, func(r *http.Request) int {
		if r.URL.Path == "/1" {
			return http.StatusServiceUnavailable
		}
		return http.StatusOK
	})
	h, err := load.Hold(t.Context(), address, 3, get(nil, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if w := h.Wake(get(nil, 1)); w.Failed != 3 || w.Err == nil || !strings.Contains(w.Err.Error(), "status 503") {
		t.Errorf("%+v", w)
	}
}

func TestHoldSaysThatNobodyAnswers(t *testing.T) {
	address, _ := server(t, func(*http.Request) int { return http.StatusForbidden })
	if _, err := load.Hold(t.Context(), address, 3, get(nil, 0)); err == nil || !strings.Contains(err.Error(), "status 403") {
		t.Errorf("got %v", err)
	}
}
