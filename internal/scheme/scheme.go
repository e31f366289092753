// Package scheme tells URLs from the paths of files, for programs that take both to say where a store is.
package scheme

import (
	"fmt"
	"regexp"
)

var ofURL = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]+)://`) // C:// may be a path on Windows

// Refuse returns an error if what is to be the path of a file looks like a URL, which a mistyped one does. It names the scheme, without the
// rest, in which there may be a password; give says what to give instead.
func Refuse(path, give string) error {
	scheme := ofURL.FindStringSubmatch(path)
	if scheme == nil {
		return nil
	}
	return fmt.Errorf("open %s://...: no store has URLs of %s://: give %s", scheme[1], scheme[1], give)
}
