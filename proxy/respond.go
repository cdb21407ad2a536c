package proxy

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/sallyport/sallyport/engine/authz"
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
		writeField(w, h.Name, h.Value)
	}
	writeField(w, "date", httpDate())
	r.ownFields()
	if !bodyless(a.Status) {
		writeField(w, "content-length", strconv.Itoa(len(a.Body)))
	}
	_, _ = w.WriteString("\r\n")
	if r.head.Method != "HEAD" && !bodyless(a.Status) {
		_, _ = w.Write(a.Body)
	}
	return w.Flush()
}

func (r *request) statusLine(status int) {
	w := r.c.writer
	_, _ = w.WriteString("HTTP/1.1 ")
	_, _ = w.WriteString(strconv.Itoa(status))
	_, _ = w.WriteString(" ")
	_, _ = w.WriteString(http.StatusText(status))
	_, _ = w.WriteString("\r\n")
}

// ownFields writes what every response carries.
func (r *request) ownFields() {
	writeField(r.c.writer, "x-request-id", r.verdictID())
	if !r.keep {
		writeField(r.c.writer, "connection", "close")
	}
}

func (r *request) verdictID() string {
	if r.verdict == nil {
		return "unknown" // a panic came before there was an id
	}
	return r.verdict.Input.Request.ID
}

// writeField writes a field with its name as clients are used to see it; bufio
// keeps the first error for Flush.
func writeField(w *pooledWriter, name, value string) {
	upper := true
	if name == "www-authenticate" {
		name = "WWW-Authenticate" // the one name that is not written like the others
	}
	for i := range len(name) {
		b := name[i]
		if upper && b >= 'a' && b <= 'z' {
			b -= 'a' - 'A'
		}
		upper = b == '-'
		_ = w.WriteByte(b)
	}
	_, _ = w.WriteString(": ")
	_, _ = w.WriteString(value)
	_, _ = w.WriteString("\r\n")
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
		writeField(w, "content-length", strconv.Itoa(length))
	case body && !raw:
		writeField(w, "transfer-encoding", "chunked")
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
	dated := false
	for k, v := range h.All() {
		name := string(k)
		if dropField(name) || slices.ContainsFunc(nominated, func(n string) bool { return strings.EqualFold(n, name) }) || replaced(rules, name) {
			continue
		}
		dated = dated || name == "Date"
		_, _ = w.Write(k)
		_, _ = w.WriteString(": ")
		_, _ = w.Write(v)
		_, _ = w.WriteString("\r\n")
	}
	for name, value := range rules.SetHeaders {
		writeField(w, strings.ToLower(name), value)
	}
	if !dated {
		writeField(w, "date", httpDate())
	}
}

func dropField(name string) bool {
	switch name {
	case "Connection", "Proxy-Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
		"Proxy-Authenticate", "Proxy-Authorization", "Content-Length", "Server", "X-Request-Id":
		return true
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c >= 0x7f || c == ':' {
			return true // fasthttp lets names with spaces through
		}
	}
	return name == ""
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
