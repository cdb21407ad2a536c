package demo

import (
	"encoding/json"
	"net/http"
)

// Echo is the demo's upstream: it answers with what reached it, so that a
// person sees what the gateway forwards and what it keeps back.
func Echo(w http.ResponseWriter, r *http.Request) {
	headers := map[string]string{"host": r.Host}
	for name, values := range r.Header {
		headers[http.CanonicalHeaderKey(name)] = values[0]
	}
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(map[string]any{"method": r.Method, "path": r.URL.RequestURI(), "headers": headers}) // the reader has gone
}
