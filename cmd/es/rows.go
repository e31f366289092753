package main

import (
	"iter"

	"github.com/thalo-go/es"
)

// A row is one of a query's, of whichever database.
type row interface{ Scan(into ...any) error }

// rows are those of a query.
type rows interface {
	row
	Next() bool
	Err() error
}

// sequence makes one of the rows of a query, which begins anew each time that the sequence is ranged over.
func sequence[T any](what string, query func() (r rows, release func(), err error), scan func(row) (T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		r, release, err := query()
		if err != nil {
			failed[T](within("read "+what, err))(yield)
			return
		}
		defer release()
		for r.Next() {
			value, err := scan(r)
			if err != nil {
				failed[T](within("read "+what, err))(yield)
				return
			}
			if !yield(value, nil) {
				return
			}
		}
		if err := r.Err(); err != nil {
			failed[T](within("read "+what, err))(yield)
		}
	}
}

func scanSnapshot(r row) (n es.Snapshot, err error) {
	err = r.Scan(&n.Stream.Kind, &n.Stream.ID, &n.Version, &n.Position, &n.Schema, &n.Data)
	return n, err
}

func scanCommand(r row) (c command, err error) {
	err = r.Scan(&c.stream.Kind, &c.stream.ID, &c.id, &c.first, &c.last)
	return c, err
}

func scanCheckpoint(r row) (c checkpoint, err error) {
	err = r.Scan(&c.name, &c.position)
	return c, err
}
