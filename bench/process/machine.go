package process

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Shares measures how much of the machine somebody else uses: everybody but this
// process and its descendants, ended ones included.
type Shares struct {
	begin     time.Time
	all, ours time.Duration
}

// Watch begins to measure.
func Watch() (*Shares, error) {
	all, err := busy()
	if err != nil {
		return nil, err
	}
	ours, err := Used(os.Getpid())
	return &Shares{begin: time.Now(), all: all, ours: ours.CPU}, err
}

// Others returns the share of all cores that others have used since Watch.
func (s *Shares) Others() (float64, error) {
	now, err := Watch()
	if err != nil {
		return 0, err
	}
	others := (now.all - s.all) - (now.ours - s.ours)
	return max(0, others.Seconds()/(now.begin.Sub(s.begin).Seconds()*float64(runtime.NumCPU()))), nil
}

// busy is the time that all cores have spent in processes since the start of the
// machine.
func busy() (time.Duration, error) {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("read the cores' time: %w", err)
	}
	return parseBusy(string(raw))
}

// parseBusy adds user, nice and system of the first line (proc(5)). Interrupts
// are nobody's.
func parseBusy(text string) (time.Duration, error) {
	line, _, _ := strings.Cut(text, "\n")
	fields := strings.Fields(line)
	if len(fields) < 4 || fields[0] != "cpu" {
		return 0, fmt.Errorf("no times of all cores in %q", line)
	}
	var sum time.Duration
	for _, f := range fields[1:4] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("times in %q: %w", line, err)
		}
		sum += time.Duration(n) * tick
	}
	return sum, nil
}
