package sweep

import (
	"strconv"

	"github.com/sallyport/sallyport/bench/load"
	"github.com/sallyport/sallyport/bench/work"
)

// busy is how many connections are kept busy, as in the benchmark beside peers.
const busy = 64

// traffic is what is asked of a gateway: its n-th request.
type traffic struct {
	method string
	path   func(dst []byte, n int64) []byte
	token  func(n int64) []byte
	body   []byte
}

// request appends the head of the n-th request to dst.
func (t traffic) request(dst []byte, n int64) []byte {
	dst = append(append(dst, t.method...), ' ')
	dst = append(t.path(dst, n), " HTTP/1.1\r\nHost: bench.example\r\nAuthorization: Bearer "...)
	dst = append(dst, t.token(n)...)
	if len(t.body) > 0 {
		dst = append(dst, "\r\nContent-Type: application/octet-stream\r\nContent-Length: "...)
		dst = strconv.AppendInt(dst, int64(len(t.body)), 10)
	}
	return append(dst, "\r\n\r\n"...)
}

func (t traffic) loader(address string) *load.Client {
	return &load.Client{Address: address, Connections: busy, Request: t.request, Body: t.body}
}

// cases are the questions that show that the gateway decides: the first request
// itself, the same without a token, and one with a method that no policy of the
// sweeps lets anybody use.
func (t traffic) cases() []work.Case {
	path, token := string(t.path(nil, 0)), string(t.token(0))
	return []work.Case{
		{Name: work.Allowed, Method: t.method, Path: path, Token: token, Status: 200},
		{Name: work.NoToken, Method: t.method, Path: path, Status: 401},
		{Name: work.Forbidden, Method: "DELETE", Path: path, Token: token, Status: 403},
	}
}

// orders is one of a hundred paths.
func orders(dst []byte, n int64) []byte { return order(dst, n%100) }

// order is a path of its own for each n.
func order(dst []byte, n int64) []byte {
	return strconv.AppendInt(append(dst, "/v1/orders/"...), n, 10)
}

// everybody takes the tokens of w in turn.
func everybody(w *work.Work) func(int64) []byte {
	var all [][]byte
	for _, t := range w.Tokens {
		all = append(all, []byte(t.Text))
	}
	return func(n int64) []byte { return all[n%int64(len(all))] }
}

// one always takes the token of the first who has role.
func one(w *work.Work, role string) func(int64) []byte {
	for _, t := range w.Tokens {
		if t.Role == role {
			text := []byte(t.Text)
			return func(int64) []byte { return text }
		}
	}
	return everybody(w)
}
