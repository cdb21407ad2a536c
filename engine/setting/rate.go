package setting

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Rate is a number of events per second, written "100/s", "20/m" or "5/h", or
// "unlimited", which is infinity. Zero is a setting that was left out.
type Rate float64

const unlimited = "unlimited"

var ratePeriods = []struct {
	suffix  string
	seconds float64
}{
	{"/s", 1},
	{"/m", 60},
	{"/h", 3600},
}

// Unlimited reports whether the rate is no limit.
func (r Rate) Unlimited() bool { return math.IsInf(float64(r), 1) }

// UnmarshalText reads a rate. A rate of zero would let nothing through and is an
// error.
func (r *Rate) UnmarshalText(text []byte) error {
	in := string(text)
	if in == unlimited {
		*r = Rate(math.Inf(1))
		return nil
	}
	for _, p := range ratePeriods {
		num, ok := strings.CutSuffix(in, p.suffix)
		if n, err := strconv.ParseUint(num, 10, 32); ok && err == nil && n > 0 {
			*r = Rate(float64(n) / p.seconds)
			return nil
		}
	}
	return fmt.Errorf("%q is not a rate such as 100/s, 20/m or 5/h, or unlimited", in)
}

// MarshalText writes the rate with the shortest period in which it is a whole
// number of events.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

func (r Rate) String() string {
	if r.Unlimited() {
		return unlimited
	}
	for _, p := range ratePeriods {
		if n := math.Round(float64(r) * p.seconds); n > 0 && math.Abs(n-float64(r)*p.seconds) < 1e-6 {
			return strconv.FormatFloat(n, 'f', -1, 64) + p.suffix
		}
	}
	return strconv.FormatFloat(float64(r), 'g', -1, 64) + "/s"
}
