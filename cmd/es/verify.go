package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/digest"
)

type verify struct{}

// errDamage ends a run that has reported damage.
var errDamage = errors.New("damage was found")

// A check is one kind of damage that verify looks for.
type check struct {
	Name     string   `json:"check"`
	Looked   int64    `json:"lookedAt"`
	Findings []string `json:"findings"`       // the first few
	More     int      `json:"more,omitempty"` // findings than these
	Remedy   string   `json:"remedy,omitempty"`
	counts   string   // what Looked counts
}

const mostFindings = 20

func (c *check) found(format string, args ...any) {
	if len(c.Findings) == mostFindings {
		c.More++
		return
	}
	c.Findings = append(c.Findings, fmt.Sprintf(format, args...))
}

// A verification is one run of verify. Other processes may append during the run. So whatever is compared with the log is read
// before the log.
type verification struct {
	s  *session
	db database

	begin, end es.Position // the end of the log when the run began, and when the log was read
	streams    map[es.Stream]*seen

	positions, versions, times, heads, commands, snapshots, readers, files check
	cursors                                                                []checkpoint
}

// A seen is what the run has read about a stream.
type seen struct {
	first, last es.Version // the versions at begin and at end, as the log has them
	listed      es.Version // as the index has it
	command     es.Version // the highest that a command is noted for
	commandID   string
}

// Run is called by kong.
func (v *verify) Run(s *session) (err error) {
	db, err := s.open(true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	c := newVerification(s, db)
	if err := c.run(); err != nil {
		return err
	}
	return c.report()
}

func newVerification(s *session, db database) *verification {
	return &verification{s: s, db: db, streams: make(map[es.Stream]*seen),
		positions: check{Name: "positions", counts: "records", Remedy: "records are lost: restore a backup, and rebuild the read models that skipped the gap"},
		versions:  check{Name: "versions", counts: "records", Remedy: "the table was changed by hand, or restored in part: restore a backup"},
		times:     check{Name: "time", counts: "records", Remedy: "the times were changed by hand; loads are not harmed, queries by time are"},
		heads:     check{Name: "heads", counts: "streams", Remedy: "the index differs from the table: reindex es_events or es.events, and look into the disk"},
		commands:  check{Name: "commands", counts: "commands", Remedy: "commands are noted whose events are not there: they would be taken for done when sent again; restore a backup"},
		snapshots: check{Name: "snapshots", counts: "snapshots", Remedy: "events were changed, or the database was restored without its end: loads skip such a snapshot; delete it if the log is right"},
		readers:   check{Name: "readers", counts: "checkpoints", Remedy: "the database was restored without its end, or the read model comes from elsewhere: rebuild it; first check what a relay has published since"},
		files:     check{Name: "files", counts: "file", Remedy: "keep the file for a closer look, and restore a backup"},
	}
}

func (c *verification) checks() []*check {
	checks := []*check{&c.positions, &c.versions, &c.times, &c.heads, &c.commands, &c.snapshots, &c.readers}
	if c.files.Looked > 0 {
		checks = append(checks, &c.files)
	}
	return checks
}

func (c *verification) run() (err error) {
	if c.begin, err = es.Head(c.s.ctx, c.db); err != nil {
		return err
	}
	for _, step := range []func() error{c.readFiles, c.readStreams, c.readCommands, c.readReaders, c.readLog, c.compare} {
		if err := step(); err != nil {
			if len(c.files.Findings) == 0 {
				return err
			}
			c.files.found("it could not be read to its end: %v", err)
			return nil
		}
	}
	return nil
}

func (c *verification) readFiles() error {
	damages, asked, err := c.db.damaged(c.s.ctx)
	if asked {
		c.files.Looked = 1
	}
	for _, damage := range damages {
		c.files.found("%s", damage)
	}
	return err
}

func (c *verification) stream(stream es.Stream) *seen {
	at := c.streams[stream]
	if at == nil {
		at = new(seen)
		c.streams[stream] = at
	}
	return at
}

func (c *verification) readStreams() error {
	for h, err := range c.db.streams(c.s.ctx, "") {
		if err != nil {
			return err
		}
		c.stream(h.stream).listed = h.version
	}
	return nil
}

func (c *verification) readCommands() error {
	for command, err := range c.db.commands(c.s.ctx) {
		if err != nil {
			return err
		}
		c.commands.Looked++
		if command.first < 1 || command.last < command.first {
			c.commands.found("command %q on %s is noted for versions %d to %d", command.id, command.stream, command.first, command.last)
		}
		if at := c.stream(command.stream); command.last > at.command {
			at.command, at.commandID = command.last, command.id
		}
	}
	return nil
}

// readReaders reads the checkpoints of projections and other readers of this log.
func (c *verification) readReaders() error {
	shards, err := c.db.Status(c.s.ctx)
	if err != nil {
		return err
	}
	for _, p := range shards {
		if p.Source == c.db.ID() {
			c.cursors = append(c.cursors, checkpoint{"projection " + projectionName(p.Name, p.Version) + " shard " + p.Shard, es.Position(p.Cursor)})
		}
	}
	for reader, err := range c.db.checkpoints(c.s.ctx) {
		if err != nil {
			return err
		}
		if !reader.isFilterMark() {
			c.cursors = append(c.cursors, checkpoint{"checkpoint " + reader.name, reader.position})
		}
	}
	return nil
}

// readLog reads the log from its beginning to its end. It reads the snapshots along with it, because they have the same order.
func (c *verification) readLog() error {
	next, stop := iter.Pull2(c.db.snapshots(c.s.ctx))
	defer stop()
	snapshot, err, more := next() // before the end of the log is read, so that the log has the record of each snapshot
	if err != nil {
		return err
	}
	if c.end, err = es.Head(c.s.ctx, c.db); err != nil {
		return err
	}
	bar := newProgress(c.s.stderr, "verify", int64(c.end))
	defer bar.finish()
	expect, last := es.Position(1), time.Time{}
	for r, err := range c.db.All(c.s.ctx, 0, es.Filter{}) {
		if err != nil {
			return err
		}
		if r.Position > c.end {
			break
		}
		bar.step()
		c.record(r, expect, last)
		expect, last = max(expect, r.Position)+1, r.Time
		for more && snapshot.Position <= r.Position {
			c.snapshot(snapshot, r)
			if snapshot, err, more = next(); err != nil {
				return err
			}
		}
	}
	if expect <= c.end {
		c.positions.found("positions %d to %d are missing", expect, c.end)
	}
	for more {
		c.snapshot(snapshot, es.Record{})
		if snapshot, err, more = next(); err != nil {
			return err
		}
	}
	return nil
}

func (c *verification) record(r es.Record, expect es.Position, last time.Time) {
	c.positions.Looked++
	switch {
	case r.Position == expect:
	case r.Position < expect:
		c.positions.found("position %d comes after position %d", r.Position, expect-1)
	case r.Position == expect+1:
		c.positions.found("position %d is missing", expect)
	default:
		c.positions.found("positions %d to %d are missing", expect, r.Position-1)
	}
	c.times.Looked++
	if r.Time.Before(last) {
		c.times.found("position %d was written at %s, before the one ahead of it, at %s", r.Position, timestamp(r.Time), timestamp(last))
	}
	c.versions.Looked++
	at := c.stream(r.Stream)
	switch {
	case r.Version == at.last+1:
	case r.Version <= at.last:
		c.versions.found("%s comes again, at position %d, after version %d", r.ID(), r.Position, at.last)
	case r.Version == at.last+2:
		c.versions.found("%s is followed by %s, at position %d: version %d is missing", name(r.Stream, at.last), r.ID(), r.Position, at.last+1)
	default:
		c.versions.found("%s is followed by %s, at position %d: versions %d to %d are missing", name(r.Stream, at.last), r.ID(), r.Position, at.last+1, r.Version-1)
	}
	at.last = max(at.last, r.Version)
	if r.Position <= c.begin {
		at.first = at.last
	}
}

func name(stream es.Stream, version es.Version) string {
	if version == 0 {
		return "the beginning of " + stream.String()
	}
	return es.Record{Stream: stream, Version: version}.ID()
}

// snapshot compares a snapshot with a record. If the record has another position, the log has none for the snapshot.
func (c *verification) snapshot(n es.Snapshot, r es.Record) {
	c.snapshots.Looked++
	var kept struct{ Digest *uint64 } // of a Repo; other programs may keep what they like
	switch {
	case r.Position != n.Position:
		c.snapshots.found("the snapshot of %s is of position %d, which is not there", n.Stream, n.Position)
	case r.Stream != n.Stream || r.Version != n.Version:
		c.snapshots.found("the snapshot of %s is of version %d at position %d, where the log has %s", n.Stream, n.Version, n.Position, r.ID())
	case json.Unmarshal(n.Data, &kept) == nil && kept.Digest != nil && *kept.Digest != digest.Of(r.Type, r.Data):
		c.snapshots.found("the snapshot of %s was taken when version %d, at position %d, had other content", n.Stream, n.Version, n.Position)
	}
}

// compare compares the indexes, the commands and the checkpoints with the log.
func (c *verification) compare() error {
	for _, reader := range c.cursors {
		if c.readers.Looked++; reader.position > c.end {
			c.readers.found("%s is at position %d, beyond the end of the log, %d", reader.name, reader.position, c.end)
		}
	}
	streams := slices.SortedFunc(maps.Keys(c.streams), func(a, b es.Stream) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID))
	})
	for _, stream := range streams {
		at := c.streams[stream]
		if at.last > 0 || at.listed > 0 {
			c.heads.Looked++
		}
		if at.listed < at.first || at.listed > at.last {
			c.heads.found("%s has version %d by its index and %d in the log", stream, at.listed, at.last)
		}
		if at.command > at.last {
			c.commands.found("command %q on %s is noted for version %d, and the stream ends at %d", at.commandID, stream, at.command, at.last)
		}
	}
	return nil
}

type verifyObject struct {
	Store    string      `json:"store"`
	ID       string      `json:"id"`
	Position es.Position `json:"position"` // up to which the log was read
	Streams  int64       `json:"streams"`
	OK       bool        `json:"ok"`
	Checks   []*check    `json:"checks"`
}

func (c *verification) report() error {
	o := verifyObject{Store: c.db.where(), ID: c.db.ID(), Position: c.end, Streams: c.heads.Looked, OK: true,
		Checks: c.checks()}
	for _, check := range o.Checks {
		if len(check.Findings) == 0 {
			check.Findings, check.Remedy = []string{}, ""
		} else {
			o.OK = false
		}
	}
	if c.s.out.json {
		if err := c.s.out.object(o); err != nil {
			return err
		}
	} else {
		c.print(o)
	}
	if !o.OK {
		return errDamage
	}
	return nil
}

func (c *verification) print(o verifyObject) {
	out := c.s.out
	out.line("store      %s, id %s\n", printable(o.Store), o.ID)
	for _, check := range o.Checks {
		n := len(check.Findings) + check.More
		if n == 0 {
			out.line("%-10s ok: %d %s", check.Name, check.Looked, check.counts)
			continue
		}
		out.line("%-10s %d FOUND, in %d %s", check.Name, n, check.Looked, check.counts)
		for _, finding := range check.Findings {
			out.line("           - %s", printable(finding))
		}
		if check.More > 0 {
			out.line("           - and %d more", check.More)
		}
		out.line("           %s", check.Remedy)
	}
	if o.OK {
		out.line("\nNothing is wrong up to position %d.", o.Position)
	} else {
		out.line("\nDAMAGE was found, up to position %d.", o.Position)
	}
}
