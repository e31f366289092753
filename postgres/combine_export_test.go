package postgres

import "time"

// CombineAlways makes stores that are opened while a function runs combine whenever their roles may. Tests that call it must not run in parallel
// with others that open stores.
func CombineAlways(during func()) { combineAs(combinesAlways, during) }

// CombineNever makes stores that are opened while a function runs append directly.
func CombineNever(during func()) { combineAs(combinesNever, during) }

func combineAs(mode int32, during func()) {
	defer combining.Store(combining.Swap(mode))
	during()
}

// DrainLimit sets how long a call goes on after its last caller has left. It must be called before the first append.
func (s *Store) DrainLimit(d time.Duration) { s.drainLimit = d }
