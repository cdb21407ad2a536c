package wire

import (
	"errors"
	"testing"
	"time"
)

func TestDeadlineMovesWhenItMatters(t *testing.T) {
	var set []time.Time
	d := NewDeadline(func(at time.Time) error { set = append(set, at); return nil })
	start := time.Unix(1_000_000, 0)
	for i, tc := range []struct {
		after, timeout time.Duration
		moved          bool
	}{
		{0, 64 * time.Second, true},
		{time.Second / 2, 64 * time.Second, false},
		{time.Second, 64 * time.Second, false}, // a 64th early
		{time.Second + 1, 64 * time.Second, true},
		{2 * time.Second, 5 * time.Second, true}, // a shorter one is never late
		{2 * time.Second, 64 * time.Second, true},
		{2 * time.Second, 64*time.Second - 1, true},
		{90 * time.Second, 64 * time.Second, true}, // the last has passed
		{90 * time.Second, 0, true},
	} {
		set = nil
		if err := d.After(start.Add(tc.after), tc.timeout); err != nil {
			t.Fatal(err)
		}
		if (len(set) == 1) != tc.moved {
			t.Errorf("step %d: moved %v, want %v", i, set, tc.moved)
		}
		if want := start.Add(tc.after + tc.timeout); tc.moved && len(set) == 1 && !set[0].Equal(want) {
			t.Errorf("step %d: set to %v, want %v", i, set[0], want)
		}
	}
	set = nil
	d.Forget()
	if _ = d.After(start, time.Hour); len(set) != 1 {
		t.Errorf("a forgotten deadline was set %d times", len(set))
	}
}

func TestDeadlineThatCouldNotBeSetIsTriedAgain(t *testing.T) {
	calls := 0
	d := NewDeadline(func(time.Time) error { calls++; return errors.New("closed") })
	for range 2 {
		if d.After(time.Unix(1, 0), time.Minute) == nil {
			t.Error("no error")
		}
	}
	if calls != 2 {
		t.Errorf("tried %d times", calls)
	}
}
