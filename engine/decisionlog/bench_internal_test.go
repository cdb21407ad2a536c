package decisionlog

import (
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
)

// traffic is requests of that many identities, as a gateway records them that
// forwards most of them: the identity is shared by all requests with its token.
func traffic(identities int) []*authz.Record {
	gateway := golden().Input.Gateway
	bundles := map[string]string{"authz": "r1"}
	var all []*authz.Identity
	for i := range identities {
		id := golden().Input.Identity
		id.Subject, id.Claims["sub"] = fmt.Sprint("user-", i), fmt.Sprint("user-", i)
		all = append(all, id)
	}
	var out []*authz.Record
	for i := range 4 * identities {
		r := golden()
		r.Input.Identity, r.Input.Gateway, r.Decision.Bundles = all[i%identities], gateway, bundles
		r.Input.Request.ID, r.Input.Request.RawQuery = fmt.Sprintf("0b8f5b9e-8a5b-4f8e-9c57-%012d", i), ""
		r.Input.Request.Time = r.Input.Request.Time.Add(time.Duration(i) * time.Millisecond / 20)
		r.Input.Request.Headers = []authz.Header{
			{Name: "user-agent", Value: "curl/8.1"},
			{Name: "accept", Value: "*/*"},
			{Name: "accept-encoding", Value: "gzip, br"},
			{Name: "content-type", Value: "application/json"},
			{Name: "traceparent", Value: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
		}
		r.Decision.Upstream.SetHeaders = map[string]string{"X-User": fmt.Sprint("user-", i%identities)}
		out = append(out, r)
	}
	return out
}

// BenchmarkEvent is the worker's time for a record: masking, encoding, writing.
func BenchmarkEvent(b *testing.B) {
	records := traffic(1000)
	l, err := New(Default(), io.Discard, Deps{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		l.handle(b.Context(), records[i%len(records)])
		if i++; i%20 == 0 {
			l.flush(b.Context())
		}
	}
}
