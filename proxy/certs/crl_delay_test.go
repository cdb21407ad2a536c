package certs

import (
	"testing"
	"time"
)

// TestListDelay: the next fetch is due after the interval or half of what is left of the
// list, the sooner, and with backoff while the server is down.
func TestListDelay(t *testing.T) {
	now := time.Now()
	f := &fetchedLists{config: CRL{RefreshInterval: time.Hour}, now: func() time.Time { return now }}
	for _, tt := range []struct {
		failures int
		left     time.Duration // of the list; 0: there is none
		want     time.Duration // at most, and nine tenths of it at least
	}{
		{0, 0, 0},
		{0, 24 * time.Hour, time.Hour},
		{0, time.Hour, 30 * time.Minute},
		{0, time.Second, time.Second},
		{0, -time.Hour, time.Second},
		{1, 24 * time.Hour, time.Second},
		{4, 24 * time.Hour, 8 * time.Second},
		{1000, 0, time.Minute},
	} {
		u := &listURL{of: f, failures: tt.failures}
		if tt.left != 0 {
			u.until = now.Add(tt.left)
		}
		if got := u.delay(); got > tt.want || got < tt.want*9/10 {
			t.Errorf("%d failures, %s left: %s, want %s", tt.failures, tt.left, got, tt.want)
		}
	}
}

// TestListEnds: the first list of a URL that ends says when.
func TestListEnds(t *testing.T) {
	now := time.Now()
	u := &listURL{of: &fetchedLists{now: func() time.Time { return now }}, lists: map[authority]*list{}}
	for i, left := range []time.Duration{2 * time.Hour, time.Hour, 3 * time.Hour} {
		u.lists[authority{byte(i)}] = &list{thisUpdate: now, nextDate: now.Add(left)}
	}
	if err := new(Store).checkLists(u); err != nil || !u.until.Equal(now.Add(time.Hour)) {
		t.Errorf("until %s, %v", u.until, err)
	}
}
