package document

import (
	"testing"
	"time"
)

func TestWorkRestsOnceRequestsAreServed(t *testing.T) {
	const step = stint / 10
	var clock, slept time.Duration
	rests := 0
	p := &pacer{
		now:   func() time.Duration { return clock },
		sleep: func(d time.Duration) { clock += d; slept += d; rests++ },
	}
	work := func(steps int) {
		for range steps {
			clock += step
			p.giveWay()
		}
	}
	if work(1000); rests != 0 {
		t.Fatalf("rested %d times while nobody is served", rests)
	}
	p.serving.Store(true)
	if work(1); rests != 1 {
		t.Fatalf("rested %d times, want once: no rest for as long as it ever worked", rests)
	}
	if work(1100); rests != 101 {
		t.Errorf("rested %d times in 1100 steps of a tenth of a stint, want after each stint that is over", rests)
	}
	if worked := 1101 * step; slept < worked/2 {
		t.Errorf("slept %v of %v of work: less than a third of the time is left to others", slept, worked)
	}
}
