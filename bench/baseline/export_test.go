package baseline

import "testing"

// Pragma returns the value of a pragma on the connection that writes.
func (s *SQLite) Pragma(t *testing.T, name string) (value string) {
	t.Helper()
	if err := s.write.QueryRow("pragma " + name).Scan(&value); err != nil {
		t.Fatal(err)
	}
	return value
}
