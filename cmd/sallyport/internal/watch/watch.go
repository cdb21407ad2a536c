// Package watch notices that files changed and tells their owner to read them
// again. It is the only file watcher of the process: configuration, policies,
// certificates and key sets name their files and offer a reload, and none of
// them watches anything itself.
//
// It watches folders, never files: editors replace files by renaming, and
// Kubernetes swaps a symbolic link named ..data two folders away from the file
// that changes. Whether something changed is decided by looking at the files, so
// that a missed or doubled event does no harm.
package watch

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Target is a group of files with one owner.
type Target struct {
	// Name is for the log, and tells targets apart between rounds.
	Name string
	// Files are files or folders; folders count with all that is below them.
	Files []string
	// Reload reads the files again. An error has left the old state in place.
	Reload func(ctx context.Context) error
}

// Watcher calls Reload of targets whose files changed.
type Watcher struct {
	// Targets returns what to watch now. It is asked again after every change.
	Targets func() []Target
	Logger  *slog.Logger
	// Settle is how long files must be quiet before they are read, so that a
	// save in several steps is read once. 0 means 100 ms.
	Settle time.Duration
	// Poll is the interval at which files are looked at without an event, for
	// file systems that send none. 0 means 10 s.
	Poll time.Duration

	seen map[string]string
}

// Mark takes what the files are now as what their owners have read. Call it
// beside the first read; without it Run does, and a change between is missed.
func (w *Watcher) Mark() { w.seen = w.fingerprints(w.Targets()) }

// Run watches until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch files: %w", err)
	}
	defer notify.Close() //nolint:errcheck // nothing is written through it
	settle, poll := or(w.Settle, 100*time.Millisecond), time.NewTicker(or(w.Poll, 10*time.Second))
	defer poll.Stop()
	w.subscribe(ctx, notify)
	if w.seen == nil {
		w.Mark()
	}
	quiet := time.NewTimer(settle) // looks once at the start: files may have changed since they were marked
	defer quiet.Stop()
	var first time.Time // event since the last look
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-notify.Events:
			if first.IsZero() {
				first = time.Now()
			}
			if time.Since(first) < patience*settle {
				quiet.Reset(settle)
			}
			continue
		case err := <-notify.Errors:
			w.Logger.WarnContext(ctx, "file watcher lost events; looking at all files", slog.Any("error", err))
			quiet.Reset(settle)
			continue
		case <-poll.C:
		case <-quiet.C:
		}
		w.look(ctx, notify)
		first = time.Time{}
	}
}

// patience is for how many times the settling time files are waited for: a folder
// in which something is written all the time is never quiet.
const patience = 10

func or(d, def time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return def
}

// look reloads the targets whose files differ from when they were last looked at.
func (w *Watcher) look(ctx context.Context, notify *fsnotify.Watcher) {
	now := w.fingerprints(w.Targets())
	changed := false
	for _, t := range w.Targets() {
		if old, known := w.seen[t.Name]; known && old == now[t.Name] {
			continue
		} else if known {
			changed = true
			w.reload(ctx, t)
		}
	}
	w.seen = now
	if changed {
		// A reload may have brought other targets, which were read just now.
		for name, sum := range w.fingerprints(w.Targets()) {
			if _, known := w.seen[name]; !known {
				w.seen[name] = sum
			}
		}
	}
	w.subscribe(ctx, notify)
}

func (w *Watcher) reload(ctx context.Context, t Target) {
	start := time.Now()
	if err := t.Reload(ctx); err != nil {
		w.Logger.ErrorContext(ctx, "reload refused; the last good state stays", slog.String("target", t.Name), slog.Any("error", err))
		return
	}
	w.Logger.InfoContext(ctx, "reloaded", slog.String("target", t.Name), slog.String("took", time.Since(start).String()))
}

func (w *Watcher) subscribe(ctx context.Context, notify *fsnotify.Watcher) {
	have := notify.WatchList()
	for _, t := range w.Targets() {
		for _, dir := range folders(t.Files) {
			if slices.Contains(have, dir) {
				continue
			}
			if err := notify.Add(dir); err != nil {
				w.Logger.WarnContext(ctx, "folder cannot be watched; it is polled", slog.String("folder", dir), slog.Any("error", err))
			}
		}
	}
}

// folders lists the folders whose events can mean that one of files changed.
func folders(files []string) []string {
	var out []string
	add := func(dir string) {
		if !slices.Contains(out, dir) {
			out = append(out, dir)
		}
	}
	for _, f := range files {
		add(filepath.Dir(f))
		walk(f, func(path string, info fs.FileInfo) {
			if info.IsDir() {
				add(path)
			}
		})
	}
	return out
}

func (w *Watcher) fingerprints(targets []Target) map[string]string {
	out := make(map[string]string, len(targets))
	for _, t := range targets {
		var b strings.Builder
		for _, f := range t.Files {
			walk(f, func(path string, info fs.FileInfo) {
				if !info.IsDir() {
					fmt.Fprintf(&b, "%s %d %d %v\n", path, info.Size(), info.ModTime().UnixNano(), inode(info))
				}
			})
		}
		out[t.Name] = b.String()
	}
	return out
}

// walk visits path and all below it, through symbolic links, each real folder
// once. What cannot be read is left out: it differs from when it could be.
func walk(path string, visit func(path string, info fs.FileInfo)) {
	walkOnce(path, visit, map[any]bool{})
}

func walkOnce(path string, visit func(string, fs.FileInfo), been map[any]bool) {
	info, err := os.Stat(path)
	if err != nil {
		return
	}
	visit(path, info)
	if !info.IsDir() || been[inode(info)] {
		return
	}
	been[inode(info)] = true
	entries, err := os.ReadDir(path)
	if err != nil {
		return
	}
	for _, e := range entries {
		walkOnce(filepath.Join(path, e.Name()), visit, been)
	}
}
