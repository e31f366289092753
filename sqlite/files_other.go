//go:build !unix

package sqlite

// fileID identifies a file. It is always unknown here: Windows refuses to remove or replace a file that SQLite has open.
type fileID struct{ device, inode uint64 }

func identify(string) (fileID, error) { return fileID{}, nil }
