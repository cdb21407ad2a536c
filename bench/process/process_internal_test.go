package process

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const line = "4242 (a (b) c) S 17 4242 4242 0 -1 4194560 1 2 3 4 150 50 7 3 20 0 9 0 100 1000000 256 18446744073709551615 1 1 0\n"

func TestParseStat(t *testing.T) {
	got, err := parseStat(line)
	if err != nil {
		t.Fatal(err)
	}
	want := stat{pid: 4242, parent: 17, cpu: 2100 * time.Millisecond, resident: 256 * int64(os.Getpagesize())}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(stat{})); d != "" {
		t.Error(d)
	}
}

func TestParseStatRefusesWhatItDoesNotKnow(t *testing.T) {
	for _, bad := range []string{"", "1 name S 1", "1 (x) S 1 2 3", strings.Replace(line, " 150 ", " x ", 1), strings.Replace(line, "4242 (", "y (", 1)} {
		if s, err := parseStat(bad); err == nil {
			t.Errorf("%q gave %+v", bad, s)
		}
	}
}

func TestSumTakesDescendantsOnly(t *testing.T) {
	all := map[int]stat{
		1: {pid: 1, cpu: time.Hour}, 10: {pid: 10, parent: 1, cpu: 1, resident: 10},
		11: {pid: 11, parent: 10, cpu: 2, resident: 20}, 12: {pid: 12, parent: 11, cpu: 4, resident: 40},
		20: {pid: 20, parent: 1, cpu: 8, resident: 80}, 30: {pid: 30, parent: 1, cpu: time.Hour},
	}
	got, err := sum(all, []int{10, 20})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(Usage{CPU: 15, Resident: 150}, got); d != "" {
		t.Error(d)
	}
	if _, err := sum(all, []int{99}); err == nil {
		t.Error("a process that has ended has used nothing")
	}
}

func TestUsedSeesThisProcess(t *testing.T) {
	before, err := Used(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); time.Since(begin) < 60*time.Millisecond; {
		continue // work that must show
	}
	after, err := Used(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if after.CPU <= before.CPU || after.Resident <= 0 {
		t.Errorf("from %+v to %+v", before, after)
	}
}

func TestParseBusy(t *testing.T) {
	got, err := parseBusy("cpu  100 20 30 4000 5 6 7 8 0 0\ncpu0 50 10 15 2000 2 3 3 4 0 0\n")
	if err != nil || got != 1500*time.Millisecond {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "cpu 1 2", "cpu0 1 2 3 4", "cpu 1 x 3 4"} {
		if _, err := parseBusy(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestOwnWorkIsNotThatOfOthers(t *testing.T) {
	s, err := Watch()
	if err != nil {
		t.Fatal(err)
	}
	s.ours -= time.Hour // as if this process had worked an hour, and the cores not
	others, err := s.Others()
	if err != nil || others != 0 {
		t.Errorf("others %v, %v", others, err)
	}
	s.ours += 2 * time.Hour
	if others, err = s.Others(); err != nil || others == 0 {
		t.Errorf("others %v, %v", others, err)
	}
}
