package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// setenv puts the text of a file, without its last line break, into a variable:
// setenv NAME FILE.
func setenv(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: setenv NAME FILE")
	}
	ts.Setenv(args[0], strings.TrimSuffix(ts.ReadFile(args[1]), "\n"))
}

// address puts a free address of loopback into a variable: address NAME.
func address(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: address NAME")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	defer l.Close()
	ts.Setenv(args[0], l.Addr().String())
}

// upstream starts a server that answers with the request's headers, a line each in
// lower case, and puts its URL into a variable: upstream NAME.
func upstream(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: upstream NAME")
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var lines []string
		for name, values := range r.Header {
			for _, v := range values {
				lines = append(lines, strings.ToLower(name)+": "+v+"\n")
			}
		}
		slices.Sort(lines)
		_, _ = io.WriteString(w, strings.Join(lines, "")) // the client may have gone
	}))
	ts.Defer(s.Close)
	ts.Setenv(args[0], s.URL)
}

// request sends a GET and demands the status of its answer, whose headers and body
// are what the script's stdout then looks at: request STATUS URL [HEADER:VALUE...].
// A gateway that does not listen yet or is not ready is asked again.
func request(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: request STATUS URL [HEADER:VALUE...]")
	}
	req, err := http.NewRequest(http.MethodGet, args[1], nil)
	ts.Check(err)
	for _, h := range args[2:] {
		name, value, _ := strings.Cut(h, ":")
		req.Header.Add(name, strings.TrimSpace(value))
	}
	resp := send(ts, req)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	ts.Check(resp.Header.Write(ts.Stdout()))
	_, err = fmt.Fprintf(ts.Stdout(), "\n%s", body)
	ts.Check(err)
	if got := strconv.Itoa(resp.StatusCode); got != args[0] {
		ts.Fatalf("%s answered %s, want %s: %s", args[1], got, args[0], body)
	}
}

func send(ts *testscript.TestScript, req *http.Request) *http.Response {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 2000 { // a process that never comes up ends the test
		resp, err := http.DefaultClient.Do(req)
		if err == nil && resp.StatusCode != http.StatusServiceUnavailable {
			return resp
		}
		if err == nil {
			ts.Check(resp.Body.Close())
		}
		<-tick.C
	}
	ts.Fatalf("%s does not answer", req.URL)
	return nil
}
