package process

import (
	"fmt"
	"syscall"
)

// OpenFiles lets this process, and what it starts from now on, have count open
// files. A program in Go raises its own limit up to the hard one by itself, but
// what it starts has the old one again unless it is set like this.
func OpenFiles(count uint64) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	if limit.Max < count {
		return fmt.Errorf("%d open files are needed and %d are allowed: raise the hard limit (ulimit -Hn %d)", count, limit.Max, count)
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("raise the limit of open files to %d: %w", limit.Cur, err)
	}
	return nil
}
