package postgres

// CombineAlways makes stores that are opened while a function runs combine whenever their roles may. Tests that call it must not run in parallel
// with others that open stores.
func CombineAlways(during func()) { combineAs(combinesAlways, during) }

// CombineNever makes stores that are opened while a function runs append directly.
func CombineNever(during func()) { combineAs(combinesNever, during) }

func combineAs(mode int32, during func()) {
	defer combining.Store(combining.Swap(mode))
	during()
}

// Combines reports whether the store leaves its batches for other processes at present.
func (s *Store) Combines() bool { return s.company.combines() }

// Combined returns how many batches were left for other processes and answered, and how many were left without an answer.
func (s *Store) Combined() (answered, failed int64) {
	s.company.mu.Lock()
	defer s.company.mu.Unlock()
	return s.company.left, s.company.failed
}
