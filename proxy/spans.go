package proxy

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/judge"
)

// carrier reads and writes W3C trace context in header lists.
type carrier struct{ headers *[]authz.Header }

func (c carrier) Get(key string) string {
	for _, h := range *c.headers {
		if h.Name == key {
			return h.Value
		}
	}
	return ""
}

func (c carrier) Set(key, value string) {
	for i := range *c.headers {
		if (*c.headers)[i].Name == key {
			(*c.headers)[i].Value = value
			return
		}
	}
	*c.headers = append(*c.headers, authz.Header{Name: key, Value: value})
}

func (c carrier) Keys() []string { return []string{"traceparent", "tracestate"} }

// startSpan begins the span of the request. Without tracer it does nothing, and
// the client's trace context goes through untouched.
func (r *request) startSpan(ctx context.Context) context.Context {
	if r.c.s.tracer == nil {
		return ctx
	}
	ctx = propagation.TraceContext{}.Extract(ctx, carrier{&r.head.Headers})
	ctx, r.span = r.c.s.tracer.Start(ctx, "request", trace.WithSpanKind(trace.SpanKindServer))
	return ctx
}

func (r *request) endSpan() {
	if r.span == nil {
		return
	}
	if r.span.IsRecording() && r.verdict != nil {
		r.describeSpan()
	}
	r.span.End()
}

func (r *request) describeSpan() {
	v := r.verdict
	r.span.SetAttributes(
		attribute.String("http.request.method", r.head.Method),
		attribute.Int("http.response.status_code", r.status),
		attribute.String("url.path", v.Input.Request.Path),
		attribute.String("server.address", v.Input.Request.Host),
		attribute.String("client.address", v.Input.Source.IP),
		attribute.String("sallyport.outcome", string(v.Outcome)),
		attribute.String("sallyport.request_id", v.Input.Request.ID),
	)
	if v.Route != nil {
		r.span.SetName(r.head.Method + " " + v.Route.Config.Name)
		r.span.SetAttributes(attribute.String("http.route", v.Route.Config.Match.Path))
	}
	if r.status >= 500 {
		r.span.SetStatus(codes.Error, "")
	}
}

// startUpstreamSpan begins the span of the exchange and tells the upstream of it.
func (r *request) startUpstreamSpan(ctx context.Context, f *judge.Forward) func(status int, err error) {
	if r.span == nil || !r.span.SpanContext().IsValid() {
		return func(int, error) {}
	}
	ctx, span := r.c.s.tracer.Start(ctx, "upstream", trace.WithSpanKind(trace.SpanKindClient))
	inject(ctx, f)
	return func(status int, err error) {
		span.SetAttributes(attribute.String("sallyport.upstream", f.Upstream))
		if err != nil {
			span.SetStatus(codes.Error, "")
		} else {
			span.SetAttributes(attribute.Int("http.response.status_code", status))
		}
		span.End()
	}
}

// inject replaces the client's trace context by ours.
func inject(ctx context.Context, f *judge.Forward) {
	propagation.TraceContext{}.Inject(ctx, carrier{&f.Headers})
}
