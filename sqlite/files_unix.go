//go:build unix

package sqlite

import "syscall"

// fileID identifies a file as long as it is open. The zero value is unknown.
type fileID struct{ device, inode uint64 }

func identify(name string) (fileID, error) {
	var info syscall.Stat_t
	for {
		err := syscall.Stat(name, &info)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || info.Ino == 0 {
			return fileID{}, err
		}
		return fileID{uint64(info.Dev), uint64(info.Ino)}, nil //nolint:unconvert // the types differ between systems
	}
}
