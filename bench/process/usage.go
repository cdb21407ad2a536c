package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Usage is what a process and all its descendants have used.
type Usage struct {
	CPU      time.Duration // user and system, since their start
	Resident int64         // memory now, in bytes; pages that they share count for each
}

// tick is the unit of times in /proc/PID/stat: USER_HZ, which is 100 on every
// architecture that Go runs on.
const tick = 10 * time.Millisecond

// stat is what is read of one line of /proc/PID/stat (proc(5)).
type stat struct {
	pid, parent int
	cpu         time.Duration
	resident    int64
}

// Used returns what the processes with these ids and all their descendants have
// used so far.
func Used(pids ...int) (Usage, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return Usage{}, fmt.Errorf("list processes: %w", err)
	}
	all := map[int]stat{}
	for _, name := range files {
		line, err := os.ReadFile(name) //nolint:gosec // below /proc
		if errors.Is(err, fs.ErrNotExist) || err != nil && strings.Contains(err.Error(), "no such process") {
			continue // ended since it was listed
		}
		if err != nil {
			return Usage{}, fmt.Errorf("read processes: %w", err)
		}
		s, err := parseStat(string(line))
		if err != nil {
			return Usage{}, fmt.Errorf("read %s: %w", name, err)
		}
		all[s.pid] = s
	}
	return sum(all, pids)
}

func sum(all map[int]stat, roots []int) (Usage, error) {
	var u Usage
	for _, root := range roots {
		if _, ok := all[root]; !ok {
			return Usage{}, fmt.Errorf("process %d has ended", root)
		}
	}
	for pid, s := range all {
		if descends(all, pid, roots) {
			u.CPU += s.cpu
			u.Resident += s.resident
		}
	}
	return u, nil
}

// descends reports whether pid is one of roots or below one of them.
func descends(all map[int]stat, pid int, roots []int) bool {
	for range len(all) { // a race of ids must not make a circle
		if slices.Contains(roots, pid) {
			return true
		}
		s, ok := all[pid]
		if !ok {
			return false
		}
		pid = s.parent
	}
	return false
}

// parseStat reads a line. The name of the program is in parentheses and may
// itself hold spaces and parentheses, so that fields count from the last one.
func parseStat(line string) (stat, error) {
	begin, end := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if begin < 0 || end < begin {
		return stat{}, fmt.Errorf("no program name in %q", line)
	}
	const ppid, utime, cstime, rss = 1, 11, 14, 21 // places behind the name
	fields := strings.Fields(line[end+1:])
	if len(fields) <= rss {
		return stat{}, fmt.Errorf("only %d fields in %q", len(fields), line)
	}
	var s stat
	var errs [3]error
	s.pid, errs[0] = strconv.Atoi(strings.TrimSpace(line[:begin]))
	s.parent, errs[1] = strconv.Atoi(fields[ppid])
	for _, f := range fields[utime : cstime+1] { // own and of children that have ended
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return stat{}, fmt.Errorf("times in %q: %w", line, err)
		}
		s.cpu += time.Duration(n) * tick
	}
	var pages int64
	pages, errs[2] = strconv.ParseInt(fields[rss], 10, 64)
	s.resident = pages * int64(os.Getpagesize())
	return s, errors.Join(errs[:]...)
}
