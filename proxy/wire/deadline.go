package wire

import "time"

// Deadline keeps one deadline of a connection. Moving a deadline takes a lock and
// a timer of the runtime, and every request moves several, so that one which
// stands a little before the wanted time is left where it is: what times out
// does so up to a 64th of its time early.
//
// Whoever sets the same deadline past it calls Forget.
type Deadline struct {
	set func(time.Time) error
	at  time.Time
}

// NewDeadline returns the deadline that set moves, such as net.Conn's
// SetReadDeadline.
func NewDeadline(set func(time.Time) error) Deadline { return Deadline{set: set} }

// After makes the deadline expire when timeout has passed since now.
func (d *Deadline) After(now time.Time, timeout time.Duration) error {
	want := now.Add(timeout)
	if early := want.Sub(d.at); early >= 0 && early <= timeout/64 {
		return nil
	}
	if err := d.set(want); err != nil {
		return err
	}
	d.at = want
	return nil
}

// Forget makes the next After move the deadline whatever it is.
func (d *Deadline) Forget() { d.at = time.Time{} }
