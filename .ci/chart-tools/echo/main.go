// Command echo is the upstream of the cluster test: it answers every request
// with what arrived, so that the test sees what the gateway forwarded.
package main

import (
	"encoding/json"
	"log"
	"net/http"
	"time"
)

func main() {
	server := &http.Server{Addr: ":9000", Handler: http.HandlerFunc(echo), ReadHeaderTimeout: 5 * time.Second}
	log.Fatal(server.ListenAndServe())
}

func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	seen := map[string]any{"method": r.Method, "path": r.URL.Path, "headers": r.Header}
	if err := json.NewEncoder(w).Encode(seen); err != nil {
		log.Print(err)
	}
}
