package proxy

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/judge"
	"github.com/sallyport/sallyport/proxy/upstream"
	"github.com/sallyport/sallyport/proxy/wire"
)

// writeAnswer sends a whole response of the gateway's own.
func (r *request) writeAnswer(a *judge.Answer) error {
	w := r.c.writer
	r.c.wrote = true
	r.statusLine(a.Status)
	for _, h := range a.Headers {
		wire.WriteField(w.Writer, h.Name, h.Value)
	}
	wire.WriteField(w.Writer, "date", httpDate())
	r.ownFields()
	if !bodyless(a.Status) {
		wire.WriteField(w.Writer, "content-length", strconv.Itoa(len(a.Body)))
	}
	_, _ = w.WriteString("\r\n")
	if r.head.Method != "HEAD" && !bodyless(a.Status) {
		_, _ = w.Write(a.Body)
	}
	return w.Flush()
}

func (r *request) statusLine(status int) {
	w := r.c.writer
	b := append(w.AvailableBuffer(), "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	b = append(b, http.StatusText(status)...)
	_, _ = w.Write(append(b, "\r\n"...))
}

// ownFields writes what every response carries.
func (r *request) ownFields() {
	r.verdictFields()
	if !r.keep {
		wire.WriteField(r.c.writer.Writer, "connection", "close")
	}
}

// verdictFields writes those of them that come of judging.
func (r *request) verdictFields() {
	wire.WriteField(r.c.writer.Writer, "x-request-id", r.verdictID())
	if r.verdict != nil {
		for _, h := range r.verdict.Response {
			wire.WriteField(r.c.writer.Writer, h.Name, h.Value)
		}
	}
}

func (r *request) verdictID() string {
	if r.verdict == nil {
		return "unknown" // a panic came before there was an id
	}
	return r.verdict.Input.Request.ID
}

func httpDate() string {
	var b [32]byte
	return string(fasthttp.AppendHTTPDate(b[:0], time.Now()))
}

// bodyless reports whether a status has no body (RFC 9112 section 6.3).
func bodyless(status int) bool { return status < 200 || status == 204 || status == 304 }

// relay sends the upstream's response. An error means that the client did not
// get all of it.
func (r *request) relay(x *upstream.Exchange) error {
	w := r.c.writer
	resp := x.Response
	status, length := resp.StatusCode(), resp.Header.ContentLength()
	body := !bodyless(status) && r.head.Method != "HEAD"
	raw := body && length < 0 && r.head.Protocol == "HTTP/1.0" // such clients' connections are never kept
	r.c.wrote = true
	r.statusLine(status)
	r.copyFields(&resp.Header)
	switch {
	case length >= 0 && status >= 200 && status != 204:
		wire.WriteField(w.Writer, "content-length", strconv.Itoa(length))
	case body && !raw:
		wire.WriteField(w.Writer, "transfer-encoding", "chunked")
	}
	r.ownFields()
	_, _ = w.WriteString("\r\n")
	if !body || length == 0 {
		return w.Flush()
	}
	if events(&resp.Header) {
		x.Patient()
	}
	if x.Buffered() == 0 {
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if err := wire.CopyBody(w.Writer, x, max(int64(length), wire.Unknown), raw); err != nil {
		_ = w.Flush()
		return err
	}
	return w.Flush()
}

func events(h *fasthttp.ResponseHeader) bool {
	return strings.HasPrefix(string(h.ContentType()), "text/event-stream")
}

// copyFields writes the upstream's fields but for those that end at this hop
// (RFC 9110 section 7.6.1), frame the message, or are the gateway's to set, and
// then those that the policy sets.
func (r *request) copyFields(h *fasthttp.ResponseHeader) {
	w := r.c.writer
	rules := &r.verdict.Forward.Response
	nominated := connectionTokens(h)
	ruled := len(rules.SetHeaders)+len(rules.RemoveHeaders) > 0
	dated := false
	for k, v := range h.All() {
		if dropField(k) || setsOwnCookie(k, v) || len(nominated) > 0 && named(nominated, string(k)) || ruled && replaced(rules, string(k)) {
			continue
		}
		dated = dated || string(k) == "Date"
		b := append(w.AvailableBuffer(), k...)
		b = append(b, ": "...)
		b = append(b, v...)
		_, _ = w.Write(append(b, "\r\n"...))
	}
	for name, value := range rules.SetHeaders {
		wire.WriteField(w.Writer, strings.ToLower(name), value)
	}
	if !dated {
		wire.WriteField(w.Writer, "date", httpDate())
	}
}

func named(names []string, name string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
}

func dropField(name []byte) bool {
	switch string(name) {
	case "Connection", "Proxy-Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
		"Proxy-Authenticate", "Proxy-Authorization", "Content-Length", "Server", "X-Request-Id":
		return true
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c >= 0x7f || c == ':' {
			return true // fasthttp lets names with spaces through
		}
	}
	return len(name) == 0
}

// setsOwnCookie reports whether a field has the browser keep, or forget, a cookie of the
// gateway's. Browsers send one without a name as its value alone, which then has one.
func setsOwnCookie(name, value []byte) bool {
	if string(name) != "Set-Cookie" {
		return false
	}
	cookie, _, _ := strings.Cut(strings.TrimLeft(string(value), " \t="), "=")
	return authn.OwnCookie(cookie)
}

func connectionTokens(h *fasthttp.ResponseHeader) []string {
	var out []string
	for _, v := range h.PeekAll("Connection") {
		for t := range strings.SplitSeq(string(v), ",") {
			out = append(out, strings.Trim(t, " \t"))
		}
	}
	return out
}

func replaced(rules *authz.ResponseObligation, name string) bool {
	for n := range rules.SetHeaders {
		if strings.EqualFold(n, name) {
			return true
		}
	}
	return slices.ContainsFunc(rules.RemoveHeaders, func(n string) bool { return strings.EqualFold(n, name) })
}
