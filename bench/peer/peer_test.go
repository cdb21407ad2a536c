package peer_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/sallyport/sallyport/bench/peer"
)

// start serves on a free port until the test ends.
func start(t *testing.T, serve func(context.Context, net.Listener, string) error, upstream string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, ln, upstream) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return ln.Addr().String()
}

func TestProxiesForward(t *testing.T) {
	servers := peer.Servers()
	upstream := start(t, servers["upstream"], "")
	for _, name := range []string{"fasthttp", "nethttp"} {
		t.Run(name, func(t *testing.T) {
			address := start(t, servers[name], upstream)
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/v1/orders/1", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("X-User", "alice")
			req.Header.Set(peer.EchoHeader, "1")
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != 200 || len(body) != 128 || resp.Header.Get(peer.SeenHeader) != "alice" {
				t.Errorf("status %d, %d bytes, upstream saw %q", resp.StatusCode, len(body), resp.Header.Get(peer.SeenHeader))
			}
		})
	}
}

func TestNoEchoUnasked(t *testing.T) {
	address := start(t, peer.Servers()["upstream"], "")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-User", "alice")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, ok := resp.Header[peer.SeenHeader]; ok {
		t.Error("the load would not see the same response every time")
	}
}
