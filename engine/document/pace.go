package document

import (
	"runtime"
	"sync/atomic"
	"time"
)

// Once requests are served, work rests for pause after each stint, so that a reload
// takes half of a processor at most and not all of one. A shorter pause would not be
// shorter: a timer is late by up to a millisecond when it is all that is waited for.
const (
	stint = 700 * time.Microsecond
	pause = 500 * time.Microsecond
)

// pacer has long work rest. There is one, which belongs to the process and not to a
// value, as the processors do: work anywhere in it delays requests anywhere in it.
type pacer struct {
	now     func() time.Duration // of a clock that never goes back
	sleep   func(time.Duration)
	serving atomic.Bool
	rested  atomic.Int64 // when work rested the last time
}

var (
	began   = time.Now()
	process = &pacer{now: func() time.Duration { return time.Since(began) }, sleep: time.Sleep}
)

// Serving says that requests are served from now on, so that long work rests now
// and then. Before that, nobody waits for anything but the work.
func Serving() { process.serving.Store(true) }

// GiveWay lets everything that is ready to run go first. Long work calls it
// between its steps, which take a fraction of a stint each.
//
// While requests are served it sleeps when a stint is over. To leave it to the
// scheduler would not do: that looks for data from the network only when nothing
// else is ready to run, which long work always is. With one processor, requests then
// wait for the runtime's monitor, which looks every 10 ms, once for each step of
// each of them. What rests also leaves the processor to other processes: a kernel
// lets a thread that does not sleep run for some milliseconds before it looks at who
// woke up. See docs/decisions/0009-reload.md for what that is worth.
func GiveWay() { process.giveWay() }

func (p *pacer) giveWay() {
	if p.serving.Load() && int64(p.now())-p.rested.Load() > int64(stint) {
		p.sleep(pause)
		p.rested.Store(int64(p.now()))
		return
	}
	runtime.Gosched()
}
