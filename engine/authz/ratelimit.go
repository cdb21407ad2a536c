package authz

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Bounds of rate limits. They keep a key from filling the memory of the gateway, and
// the arithmetic of buckets exact.
const (
	MaxRateLimitKey = 512        // bytes
	MaxRate         = 10_000_000 // tokens in a unit of time, and in a bucket
)

// Bucket is what tokens are taken from: it holds Burst of them and earns Count
// every Per.
type Bucket struct {
	Count, Burst int64
	Per          time.Duration
}

// Bucket checks r and says what its bucket is like. Errors begin with the member
// that is wrong.
func (r *RateLimit) Bucket() (Bucket, error) {
	if len(r.Key) == 0 || len(r.Key) > MaxRateLimitKey {
		return Bucket{}, fmt.Errorf("rate_limit.key has %d bytes, want 1 to %d", len(r.Key), MaxRateLimitKey)
	}
	count, per, ok := parseRate(r.Rate)
	if !ok {
		return Bucket{}, fmt.Errorf("rate_limit.rate is not a number from 1 to %d and a unit (s, m, h or d), such as 100/m", MaxRate)
	}
	if r.Burst < 0 || r.Burst > MaxRate {
		return Bucket{}, fmt.Errorf("rate_limit.burst is %d, want 1 to %d", r.Burst, MaxRate)
	}
	b := Bucket{Count: count, Burst: int64(r.Burst), Per: per}
	if b.Burst == 0 {
		b.Burst = count
	}
	return b, nil
}

func parseRate(text string) (count int64, per time.Duration, ok bool) {
	number, unit, _ := strings.Cut(text, "/")
	if number == "" || number[0] < '1' || number[0] > '9' { // strconv takes signs
		return 0, 0, false
	}
	count, err := strconv.ParseInt(number, 10, 64)
	if err != nil || count > MaxRate {
		return 0, 0, false
	}
	switch unit {
	case "s":
		per = time.Second
	case "m":
		per = time.Minute
	case "h":
		per = time.Hour
	case "d":
		per = 24 * time.Hour
	}
	return count, per, per > 0
}
