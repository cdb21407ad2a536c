package judge

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/sallyport/sallyport/proxy/problem"
)

var noSpan = func(error) {}

// span starts a span when requests are traced, and costs nothing when not.
func (j *Judge) span(ctx context.Context, name string) (context.Context, func(error)) {
	if j.cfg.Tracer == nil || !trace.SpanFromContext(ctx).IsRecording() {
		return ctx, noSpan
	}
	ctx, span := j.cfg.Tracer.Start(ctx, name)
	return ctx, func(err error) {
		if err != nil {
			span.SetAttributes(attribute.Int("sallyport.status", problem.Of(err).Status))
		}
		span.End()
	}
}
