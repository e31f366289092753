package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

type reconcile struct {
	With   []string `placeholder:"STORE" help:"Another database: one with read models that follow this log, or a copy of this log. It may be given several times."`
	Relays string   `placeholder:"FILE" help:"The messages of the relays' checkpoint topic, one a line, such as kafka-console-consumer writes them; - is the standard input."`
}

// A standing is the state of a reader, compared with the log.
type standing struct {
	Store    string      `json:"store,omitempty"` // where its checkpoint is; empty for a relay
	Reader   string      `json:"reader"`
	Name     string      `json:"name"`
	Version  int         `json:"version,omitempty"`
	Shard    string      `json:"shard,omitempty"`
	Position es.Position `json:"position"`
	Verdict  verdict     `json:"verdict"`
	Reason   string      `json:"reason,omitempty"`
	Remedy   string      `json:"remedy,omitempty"`
}

// A verdict is what was found out about a reader.
type verdict string

const (
	inStep verdict = "ok"      // it has read the log as it is, maybe not to its end
	ahead  verdict = "ahead"   // its checkpoint is after the end of the log
	parted verdict = "parted"  // it has read a record that the log does not have, and the log has grown since
	other  verdict = "unknown" // it reads topics, or another log
)

// lost reports whether a reader knows records that the log does not have.
func (v verdict) lost() bool { return v == ahead || v == parted }

// logObject is the JSON of the log.
type logObject struct {
	Log  string      `json:"log"`
	ID   string      `json:"id"`
	Head es.Position `json:"head"`
	Time time.Time   `json:"time,omitzero"` // of the last record
}

// A reconciliation compares a log with all that has read it.
type reconciliation struct {
	s         *session
	db        database
	log       logObject
	common    es.Position // the log and its copies are the same up to here
	copies    []string
	standings []standing
}

// Run is called by kong.
func (v *reconcile) Run(s *session) (err error) {
	db, err := s.open(true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	c := &reconciliation{s: s, db: db}
	if err := c.readHead(); err != nil {
		return err
	}
	readers := map[string]database{s.cli.Store: db}
	var opened []database
	defer func() {
		for _, with := range opened {
			err = errors.Join(err, with.Close())
		}
	}()
	for _, store := range v.With {
		with, failed := s.openStore(store, true)
		if failed != nil {
			return failed
		}
		opened = append(opened, with)
		if with.ID() != db.ID() {
			readers[store] = with
		} else if err := c.compare(with); err != nil {
			return err
		}
	}
	for _, store := range append([]string{s.cli.Store}, v.With...) {
		if from := readers[store]; from != nil {
			if err := c.readStore(from, store); err != nil {
				return err
			}
		}
	}
	if v.Relays != "" {
		if err := c.readRelays(v.Relays); err != nil {
			return err
		}
	}
	return c.report()
}

func (c *reconciliation) readHead() error {
	head, err := es.Head(c.s.ctx, c.db)
	if err != nil {
		return err
	}
	c.log = logObject{Log: c.db.where(), ID: c.db.ID(), Head: head}
	c.common = head
	last, _, err := recordAt(c.s.ctx, c.db, head)
	c.log.Time = last.Time
	return err
}

// recordAt returns the record at a position, if there is one.
func recordAt(ctx context.Context, log es.Log, position es.Position) (es.Record, bool, error) {
	if position < 1 {
		return es.Record{}, false, nil
	}
	for r, err := range log.All(ctx, position-1, es.Filter{}) {
		return r, err == nil && r.Position == position, err
	}
	return es.Record{}, false, nil
}

// compare finds the position up to which the log and a copy of it are the same. Positions have no gaps and are in the order of the commits, so
// whatever comes before a record that is the same is the same.
func (c *reconciliation) compare(copied database) error {
	head, err := es.Head(c.s.ctx, copied)
	if err != nil {
		return err
	}
	var failed error
	differs := sort.Search(int(min(head, c.log.Head)), func(i int) bool {
		ours, _, err1 := recordAt(c.s.ctx, c.db, es.Position(i+1))
		theirs, _, err2 := recordAt(c.s.ctx, copied, es.Position(i+1))
		failed = errors.Join(failed, err1, err2)
		return ours.ID() != theirs.ID() || !ours.Time.Equal(theirs.Time) || ours.Type != theirs.Type || !bytes.Equal(ours.Data, theirs.Data)
	})
	if failed != nil {
		return failed
	}
	same := es.Position(differs)
	c.common = min(c.common, same)
	c.copies = append(c.copies, fmt.Sprintf("%s has the same log up to position %d, and %d records after it", copied.where(), same, head-same))
	return nil
}

// readStore judges the checkpoints in a database.
func (c *reconciliation) readStore(db database, store string) error {
	shards, err := db.Status(c.s.ctx)
	if err != nil {
		return err
	}
	lost := make(map[string]bool) // projections of which a shard knows records that are lost
	of := func(p projection.Status) string { return projectionName(p.Name, p.Version) }
	begin := len(c.standings)
	for _, p := range shards {
		s := standing{
			Store: db.where(), Reader: string(cmp.Or(p.Kind, projection.KindProjection)), Name: p.Name, Version: p.Version, Shard: p.Shard, Position: es.Position(p.Cursor),
		}
		if p.Source != c.log.ID {
			s.Verdict, s.Reason = other, "it reads topics or another log, "+p.Source
		} else if err := c.judge(&s, p.Time, ""); err != nil {
			return err
		}
		lost[of(p)] = lost[of(p)] || s.Verdict.lost()
		c.standings = append(c.standings, s)
	}
	for i, p := range shards {
		s := &c.standings[begin+i]
		if s.Verdict == inStep && lost[of(p)] {
			s.Verdict, s.Reason = parted, "another of its shards has read what the log does not have"
		}
		c.propose(s, p, store)
	}
	if db.ID() != c.log.ID {
		return nil // its checkpoints are of its own log
	}
	for reader, err := range db.checkpoints(c.s.ctx) {
		if err != nil {
			return err
		}
		if reader.isFilterMark() {
			continue
		}
		s := standing{Store: db.where(), Reader: "checkpoint", Name: reader.name, Position: reader.position}
		if err := c.judge(&s, time.Time{}, ""); err != nil {
			return err
		}
		if s.Verdict == ahead {
			s.Remedy = fmt.Sprintf("undo what its reader did after position %d, then move the checkpoint there; a relay with AtLeastOnce: Relay.Reset", c.common)
		}
		c.standings = append(c.standings, s)
	}
	return nil
}

// judge compares a reader with the log. The time is that of the last record that it has handled, and id its identity, if they are known.
func (c *reconciliation) judge(s *standing, last time.Time, id string) error {
	s.Verdict = inStep
	if s.Position > c.log.Head {
		s.Verdict, s.Reason = ahead, fmt.Sprintf("its checkpoint is %d records after the end of the log", s.Position-c.log.Head)
		return nil
	}
	if last.IsZero() {
		return nil
	}
	found, err := c.has(last, id)
	if err == nil && !found {
		s.Verdict, s.Reason = parted, "it has handled a record of "+timestamp(last)+" that the log does not have"
	}
	return err
}

// has reports whether the log has a record of a time, with an identity unless that is "". Times never decrease along positions.
func (c *reconciliation) has(at time.Time, id string) (bool, error) {
	var failed error
	first := sort.Search(int(c.log.Head), func(i int) bool {
		r, found, err := recordAt(c.s.ctx, c.db, es.Position(i+1))
		failed = errors.Join(failed, err)
		return !found || !r.Time.Before(at)
	})
	if failed != nil {
		return false, failed
	}
	for r, err := range c.db.All(c.s.ctx, es.Position(first), es.Filter{}) {
		if err != nil {
			return false, err
		}
		if !r.Time.Equal(at) {
			break
		}
		if id == "" || r.ID() == id {
			return true, nil
		}
	}
	return false, nil
}

// propose says how to bring a projection or reaction back to the log.
func (c *reconciliation) propose(s *standing, p projection.Status, store string) {
	if !s.Verdict.lost() {
		return
	}
	program := "es -s " + shellWord(redact(store, store))
	name := projectionName(p.Name, p.Version)
	if p.Kind == projection.KindReaction {
		s.Remedy = fmt.Sprintf("%s replay %s --after %d --yes: undo first what it did for records that are gone", program, name, c.common)
		return
	}
	s.Remedy = fmt.Sprintf("%s rebuild %s --yes; without Prepare: fix the read model by hand, then %s replay %s --after %d --yes", program, name, program, name, c.common)
}

// shellWord quotes a text that a shell would take apart.
func shellWord(s string) string {
	if strings.ContainsAny(s, " \t\n?&;*$<>()|'\"`\\!") {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return s
}

// A relayCheckpoint is a message of the checkpoint topic of relays. Its form is frozen; see docs/formats.md.
type relayCheckpoint struct {
	Store    string      `json:"store"`
	Relay    string      `json:"relay"`
	Position es.Position `json:"position"`
	Last     *struct {
		Position es.Position `json:"position"`
		ID       string      `json:"id"`
		Time     time.Time   `json:"time"`
	} `json:"last"`
}

// readRelays judges the relays whose checkpoints a file has. The last message of a relay counts.
func (c *reconciliation) readRelays(file string) error {
	in := io.Reader(os.Stdin)
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	relays := make(map[string]relayCheckpoint)
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, es.MaxData)
	for n := 1; lines.Scan(); n++ {
		text := bytes.TrimSpace(lines.Bytes())
		if len(text) == 0 || string(text) == "null" {
			continue
		}
		var r relayCheckpoint
		if err := json.Unmarshal(text, &r); err != nil || r.Store == "" || r.Relay == "" {
			return fmt.Errorf("%s, line %d: it is no checkpoint of a relay: give the values of the checkpoint topic, one a line", file, n)
		}
		relays[r.Store+"/"+r.Relay] = r
	}
	if err := lines.Err(); err != nil {
		return within("read "+file, err)
	}
	for _, key := range slices.Sorted(maps.Keys(relays)) {
		if err := c.judgeRelay(relays[key]); err != nil {
			return err
		}
	}
	return nil
}

func (c *reconciliation) judgeRelay(r relayCheckpoint) error {
	s := standing{Reader: "relay", Name: r.Relay, Position: r.Position}
	if r.Store != c.log.ID {
		s.Verdict, s.Reason = other, "it publishes another log, "+r.Store
		c.standings = append(c.standings, s)
		return nil
	}
	var last time.Time
	var id string
	if r.Last != nil {
		last, id = r.Last.Time, r.Last.ID
	}
	if err := c.judge(&s, last, id); err != nil {
		return err
	}
	if s.Verdict != inStep {
		s.Remedy = fmt.Sprintf("tell the readers of its topics which records are gone, then Relay.Reset to %d", c.common)
	}
	c.standings = append(c.standings, s)
	return nil
}

// report prints the standings, and returns errDamage if a reader knows what the log does not have.
func (c *reconciliation) report() error {
	var found []standing
	for _, s := range c.standings {
		if s.Verdict.lost() {
			found = append(found, s)
		}
	}
	if c.s.out.json {
		if err := c.s.out.object(c.log); err != nil {
			return err
		}
		for _, s := range c.standings {
			if err := c.s.out.object(s); err != nil {
				return err
			}
		}
	} else {
		c.print(found)
	}
	if len(found) > 0 {
		return errDamage
	}
	return nil
}

func (c *reconciliation) print(found []standing) {
	out := c.s.out
	end := "empty"
	if c.log.Head > 0 {
		end = fmt.Sprintf("position %d, last record %s", c.log.Head, timestamp(c.log.Time))
	}
	out.line("log        %s, id %s, %s", printable(c.log.Log), c.log.ID, end)
	for _, text := range c.copies {
		out.line("copy       %s", printable(text))
	}
	if len(c.standings) == 0 {
		out.line("\nNothing has read this log.")
	} else {
		out.line("\nREADER      NAME                      SHARD     POSITION  STANDS   WHERE")
	}
	for _, s := range c.standings {
		where := cmp.Or(s.Store, "its checkpoint topic")
		out.line("%-10s  %-24s  %-6s  %10d  %-7s  %s", s.Reader, printable(projectionName(s.Name, s.Version)), printable(s.Shard), s.Position, s.Verdict, printable(where))
		if s.Reason != "" {
			out.line("    %s", printable(s.Reason))
		}
	}
	if len(found) == 0 {
		out.line("\nNo reader is ahead of the log.")
		return
	}
	out.line("\n%d of %d readers know records that the log does not have. With all programs stopped:", len(found), len(c.standings))
	for i, s := range found {
		out.line("%3d. %s %s: %s", i+1, s.Reader, printable(strings.TrimSpace(projectionName(s.Name, s.Version)+" "+s.Shard)), printable(s.Remedy))
	}
	if len(c.copies) == 0 && slices.ContainsFunc(found, func(s standing) bool { return s.Verdict == parted }) {
		out.line("     The log was written to since it was restored, so the lost records begin before its end. Give a copy that has them --with, to find where.")
	}
}
