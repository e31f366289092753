package sqlite_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/child"
)

func TestProcesses(t *testing.T) {
	t.Run("racing on the same streams, every acknowledged event is there once and in order", func(t *testing.T) {
		const racers, streams, each = 3, 4, 50
		const total = racers * streams * each
		path := file(t)
		follower := child.Start(t, "follow", path, total)
		var children []*child.Process
		for i := range racers {
			children = append(children, child.Start(t, "race", path, fmt.Sprint("p", i), streams, each))
		}
		child.Release(t, children...)
		var acknowledged []string
		for _, c := range children {
			acknowledged = append(acknowledged, c.Finish(t)...)
		}
		var stored []string
		for _, r := range all(t, open(t, path)) {
			stored = append(stored, fmt.Sprint(r.Position, " ", string(r.Data)))
		}
		if seen := follower.Finish(t); !slices.Equal(seen, stored) {
			t.Errorf("the follower saw %d records, the log has %d; expected the same ones, in order", len(seen), len(stored))
		}
		slices.Sort(acknowledged)
		slices.Sort(stored)
		if len(stored) != total || !slices.Equal(acknowledged, stored) {
			t.Errorf("%d acknowledged, %d stored; expected the same %d, each once", len(acknowledged), len(stored), total)
		}
	})
	t.Run("wake the Changed of other processes", func(t *testing.T) {
		path := file(t)
		s := open(t, path)
		head := add(t, s, at("a", 0, "mine"))
		other := child.Start(t, "once", path)
		woken := make(chan error, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		go func() {
			position, err := s.Changed(ctx, head)
			if err == nil && position != head+1 {
				err = fmt.Errorf("woken at %d; expected %d", position, head+1)
			}
			woken <- err
		}()
		child.Release(t, other)
		other.Finish(t)
		if err := <-woken; err != nil {
			t.Error(err)
		}
	})
	t.Run("opening a new file at once create one store", func(t *testing.T) {
		for range 3 {
			path := file(t)
			var children []*child.Process
			for range 10 {
				children = append(children, child.Start(t, "once", path))
			}
			child.Release(t, children...)
			for _, c := range children {
				c.Finish(t)
			}
			if found := strings.Count(strings.Join(texts(all(t, open(t, path))), " "), "once"); found != 10 {
				t.Errorf("%d of 10 appends are there", found)
			}
		}
	})
	t.Run("two stores in one process work like two processes", func(t *testing.T) {
		path := file(t)
		one, two := open(t, path), open(t, path)
		for v := es.Version(0); v < 20; v += 2 {
			add(t, one, at("a", v, "one"))
			add(t, two, at("a", v+1, "two"))
		}
		if one.ID() != two.ID() || len(all(t, one)) != 20 || len(all(t, two)) != 20 {
			t.Error("they differ")
		}
	})
}
