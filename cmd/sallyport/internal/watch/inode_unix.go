//go:build unix

package watch

import (
	"io/fs"
	"syscall"
)

type fileID struct{ dev, ino uint64 }

// inode tells a file from the one that replaced it under the same name.
func inode(info fs.FileInfo) fileID {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{}
	}
	return fileID{dev: uint64(st.Dev), ino: st.Ino} //nolint:unconvert // the width of Dev differs between systems
}
