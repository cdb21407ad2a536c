package store_test

import (
	"testing"

	"github.com/open-policy-agent/opa/v1/metrics"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func noMetrics() metrics.Metrics { return metrics.New() }
