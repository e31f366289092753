package conformance_test

import (
	"context"
	"database/sql"
	"runtime"
	"sync/atomic"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest/conformance"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

// wrappings wrap each function of a projection.
var wrappings = map[string]func(p *sqlite.Projection, around func(call func())){
	"Handle": func(p *sqlite.Projection, around func(func())) {
		next := p.Handle
		p.Handle = func(ctx context.Context, tx *sql.Tx, records []es.Record) (err error) {
			around(func() { err = next(ctx, tx, records) })
			return err
		}
	},
	"Prepare": func(p *sqlite.Projection, around func(func())) {
		next := p.Prepare
		p.Prepare = func(ctx context.Context, tx *sql.Tx) (err error) {
			around(func() { err = next(ctx, tx) })
			return err
		}
	},
	"OnCaughtUp": func(p *sqlite.Projection, around func(func())) {
		if next := p.OnCaughtUp; next != nil {
			p.OnCaughtUp = func(ctx context.Context) (err error) {
				around(func() { err = next(ctx) })
				return err
			}
		}
	},
	"OnProgress": func(p *sqlite.Projection, around func(func())) {
		if next := p.OnProgress; next != nil {
			p.OnProgress = func(g projection.Progress) { around(func() { next(g) }) }
		}
	},
}

func (w workshop) brokenPanics() (defects []defect[conformance.Listed]) {
	for name, wrap := range wrappings {
		clause := panicBeside
		if name == "Handle" {
			clause = panicIsError
		}
		defects = append(defects,
			w.broken("a panic in "+name+" comes out of Project", clause, func(f *faultySide) {
				f.onProject = func(ctx context.Context, p sqlite.Projection) error {
					var panicked atomic.Value
					wrap(&p, func(call func()) {
						defer func() {
							if v := recover(); v != nil {
								panicked.Store(v)
								panic(v)
							}
						}()
						call()
					})
					err := f.Store.Project(ctx, p)
					if v := panicked.Load(); v != nil {
						panic(v)
					}
					return err
				}
			}),
			w.broken("a panic in "+name+" is ignored", clause, projecting(func(p *sqlite.Projection) {
				wrap(p, func(call func()) {
					defer func() { _ = recover() }()
					call()
				})
			})).blocking(),
		)
		if name == "OnCaughtUp" || name == "OnProgress" {
			defects = append(defects, w.broken("a panic in "+name+" silently ends its goroutine", clause, projecting(func(p *sqlite.Projection) {
				wrap(p, func(call func()) {
					defer func() {
						if recover() != nil {
							runtime.Goexit()
						}
					}()
					call()
				})
			})).blocking())
		}
	}
	return defects
}
