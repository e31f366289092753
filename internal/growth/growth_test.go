package growth_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/growth"
)

type answer struct {
	head es.Position
	err  error
}

// wait calls Wait in a goroutine.
func wait(ctx context.Context, g *growth.Growth, after es.Position, rewinds int) <-chan answer {
	got := make(chan answer, 1)
	go func() {
		head, err := g.Wait(ctx, after, rewinds)
		got <- answer{head, err}
	}()
	synctest.Wait()
	return got
}

func TestWait(t *testing.T) {
	failed := errors.New("failed")
	for name, c := range map[string]struct {
		do   func(g *growth.Growth, cancel func())
		want answer // zero for none
	}{
		"the log grows":                    {func(g *growth.Growth, _ func()) { g.Grew(6, nil) }, answer{6, nil}},
		"the log has not grown":            {func(g *growth.Growth, _ func()) { g.Grew(5, nil) }, answer{}},
		"what is seen is of a lost log":    {func(g *growth.Growth, _ func()) { g.Note(growth.Seen{Head: 7, Rewinds: 0}, nil) }, answer{}},
		"a look fails":                     {func(g *growth.Growth, _ func()) { g.Grew(0, failed) }, answer{0, failed}},
		"a look at a lost log fails":       {func(g *growth.Growth, _ func()) { g.Note(growth.Seen{}, failed) }, answer{0, failed}},
		"the log loses its end":            {func(g *growth.Growth, _ func()) { g.Rewound(4) }, answer{0, es.ErrRewound}},
		"the log does not lose its end":    {func(g *growth.Growth, _ func()) { g.Rewound(5) }, answer{}},
		"the log is rewound and has grown": {func(g *growth.Growth, _ func()) { g.Note(growth.Seen{Head: 9, Rewinds: 2}, nil) }, answer{0, es.ErrRewound}},
		"the context ends":                 {func(_ *growth.Growth, cancel func()) { cancel() }, answer{0, context.Canceled}},
		"the store is closed":              {func(g *growth.Growth, _ func()) { g.Close() }, answer{0, es.ErrClosed}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := growth.New(nil)
				g.Note(growth.Seen{Head: 5, Rewinds: 1}, nil)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				got := wait(ctx, g, 5, 1)
				c.do(g, cancel)
				synctest.Wait()
				select {
				case a := <-got:
					if a.head != c.want.head || !errors.Is(a.err, c.want.err) || c.want == (answer{}) {
						t.Errorf("Wait returned %d, %v; want %d, %v", a.head, a.err, c.want.head, c.want.err)
					}
				default:
					if c.want != (answer{}) {
						t.Errorf("Wait has not returned, want %d, %v", c.want.head, c.want.err)
					}
				}
			})
		})
	}
}

// The watch runs while calls wait, and again for the next one.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g *growth.Growth
		var runs, looks int
		var end atomic.Int64 // of the log
		g = growth.New(func() {
			runs++
			for {
				select {
				case <-time.After(time.Second):
				case <-g.Context().Done():
					return
				}
				if _, must := g.Leave(true); must {
					return
				}
				looks++
				g.Grew(es.Position(end.Load()), nil)
			}
		})
		for i := range 3 {
			got := wait(t.Context(), g, es.Position(i), 0)
			time.Sleep(3500 * time.Millisecond)
			end.Add(1)
			if a := <-got; a.head != es.Position(i+1) || a.err != nil {
				t.Fatalf("Wait returned %d, %v; want %d", a.head, a.err, i+1)
			}
			time.Sleep(5 * time.Second)
			synctest.Wait()
			if runs != i+1 || looks != 4*(i+1) {
				t.Errorf("after %d calls: %d runs with %d looks, want one run of four looks a call", i+1, runs, looks)
			}
		}
		g.Close()
		if _, err := g.Wait(t.Context(), 3, 0); !errors.Is(err, es.ErrClosed) || runs != 3 {
			t.Errorf("Wait after Close returned %v after %d runs, want es.ErrClosed and no run", err, runs)
		}
	})
}
