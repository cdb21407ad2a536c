package dpop

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
)

// show has a verifier check a proof at a time.
func show(v *Verifier, now time.Time) error {
	r := &authn.Request{Method: "GET", Scheme: "https", Host: "api.example", Path: "/", Now: now, Headers: []authz.Header{{Name: headerName, Value: "x"}}}
	return v.Check(r, "token", "key")
}

// remembering makes a verifier that is shown a new proof of one key each time, made at
// the time that clock says.
func remembering(clock func() time.Time) *Verifier {
	hash, made := sha256.Sum256([]byte("token")), 0
	return New(Config{}, 30*time.Second, Deps{Name: "corp", Open: func(string, []string) (*Proof, error) {
		made++
		return &Proof{Type: "dpop+jwt", Thumbprint: "key", Claims: map[string]any{
			"ath": base64.RawURLEncoding.EncodeToString(hash[:]), "htm": "GET", "htu": "https://api.example/",
			"iat": json.Number(strconv.FormatInt(clock().Unix(), 10)), "jti": fmt.Sprint("6d08e35a-0f52-4de6-a348-", made),
		}}, nil
	}})
}

// TestBusyClient: a service with one key and a clock that is right is not refused at a
// thousand requests per second, however long it goes on.
func TestBusyClient(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	v := remembering(func() time.Time { return now })
	for second := range 100 { // proofs are forgotten after 90
		for range 1000 {
			if err := show(v, now); err != nil {
				t.Fatalf("after %d seconds: %v", second, err)
			}
		}
		now = now.Add(time.Second)
	}
}

// TestReplayFootprint holds what the documentation says a remembered proof takes.
func TestReplayFootprint(t *testing.T) {
	const most = 256 // bytes
	now := time.Unix(1_800_000_000, 0)
	for _, proofs := range []int{30_000, 60_000} { // maps have most room to spare soon after they grew
		n := 0
		v := remembering(func() time.Time { n++; return now.Add(-time.Duration(n%90) * time.Second) })
		before := heap()
		for range proofs {
			if err := show(v, now); err != nil {
				t.Fatal(err)
			}
		}
		if each := (heap() - before) / int64(proofs); each > most {
			t.Errorf("each of %d proofs takes %d bytes, want at most %d", proofs, each, most)
		}
		runtime.KeepAlive(v)
	}
}

// heap is how many bytes are in use.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
