package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// identityClauses test that a checkpoint belongs to one thing: a projection or a reaction, with one filter.
func identityClauses() []clause {
	return []clause{
		{"projection and reaction cannot share a name",
			"They would share a checkpoint, and each would miss the records that the other has handled. WaitFor would answer for the other.",
			refusesOtherKind},
		{"changed filter is refused",
			"The checkpoint says that everything before it was applied. Records that only the new filter lets through never were.",
			refusesOtherFilter},
		{"Rebuild refuses what it would apply twice",
			"Without Prepare the old rows stay in the read model, and a reaction has its effects in the world again.",
			refusesRebuild},
		{"Refilter ends the runs with the filter before",
			"A process of the deployment before would go on, and its records would count as those of the new filter.",
			refilters},
		{"Refilter replays the past that a filter adds",
			"The records that only the new filter lets through are applied once each, and those of the old filter not again.",
			refiltersPast},
		{"Rename moves the checkpoint and the parked records",
			"Under its new name the projection continues. If anything stays behind, it begins again or forgets what it has parked.",
			renames},
		{"Replay handles again what comes after a place",
			"It is the express word for handling records twice: from the place on, and not before it.",
			replays},
	}
}

// refused checks that an error wraps es.ErrInvalid and names a remedy.
func (t *trial) refused(what string, err error, remedies ...string) {
	if !errors.Is(err, es.ErrInvalid) {
		t.Errorf("%s returned %v: want an error that wraps es.ErrInvalid", what, err)
		return
	}
	for _, remedy := range remedies {
		if !strings.Contains(err.Error(), remedy) {
			t.Errorf("%s returned %v: want the remedy %s in it", what, err, remedy)
		}
	}
}

// brief runs something that is refused at once. If it is not refused, it ends after the position that it reaches, and brief returns nil.
func (t *trial) brief(s ReadSide[any], name string, version int, upTo es.Position, call func(ctx context.Context) error) error {
	r := t.start(call)
	t.until("the run is refused or reaches the end", func() bool {
		select {
		case <-r.done:
			return true
		default:
		}
		for _, shard := range t.status(s, name) {
			if shard.Version == version && shard.Worker != "" && es.Position(shard.Cursor) >= upTo {
				return true
			}
		}
		return false
	})
	select {
	case <-r.done:
		return r.err
	default:
		t.cancel(r)
		return nil
	}
}

func refusesOtherKind(t *trial) {
	s, j := t.side(), new(journal)
	p := t.listing("orders")
	last := t.appendSome(s, 10)
	r := t.project(s, p)
	t.reach(s, p.Name, last)
	t.cancel(r)
	reaction := t.reaction(p.Name, j, nil)
	err := t.brief(s, p.Name, 0, last, func(ctx context.Context) error { return s.React(ctx, reaction) })
	t.refused("React under the name of a projection", err, p.Name, "Name", "Rename")
	last = t.appendSome(s, 10)
	t.project(s, p)
	t.reach(s, p.Name, last)
	t.enlisted(p.Name, s, es.Filter{})

	other, mail := t.side(), t.reaction("mail", j, nil)
	r = t.react(s, mail)
	t.reach(s, mail.Name, last)
	t.cancel(r)
	for _, version := range []int{0, 1} {
		p := t.listing(mail.Name)
		p.Version = version
		err := t.brief(other, p.Name, version, last, func(ctx context.Context) error { return other.Project(ctx, p) })
		t.refused("Project under the name of a reaction", err, mail.Name, "Name", "Rename")
	}
	if err := other.WaitFor(t.ctx, mail.Name, last); !errors.Is(err, es.ErrInvalid) {
		t.Errorf("WaitFor returned %v for the checkpoint of a reaction, after Project was refused under its name", err)
	}
	if lines := t.lines(mail.Name); len(lines) > 0 {
		t.Errorf("a projection that was refused has written %q", lines)
	}
	if n := len(j.read()); n != int(last) {
		t.Errorf("the reaction has handled %d of %d records", n, last)
	}
}

func refusesOtherFilter(t *trial) {
	s := t.side()
	p := t.listing("filtered")
	p.Filter = es.Filter{Kinds: []string{stream("").Kind, "other"}, Types: []string{"a"}}
	last := t.appendSome(s, 4)
	r := t.project(s, p)
	t.reach(s, p.Name, last)
	t.cancel(r)
	same := p
	same.Filter = es.Filter{Kinds: []string{"other", stream("").Kind, "other"}, Types: []string{"a", "a", "\xff"}} // a name that no record has
	r = t.project(s, same)
	t.until("the same filter in other words is accepted", func() bool { return t.status(s, p.Name)[0].Worker != "" })
	t.cancel(r)
	for _, changed := range []es.Filter{{}, {Kinds: p.Filter.Kinds}, {Kinds: p.Filter.Kinds, Types: []string{"a", "b"}}, {Kinds: p.Filter.Kinds, Types: []string{"\xff"}}} {
		p := p
		p.Filter = changed
		err := t.brief(s, p.Name, 0, last, func(ctx context.Context) error { return s.Project(ctx, p) })
		t.refused("Project with another filter", err, p.Name, "Version", "Refilter")
	}
	reaction := t.reaction("filtered too", new(journal), nil)
	r = t.react(s, reaction)
	t.reach(s, reaction.Name, last)
	t.cancel(r)
	reaction.Filter = p.Filter
	err := t.brief(s, reaction.Name, 0, last, func(ctx context.Context) error { return s.React(ctx, reaction) })
	t.refused("React with another filter", err, reaction.Name, "Refilter")
}

func refusesRebuild(t *trial) {
	s, j := t.side(), new(journal)
	last := t.appendSome(s, 4)
	maker := t.listing("bare")
	maker.Name, maker.Filter = "maker", es.Filter{Kinds: []string{"none"}}
	made := t.project(s, maker)
	t.reach(s, maker.Name, last)
	t.cancel(made)
	p := t.listing("bare")
	p.Prepare = nil
	r := t.project(s, p)
	t.reach(s, p.Name, last)
	t.refused("Rebuild of a projection without Prepare that runs", t.side().Rebuild(t.ctx, p.Name, 0), p.Name, "Replay")
	t.cancel(r)
	t.refused("Rebuild of a projection without Prepare", s.Rebuild(t.ctx, p.Name, 0), p.Name, "Replay")
	reaction := t.reaction("mailed", j, nil)
	r = t.react(s, reaction)
	t.reach(s, reaction.Name, last)
	t.refused("Rebuild of a reaction", s.Rebuild(t.ctx, reaction.Name, 0), reaction.Name, "Replay")
	t.cancel(r)
	r = t.react(s, reaction)
	t.reach(s, reaction.Name, t.appendSome(s, 1))
	t.cancel(r)
	if handled := j.read(); len(handled) != int(last)+1 {
		t.Errorf("the reaction has handled %d times %d records", len(handled), last+1)
	}
	p.Prepare = t.listing(p.Name).Prepare // from now on there is one
	r = t.project(s, p)
	t.reach(s, p.Name, last+1)
	t.cancel(r)
	if err := s.Rebuild(t.ctx, p.Name, 0); err != nil {
		t.Errorf("Rebuild returned %v for a projection that has Prepare since its last run", err)
	}
}

// mixed appends n events of each of the types a and b, alternately, to one stream.
func (t *trial) mixed(l es.Log, n int) (last es.Position) {
	for range n {
		last = t.append(l, es.Append{Stream: stream("mixed"), Expected: es.AnyVersion, Events: []es.Record{{Type: "a"}, {Type: "b"}}})
	}
	return last
}

// ofType returns the IDs of the records of some types between two positions.
func (t *trial) ofType(l es.Log, after, upTo es.Position, types ...string) []string {
	records := t.collect(l.All(t.ctx, after, es.Filter{Types: types}))
	return ids(slices.DeleteFunc(records, func(r es.Record) bool { return r.Position > upTo }))
}

func refilters(t *trial) {
	s, other := t.side(), t.side()
	p := t.listing("widened")
	p.Filter = es.Filter{Types: []string{"a"}}
	past := t.mixed(s, 5)
	old := t.project(other, p)
	t.reach(s, p.Name, past)
	wide := es.Filter{Types: []string{"b", "a"}}
	t.refused("Refilter of an unknown projection", s.Refilter(t.ctx, "unknown", 0, wide, projection.SkipPast))
	t.refused("Refilter with an unknown Past", s.Refilter(t.ctx, p.Name, 0, wide, 7))
	if err := s.Refilter(t.ctx, p.Name, 0, wide, projection.SkipPast); err != nil {
		t.Fatalf("Refilter returned %v", err)
	}
	last := t.mixed(s, 5)
	t.refused("the run with the old filter", t.wait(old), p.Name, "Filter")
	t.refused("a new run with the old filter", t.brief(other, p.Name, 0, last, func(ctx context.Context) error { return other.Project(ctx, p) }), p.Name)
	p.Filter = wide
	t.project(other, p)
	t.until("the run with the new filter works", func() bool { return t.status(s, p.Name)[0].Worker != "" })
	t.reach(s, p.Name, last)
	t.equal("the list", t.lines(p.Name), append(t.ofType(s, 0, past, "a"), t.ofType(s, past, last, "a", "b")...))
	if got := t.status(s, p.Name)[0]; !slices.Equal(got.Filter.Types, []string{"a", "b"}) || got.Kind != projection.KindProjection {
		t.Errorf("Status returned the kind %q and the filter %v", got.Kind, got.Filter)
	}
}

func refiltersPast(t *trial) {
	s := t.side()
	for _, partitions := range []int{1, 3} {
		p := t.listing(fmt.Sprint("past ", partitions))
		p.Partitions, p.Batch, p.Filter = partitions, 3, es.Filter{Types: []string{"a"}}
		t.mixed(s, 10)
		past := t.appendSome(s, 10)
		r := t.project(s, p)
		t.reach(s, p.Name, past)
		t.cancel(r)
		p.Filter = es.Filter{Types: []string{"b", "a"}}
		if err := s.Refilter(t.ctx, p.Name, 0, p.Filter, projection.ReplayPast); err != nil {
			t.Fatalf("Refilter returned %v", err)
		}
		brief, cancel := context.WithTimeout(t.ctx, 20*time.Millisecond)
		if err := s.WaitFor(brief, p.Name, past); err == nil {
			t.Errorf("WaitFor(%d) returned before the past was replayed", past)
		}
		cancel()
		if got := t.status(s, p.Name)[0]; got.Lag == nil || got.Lag.Positions != int64(past) {
			t.Errorf("Status returned %+v when the past must be replayed: want its lag", got)
		}
		t.refused("Refilter while the past is replayed", s.Refilter(t.ctx, p.Name, 0, es.Filter{}, projection.ReplayPast), p.Name, "wait")
		failed := newFlag()
		handle := p.Handle
		p.Handle = func(ctx context.Context, tx any, records []es.Record) error {
			err := handle(ctx, tx, records)
			if i := slices.IndexFunc(records, func(r es.Record) bool { return r.Type == "b" && r.Version > 4 }); i >= 0 && err == nil {
				select {
				case <-failed.raised:
				default:
					failed.raise()
					return errHandler
				}
			}
			return err
		}
		r = t.project(s, p)
		t.reach(s, p.Name, past)
		last := t.mixed(s, 5)
		t.reach(s, p.Name, last)
		t.equal("the list", t.lines(p.Name), slices.Concat(t.ofType(s, 0, past, "a"), t.ofType(s, 0, past, "b"), t.ofType(s, past, last, "a", "b")))
		t.cancel(r)
		p.Partitions = 5 // the shards have one cursor again
		t.project(s, p)
		t.until("it is repartitioned", func() bool { return len(t.status(s, p.Name)) == 5 })
		if got := t.status(s, p.Name)[0].Cursor; es.Position(got) < last {
			t.Errorf("after the past was replayed a shard is at %d: want %d or more", got, last)
		}
	}
}

func renames(t *trial) {
	s := t.side()
	p := t.parking("before", always)
	last := t.writeMixed(s)
	r := t.project(s, p)
	t.reach(s, p.Name, last)
	parked := t.parkedIDs(s)
	t.refused("Rename of a running projection", s.Rename(t.ctx, "before", "after"), "before", "stop")
	t.cancel(r)
	t.refused("Rename of an unknown projection", s.Rename(t.ctx, "unknown", "after"), "unknown")
	t.refused("Rename to no name", s.Rename(t.ctx, "before", ""))
	t.refused("Rename to a name that is taken", s.Rename(t.ctx, "before", "before"), "before")
	lines := t.lines("before")
	if err := s.Rename(t.ctx, "before", "after"); err != nil {
		t.Fatalf("Rename returned %v", err)
	}
	if len(t.status(s, "before")) > 0 || len(t.status(s, "after")) != 1 {
		t.Errorf("after Rename there are %d shards of the old name, and %d of the new one", len(t.status(s, "before")), len(t.status(s, "after")))
	}
	p.Name = "after" // its list is the same
	t.project(s, p)
	t.reach(s, p.Name, last)
	t.equal("the list", t.lines("before"), lines)
	t.equal("the parked records", t.parkedIDs(s), parked)
	for q, err := range s.Parked(t.ctx) {
		if err != nil || q.Name != "after" {
			t.Errorf("Parked returned a record of %q, %v: want after", q.Name, err)
		}
	}
}

func replays(t *trial) {
	s := t.side()
	p := t.listing("again")
	p.Partitions = 2
	last := t.appendSome(s, 10)
	t.project(s, p)
	t.reach(s, p.Name, last)
	t.refused("Replay of an unknown projection", s.Replay(t.ctx, "unknown", 0, projection.Beginning()))
	t.refused("Replay from no place", s.Replay(t.ctx, p.Name, 0, projection.Start{}), "Beginning")
	t.refused("Replay from beyond the end", s.Replay(t.ctx, p.Name, 0, projection.After(last+1)), "11")
	want := t.ofType(s, 0, last)
	for _, test := range []struct {
		from  projection.Start
		after es.Position
	}{{projection.After(6), 6}, {projection.Beginning(), 0}, {projection.Head(), last}, {projection.Since(t.all(s)[0].Time), 0}} {
		if err := s.Replay(t.ctx, p.Name, 0, test.from); err != nil {
			t.Fatalf("Replay returned %v", err)
		}
		want = append(want, t.ofType(s, test.after, last)...)
		t.until("the records are handled again", func() bool { return len(t.lines(p.Name)) >= len(want) })
		t.equal("the list, by stream", byStream(t.lines(p.Name)), byStream(want))
	}
	j := new(journal)
	reaction := t.reaction("reacts again", j, nil)
	r := t.react(s, reaction)
	t.reach(s, reaction.Name, last)
	t.cancel(r)
	if err := s.Replay(t.ctx, reaction.Name, 0, projection.After(8)); err != nil {
		t.Fatalf("Replay returned %v", err)
	}
	t.react(s, reaction)
	t.until("the records are handled again", func() bool { return len(j.read()) >= 12 })
	t.equal("the handled records", j.read(), append(t.ofType(s, 0, last), t.ofType(s, 8, last)...))
}
