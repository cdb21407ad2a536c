package sweep

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEveryResourceHasItsTurn(t *testing.T) {
	for _, n := range []int{10, 100, 200, 1_000, 10_000} {
		seen, path := map[string]bool{}, resources(n)
		for i := range n {
			seen[strings.Split(string(path(nil, int64(i))), "/")[2]] = true
		}
		if len(seen) != n {
			t.Errorf("%d requests ask for %d of %d resources", n, len(seen), n)
		}
	}
}

func TestRulesAreAsManyAsSaid(t *testing.T) {
	if got := strings.Count(written(200, active), "\ngranted if {"); got != 200 {
		t.Errorf("%d rules", got)
	}
	var data struct {
		Rules map[string]any `json:"rules"`
	}
	if err := json.Unmarshal([]byte(rulesAsData(200)), &data); err != nil || len(data.Rules) != 200 {
		t.Errorf("%d rules: %v", len(data.Rules), err)
	}
}

func TestUsersAreAsLargeAsSaid(t *testing.T) {
	const size = 200_000
	text := users(size, "7")
	var data struct {
		Revision string
		Users    map[string]struct{ Active bool }
	}
	if err := json.Unmarshal([]byte(text), &data); err != nil {
		t.Fatal(err)
	}
	if len(text) < size || len(text) > size+300 || data.Revision != "7" || !data.Users["user-00999"].Active {
		t.Errorf("%d bytes, revision %q, %d users", len(text), data.Revision, len(data.Users))
	}
}

// unpack reads a bundle.
func unpack(t *testing.T, raw []byte) map[string]string {
	t.Helper()
	zip, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for archive := tar.NewReader(zip); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		out[header.Name] = string(text)
	}
}

func TestShelfHasOneRevisionAfterTheOther(t *testing.T) {
	s, err := newShelf(t.Context(), [2]map[string]string{{"data.json": `{"a": 0}`}, {"data.json": `{"a": 1}`}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	ask := func(tag string) (int, string, []byte) {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/bench.tar.gz", http.NoBody)
		req.Header.Set("If-None-Match", tag)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, resp.Header.Get("ETag"), raw
	}
	status, tag, raw := ask("")
	want := map[string]string{"/.manifest": `{"revision": "0"}`, "/data.json": `{"a": 0}`}
	if d := cmp.Diff(want, unpack(t, raw)); d != "" || status != 200 {
		t.Errorf("status %d: %s", status, d)
	}
	if status, _, raw = ask(tag); status != 304 || len(raw) != 0 {
		t.Errorf("status %d and %d bytes for a client that has the revision", status, len(raw))
	}
	if err := s.publish(1); err != nil {
		t.Fatal(err)
	}
	if status, _, raw = ask(tag); status != 200 || unpack(t, raw)["/data.json"] != `{"a": 1}` {
		t.Errorf("status %d after another revision", status)
	}
}

func TestMetricsSum(t *testing.T) {
	page := metrics(`# HELP x_total of {braces}
x_total{result="activated",b="}"} 3
x_total{result="refused"} 5
x_total_more{result="activated"} 7
x_total 1e2 1700000000
`)
	for want, got := range map[float64]float64{
		108: page.sum("x_total"), 3: page.sum("x_total", `result="activated"`), 0: page.sum("y"), 7: page.sum("x_total_more"),
	} {
		if got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}
