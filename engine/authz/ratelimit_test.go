package authz

import (
	"strings"
	"testing"
	"time"
)

func TestBucket(t *testing.T) {
	for rate, want := range map[string]Bucket{
		"1/s":        {1, 1, time.Second},
		"100/m":      {100, 100, time.Minute},
		"7/h":        {7, 7, time.Hour},
		"10000000/d": {MaxRate, MaxRate, 24 * time.Hour},
	} {
		if got, err := (&RateLimit{Key: "k", Rate: rate}).Bucket(); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", rate, got, err, want)
		}
	}
	if got, err := (&RateLimit{Key: strings.Repeat("k", MaxRateLimitKey), Rate: "100/m", Burst: 20}).Bucket(); err != nil || got != (Bucket{100, 20, time.Minute}) {
		t.Errorf("with a burst: %+v, %v", got, err)
	}
}

func TestBucketRefuses(t *testing.T) {
	for _, rate := range []string{
		"", "0/m", "-1/s", "+1/s", " 1/s", "1 /s", "1/ s", "1/y", "1/S", "1/", "/s", "1", "1/s/s", "1/sec", "1.5/s", "1e3/s", "0x1/s", "1_0/s", "00/s",
		"10000001/s", "9223372036854775807/s", "9223372036854775808/s", "99999999999999999999/m", "\u0661/s", "unlimited",
	} {
		if got, err := (&RateLimit{Key: "k", Rate: rate}).Bucket(); err == nil || !strings.HasPrefix(err.Error(), "rate_limit.rate ") {
			t.Errorf("%q: %+v, %v", rate, got, err)
		}
	}
	for name, r := range map[string]RateLimit{
		"rate_limit.key ":     {Rate: "1/s"},
		"rate_limit.key has":  {Key: strings.Repeat("k", MaxRateLimitKey+1), Rate: "1/s"},
		"rate_limit.burst ":   {Key: "k", Rate: "1/s", Burst: -1},
		"rate_limit.burst is": {Key: "k", Rate: "1/s", Burst: MaxRate + 1},
	} {
		if got, err := r.Bucket(); err == nil || !strings.HasPrefix(err.Error(), name) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}
