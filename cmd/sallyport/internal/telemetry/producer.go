package telemetry

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/sallyport/sallyport/engine/meter"
)

// producer hands what package meter counted to the SDK's readers, which put it
// beside what the SDK counted itself. It is all cumulative, whatever the readers
// prefer: a reader does not tell a producer.
type producer struct{ registry *meter.Registry }

// Produce implements the SDK's Producer.
func (p producer) Produce(context.Context) ([]metricdata.ScopeMetrics, error) {
	now := time.Now()
	out := metricdata.ScopeMetrics{Scope: instrumentation.Scope{Name: Scope}}
	for _, m := range p.registry.Snapshot() {
		if len(m.Series) == 0 {
			continue // as the SDK does
		}
		data := metricdata.Metrics{Name: m.Name, Unit: m.Unit, Description: m.Description}
		if m.Kind == meter.KindHistogram {
			data.Data = histogramOf(m, p.registry.Start(), now)
		} else {
			data.Data = sumOf(m, p.registry.Start(), now)
		}
		out.Metrics = append(out.Metrics, data)
	}
	if len(out.Metrics) == 0 {
		return nil, nil
	}
	return []metricdata.ScopeMetrics{out}, nil
}

func sumOf(m meter.Metric, start, now time.Time) metricdata.Sum[int64] {
	out := metricdata.Sum[int64]{Temporality: metricdata.CumulativeTemporality, IsMonotonic: m.Kind == meter.KindCounter}
	for _, s := range m.Series {
		out.DataPoints = append(out.DataPoints, metricdata.DataPoint[int64]{
			Attributes: setOf(s.Attrs), StartTime: start, Time: now, Value: s.Value,
		})
	}
	return out
}

func histogramOf(m meter.Metric, start, now time.Time) metricdata.Histogram[float64] {
	out := metricdata.Histogram[float64]{Temporality: metricdata.CumulativeTemporality}
	bounds := seconds(m.Bounds)
	for _, s := range m.Series {
		point := metricdata.HistogramDataPoint[float64]{
			Attributes: setOf(s.Attrs), StartTime: start, Time: now, Bounds: bounds, BucketCounts: s.Buckets, Sum: s.Sum.Seconds(),
		}
		for _, n := range s.Buckets {
			point.Count += n
		}
		out.DataPoints = append(out.DataPoints, point)
	}
	return out
}

func setOf(attrs []meter.Attr) attribute.Set {
	out := make([]attribute.KeyValue, len(attrs))
	for i, a := range attrs {
		out[i] = attribute.String(a.Key, a.Value)
		if a == meter.Overflow() {
			out[i] = attribute.Bool(a.Key, true)
		}
	}
	return attribute.NewSet(out...)
}

func seconds(durations []time.Duration) []float64 {
	out := make([]float64, len(durations))
	for i, d := range durations {
		out[i] = d.Seconds()
	}
	return out
}
