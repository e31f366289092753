package es

import lru "github.com/hashicorp/golang-lru/v2"

// A cache keeps the states of the aggregates last used. A state in it may be behind the store, never ahead of it.
type cache[S any] struct {
	states *lru.Cache[string, versioned[S]] // nil if nothing is kept
}

func (c *cache[S]) init(size int) {
	if size > 0 {
		c.states, _ = lru.New[string, versioned[S]](size) // fails for a size below 1 only
	}
}

func (c *cache[S]) get(id string) (versioned[S], bool) {
	if c.states == nil {
		return versioned[S]{}, false
	}
	return c.states.Get(id)
}

// put keeps a state unless a later one is there.
func (c *cache[S]) put(id string, state versioned[S]) {
	if c.states == nil || state.version == 0 {
		return
	}
	if there, found := c.states.Peek(id); !found || there.version < state.version {
		c.states.Add(id, state)
	}
}

func (c *cache[S]) purge() {
	if c.states != nil {
		c.states.Purge()
	}
}

func (c *cache[S]) drop(id string) {
	if c.states != nil {
		c.states.Remove(id)
	}
}
