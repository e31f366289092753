// Package scheme distinguishes URLs from file paths, for programs whose settings accept both.
package scheme

import (
	"fmt"
	"regexp"
)

var ofURL = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]+)://`) // C:// may be a path on Windows

// Refuse returns an error if path looks like a URL, such as a mistyped one. The error contains only the scheme, as the rest may
// contain a password. give describes what to give instead.
func Refuse(path, give string) error {
	scheme := ofURL.FindStringSubmatch(path)
	if scheme == nil {
		return nil
	}
	return fmt.Errorf("open %s://...: unknown scheme %s://: give %s", scheme[1], scheme[1], give)
}
