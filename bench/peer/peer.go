// Package peer holds the servers of the harness itself: the upstream that every
// system forwards to, and the two smallest proxies that Go programs make of
// their libraries, which others are measured against. They authenticate nobody.
package peer

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	"github.com/valyala/fasthttp"
)

// EchoHeader asks the upstream to answer with the X-User that reached it. Only
// the check of a system sends it; under load the response is always the same.
const EchoHeader = "X-Bench-Echo"

// SeenHeader carries that answer.
const SeenHeader = "X-Bench-Seen-User"

// payload is what the upstream answers, 128 bytes: the length of a small record.
const payload = `{"id":"00000000-0000-4000-8000-000000000000","state":"open","lines":[{"sku":"A-1","n":2},{"sku":"B-7","n":1}],"total":"123.45"}` + "\n"

// idle is how long connections may wait: longer than a run, so that none is
// closed between rounds.
const idle = time.Hour

// Servers are the verbs that make the harness's program one of its own servers.
func Servers() map[string]func(ctx context.Context, ln net.Listener, upstream string) error {
	return map[string]func(context.Context, net.Listener, string) error{
		"upstream": func(ctx context.Context, ln net.Listener, _ string) error { return Upstream(ctx, ln) },
		"fasthttp": FastHTTP,
		"nethttp":  NetHTTP,
	}
}

// Upstream answers every request at once.
func Upstream(ctx context.Context, ln net.Listener) error {
	return serve(ctx, ln, func(c *fasthttp.RequestCtx) {
		c.SetContentType("application/json")
		if len(c.Request.Header.Peek(EchoHeader)) > 0 {
			c.Response.Header.SetBytesV(SeenHeader, c.Request.Header.Peek("X-User"))
		}
		if body := c.RequestBodyStream(); body != nil {
			if _, err := io.Copy(io.Discard, body); err != nil {
				c.Error(http.StatusText(http.StatusBadRequest), http.StatusBadRequest)
				return
			}
		}
		c.SetBodyString(payload)
	})
}

// FastHTTP forwards with the least that fasthttp needs.
func FastHTTP(ctx context.Context, ln net.Listener, upstream string) error {
	client := &fasthttp.HostClient{
		Addr: upstream, MaxConns: 512, MaxIdleConnDuration: idle,
		NoDefaultUserAgentHeader: true, DisableHeaderNamesNormalizing: true, DisablePathNormalizing: true,
	}
	return serve(ctx, ln, func(c *fasthttp.RequestCtx) {
		c.Request.Header.Del("Connection")
		if err := client.Do(&c.Request, &c.Response); err != nil {
			c.Error(http.StatusText(http.StatusBadGateway), http.StatusBadGateway)
		}
		c.Response.Header.Del("Connection")
	})
}

func serve(ctx context.Context, ln net.Listener, h fasthttp.RequestHandler) error {
	// A body that is larger than this is read from the connection by the handler.
	const kept = 64 << 10
	s := &fasthttp.Server{
		Handler: h, NoDefaultServerHeader: true, IdleTimeout: idle,
		StreamRequestBody: true, MaxRequestBodySize: kept,
	}
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() }) // the process ends with its listener
	defer stop()
	return unlessDone(ctx, s.Serve(ln))
}

// NetHTTP forwards with httputil.ReverseProxy.
func NetHTTP(ctx context.Context, ln net.Listener, upstream string) error {
	target := &url.URL{Scheme: "http", Host: upstream}
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: &http.Transport{MaxIdleConnsPerHost: 512, IdleConnTimeout: idle, DisableCompression: true},
		ErrorLog:  log.Default(),
	}
	s := &http.Server{Handler: proxy, IdleTimeout: idle, ReadHeaderTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	return unlessDone(ctx, s.Serve(ln))
}

// unlessDone drops the error of a listener that was closed on purpose.
func unlessDone(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		err = nil
	}
	return err
}
