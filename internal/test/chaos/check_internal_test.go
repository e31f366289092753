package chaos

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
)

// A story is the evidence of a correct run, which tests then damage.
type story struct {
	t       *testing.T
	history []Entry
	log     []es.Record
	heads   map[es.Stream]es.Version
	models  []Model

	relayed   bool
	published []Published
}

// relay publishes the log.
func (s *story) relay() *story {
	s.relayed, s.published = true, nil
	for _, r := range s.log {
		p := Published{Store: "store", Record: r, Topic: "t." + r.Stream.Kind, Partition: int32(len(r.Stream.ID) % partitionsOfTopic)}
		p.Offset = int64(r.Position)
		s.published = append(s.published, p)
	}
	return s
}

func newStory(t *testing.T) *story {
	s := &story{t: t, heads: make(map[es.Stream]es.Version)}
	for n := range 2 {
		s.command(prefixOpen+accountID(n), Acknowledged, map[int][]account.Event{n: {account.Opened{Owner: accountID(n)}}})
		s.command(prefixFund+accountID(n), Acknowledged, map[int][]account.Event{n: {account.Deposited{Amount: endowment}}})
	}
	s.command("atomic.1", Acknowledged, map[int][]account.Event{
		0: {account.Withdrawn{Amount: 3}, account.Withdrawn{Amount: 4}}, 1: {account.Deposited{Amount: 3}, account.Deposited{Amount: 4}},
	})
	s.command("steps.1", Unknown, map[int][]account.Event{1: {account.Withdrawn{Amount: 5}}})
	s.command("steps.1", Acknowledged, map[int][]account.Event{0: {account.Deposited{Amount: 5}}})
	s.refuse("steps.2", 0)
	return s
}

// command adds a command to the log, and its answer to the history.
func (s *story) command(id string, told Kind, events map[int][]account.Event) {
	var sent, parts []Part
	for _, n := range slices.Sorted(maps.Keys(events)) {
		stream := accountStream(n)
		p := Part{Stream: stream, First: s.heads[stream] + 1}
		for _, e := range events[n] {
			r := encode(e, id)
			s.heads[stream]++
			r.Stream, r.Version, r.Position = stream, s.heads[stream], es.Position(len(s.log)+1)
			r.Time = time.Unix(int64(r.Position), 0)
			s.log = append(s.log, r)
			p.Events = append(p.Events, content(r))
		}
		sent = append(sent, Part{Stream: stream, Events: p.Events})
		parts = append(parts, Part{Stream: stream, First: p.First, Last: s.heads[stream]})
	}
	s.history = append(s.history, Entry{Process: "writer-1.1", Kind: Sent, Command: id, Parts: sent},
		Entry{Process: "writer-1.1", Kind: told, Command: id, Parts: parts, Position: es.Position(len(s.log))})
}

// refuse adds a refused command to the history.
func (s *story) refuse(id string, n int) {
	p := Part{Stream: accountStream(n), Events: []string{eventContent(account.Withdrawn{Amount: 1})}}
	s.history = append(s.history, Entry{Process: "writer-2.1", Kind: Sent, Command: id, Parts: []Part{p}},
		Entry{Process: "writer-2.1", Kind: Refused, Command: id, Parts: []Part{{Stream: p.Stream}}})
}

// remove removes records and renumbers the later ones, like a store that never had them.
func (s *story) remove(positions ...es.Position) {
	s.log = slices.DeleteFunc(s.log, func(r es.Record) bool { return slices.Contains(positions, r.Position) })
	s.renumber()
}

func (s *story) renumber() {
	s.heads = make(map[es.Stream]es.Version)
	for i := range s.log {
		r := &s.log[i]
		s.heads[r.Stream]++
		r.Position, r.Version, r.Time = es.Position(i+1), s.heads[r.Stream], time.Unix(int64(i), 0)
	}
}

// find returns the index of the first record of a command on an account.
func (s *story) find(command string, n int) int {
	i := slices.IndexFunc(s.log, func(r es.Record) bool {
		return r.Meta[es.MetaCorrelation] == command && r.Stream == accountStream(n)
	})
	if i < 0 {
		s.t.Fatalf("no %s on %s", command, accountStream(n))
	}
	return i
}

func (s *story) evidence() Evidence {
	history := func(yield func(Entry, error) bool) {
		for _, e := range s.history {
			if !yield(e, nil) {
				return
			}
		}
	}
	return Evidence{History: iter.Seq2[Entry, error](history), Log: s.log, Funds: 2 * endowment, Models: s.models, Store: "store", Relayed: s.relayed, Published: s.published}
}

func TestCheckFindsNothingWhereNothingIs(t *testing.T) {
	s := newStory(t).relay()
	violations, counts, err := Check(s.evidence())
	if err != nil || len(violations) > 0 {
		t.Errorf("%v, %v", violations, err)
	}
	want := Counts{Records: len(s.log), Streams: 2, Sent: 8, Acknowledged: 6, Refused: 1, Unknown: 1, Published: len(s.log)}
	if counts != want {
		t.Errorf("counted %+v, want %+v", counts, want)
	}
}

// A damage is a change to a story, and the violation that Check must find.
type damage struct {
	name   string
	doctor func(s *story)
	want   string // the guarantee
	says   string
}

func TestCheckFinds(t *testing.T) {
	for _, test := range slices.Concat(damagesOfAppends(), damagesOfOrder(), damagesOfReaders(), damagesOfTimers(), damagesOfTopics()) {
		t.Run(test.name, func(t *testing.T) {
			s := newStory(t)
			test.doctor(s)
			violations, _, err := Check(s.evidence())
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range violations {
				if v.Guarantee == test.want && strings.Contains(v.Text, test.says) {
					return
				}
			}
			t.Errorf("want %q and %q, got:\n%s", test.want, test.says, fmt.Sprint(violations))
		})
	}
}

func damagesOfAppends() []damage {
	return []damage{{
		"a lost append", func(s *story) { s.remove(es.Position(s.find("steps.1", 0) + 1)) },
		guaranteeDurable, "steps.1 on account/a000, acknowledged to writer-1.1 as versions 5 to 5 at position 10, is not in the log",
	}, {
		"a lost end of the log", func(s *story) { s.log = s.log[:4] },
		guaranteeDurable, "atomic.1 on account/a000",
	}, {
		"half an append", func(s *story) { s.remove(es.Position(s.find("atomic.1", 1)+1), es.Position(s.find("atomic.1", 1)+2)) },
		guaranteeWhole, "atomic.1, one append, has 2 events on 1 of 2 streams",
	}, {
		"an event of an append that is missing", func(s *story) { s.remove(es.Position(s.find("atomic.1", 1) + 2)) },
		guaranteeOnce, `the log has ["deposited {\"Amount\":3}"]`,
	}, {
		"an append interleaved with another one", func(s *story) {
			i := s.find("atomic.1", 0)
			stranger := s.log[s.find("steps.1", 0)]
			s.log = slices.Delete(s.log, s.find("steps.1", 0), s.find("steps.1", 0)+1)
			s.log = slices.Insert(s.log, i+2, stranger)
			s.renumber()
		},
		guaranteeWhole, "atomic.1, one append, has 4 events on 2 of 2 streams at positions 5 to 9",
	}, {
		"an append that is in the log twice", func(s *story) { s.log = append(s.log, s.log[s.find("steps.1", 0)]); s.renumber() },
		guaranteeOnce, `the log has ["deposited {\"Amount\":5}" "deposited {\"Amount\":5}"]`,
	}, {
		"an append of unknown outcome that is in the log twice", func(s *story) { s.log = append(s.log, s.log[s.find("steps.1", 1)]); s.renumber() },
		guaranteeOnce, "steps.1 on account/a001",
	}, {
		"an append with other content", func(s *story) { s.log[s.find("steps.1", 0)].Data = []byte(`{"Amount":50}`) },
		guaranteeOnce, `sent ["deposited {\"Amount\":5}"], but the log has ["deposited {\"Amount\":50}"]`,
	}, {
		"an append at another version than acknowledged", func(s *story) {
			s.history[len(s.history)-3].Parts[0].First, s.history[len(s.history)-3].Parts[0].Last = 4, 4
		},
		guaranteeDurable, "as versions 4 to 4, but is 5 to 5",
	}, {
		"an append at another position than acknowledged", func(s *story) { s.history[len(s.history)-3].Position = 9 },
		guaranteeDurable, "at position 9, but is at 10",
	}, {
		"a refused command that is in the log", func(s *story) {
			r := encode(account.Withdrawn{Amount: 1}, "steps.2")
			r.Stream = accountStream(0)
			s.log = append(s.log, r)
			s.renumber()
		},
		guaranteeNothing, "steps.2 on account/a000 is in the log as version 6 at position 11",
	}, {
		"an event that no process sent", func(s *story) {
			r := encode(account.Deposited{Amount: 1}, "stranger")
			r.Stream = accountStream(0)
			s.log = append(s.log, r)
			s.renumber()
		},
		guaranteeOrigin, `account/a000/6 at position 11, of command "stranger"`,
	}, {
		"an event on another stream than it was sent to", func(s *story) { s.log[s.find("steps.1", 0)].Stream = accountStream(7); s.renumber() },
		guaranteeOrigin, "account/a007/1",
	}}
}

func damagesOfOrder() []damage {
	return []damage{{
		"a missing position", func(s *story) { s.log = slices.Delete(s.log, 2, 3) },
		guaranteePositions, "is at position 4 instead of 3",
	}, {
		"a missing version", func(s *story) { s.log[s.find("steps.1", 0)].Version++ },
		guaranteeVersions, "account/a000/6 at position 10 should have version 5",
	}, {
		"a repeated version", func(s *story) { s.log[s.find("steps.1", 0)].Version-- },
		guaranteeVersions, "account/a000/4 at position 10 should have version 5",
	}, {
		"time that decreases", func(s *story) { s.log[5].Time = time.Unix(0, 0) },
		guaranteeTime, "at position 6",
	}, {
		"money that was created", func(s *story) {
			s.command("steps.3", Acknowledged, map[int][]account.Event{0: {account.Deposited{Amount: 9}}})
		},
		guaranteeMoney, "2000000 cents were deposited, but the balances add up to 2000009",
	}, {
		"a transfer that deposited more than it withdrew, and another one less", func(s *story) {
			s.command("steps.3", Acknowledged, map[int][]account.Event{0: {account.Deposited{Amount: 9}}})
			s.command("steps.4", Acknowledged, map[int][]account.Event{1: {account.Withdrawn{Amount: 9}}})
		},
		guaranteeMoney, "transfer steps.3 deposited 9 cents more than it withdrew",
	}, {
		"an account that is temporarily overdrawn", func(s *story) {
			s.command("steps.3", Acknowledged, map[int][]account.Event{0: {account.Withdrawn{Amount: 2 * endowment}}})
			s.command("steps.4", Acknowledged, map[int][]account.Event{0: {account.Deposited{Amount: 2 * endowment}}})
		},
		guaranteeRefusal, "account/a000 has -",
	}}
}

func damagesOfReaders() []damage {
	return []damage{{
		"a read model with another value", func(s *story) {
			s.models = []Model{{Name: "balances", Rows: map[string]string{"a": "1"}, Want: map[string]string{"a": "2"}}}
		},
		guaranteeModel, "balances: a is 1, want 2",
	}, {
		"a read model with a missing row", func(s *story) {
			s.models = []Model{{Name: "balances", Want: map[string]string{"a": "2"}}}
		},
		guaranteeModel, "balances: a is missing, want 2",
	}, {
		"a read model with an extra row", func(s *story) {
			s.models = []Model{{Name: "balances", Rows: map[string]string{"b": "1"}}}
		},
		guaranteeModel, "balances: b is 1, want none",
	}, {
		"a record that was applied twice", func(s *story) { s.models = []Model{{Name: "topic", Repeated: []string{"account/a/1"}}} },
		guaranteeExactly, "topic: account/a/1 was applied again",
	}, {
		"a violation observed by a process", func(s *story) {
			s.history = append(s.history, Entry{Process: "writer-1.1", Kind: Violated, Text: "a balance of -1"})
		},
		guaranteeUnbothered, "writer-1.1: a balance of -1",
	}, {
		"a process that gave up", func(s *story) {
			s.history = append(s.history, Entry{Process: "writer-1.1", Kind: Died, Text: "no more"})
		},
		guaranteeProcess, "writer-1.1: no more",
	}}
}

// remind adds the effects of timers of a withdrawal to the log, and then the models of both reactions.
func (s *story) remind(after time.Duration, kinds ...string) {
	cause := es.Record{Stream: accountStream(0), Version: 99, Type: "withdrawn", Time: time.Unix(100, 0)}
	for at, is := reminderDue(cause); !is || at.Equal(cause.Time); at, is = reminderDue(cause) {
		cause.Version++
	}
	at, _ := reminderDue(cause)
	log := []es.Record{cause}
	for _, kind := range kinds {
		log = append(log, es.Record{Stream: es.Stream{Kind: kind, ID: "a"}, Type: "deposited", Time: at.Add(after), Meta: map[string]string{es.MetaCausation: cause.ID()}})
	}
	s.models = reminders(log)
}

func TestCheckFindsNothingWhereTimersFireOnceAndLate(t *testing.T) {
	s := newStory(t)
	s.remind(0, reactionReminder, reactionNudge)
	if violations, _, err := Check(s.evidence()); err != nil || len(violations) > 0 || len(s.models[0].Want) == 0 {
		t.Errorf("%v, %v", violations, err)
	}
}

func damagesOfTimers() []damage {
	return []damage{
		{"a timer that was lost", func(s *story) { s.remind(0, reactionReminder) }, guaranteeModel, "nudge: account/a000/"},
		{"a timer whose effect came twice", func(s *story) { s.remind(0, reactionReminder, reactionNudge, reactionReminder) }, guaranteeExactly, "reminder: account/a000/"},
		{"a timer that fired early", func(s *story) { s.remind(-time.Microsecond, reactionReminder, reactionNudge) }, guaranteeModel, "is given 1µs early"},
	}
}

func damagesOfTopics() []damage {
	return []damage{{
		"a record that was not published", func(s *story) { s.relay().published = slices.Delete(s.published, 3, 4) },
		guaranteeTopics, "account/a001/2 at position 4 is not published",
	}, {
		"nothing published", func(s *story) { s.relayed = true },
		guaranteeTopics, "account/a000/1 at position 1 is not published",
	}, {
		"a record that was published twice", func(s *story) {
			again := s.relay().published[3]
			again.Offset = 99
			s.published = append(s.published, again)
		},
		guaranteeTopics, "account/a001/2 at position 4 is published again at t.account [0] offset 99",
	}, {
		"a published record that is not in the log", func(s *story) {
			stray := s.relay().published[3]
			stray.Record.Position = 99
			s.published = append(s.published, stray)
		},
		guaranteeTopics, "at position 99 is published but not in the log",
	}, {
		"a published record with other content", func(s *story) { s.relay().published[3].Record.Data = []byte(`{"Amount":1}`) },
		guaranteeTopics, `position 4 is published as account/a001/2 "deposited {\"Amount\":1}"`,
	}, {
		"a published record of another store", func(s *story) { s.relay().published[3].Store = "other" },
		guaranteeTopics, "of store other",
	}, {
		"a stream out of order", func(s *story) {
			s.relay()
			s.published[0].Offset, s.published[1].Offset = s.published[1].Offset, s.published[0].Offset
		},
		guaranteeOrder, "account/a000/2 at t.account [0] offset 1 follows account/a000/1 at t.account [0] offset 2",
	}, {
		"a stream in two partitions", func(s *story) { s.relay().published[3].Partition++ },
		guaranteeOrder, "account/a001/2 at t.account [1]",
	}}
}

func TestHistoriesOfKilledProcesses(t *testing.T) {
	folder := t.TempDir()
	h, err := createHistory(folder + "/writer-1.1" + historySuffix)
	if err != nil {
		t.Fatal(err)
	}
	h.note(Entry{Kind: Sent, Command: "a", Parts: []Part{{Stream: accountStream(1), Events: []string{"x {}"}}}})
	if _, err := h.file.WriteString(`{"Kind":"sent","Comm`); err != nil { // the process was killed here
		t.Fatal(err)
	}
	if err := h.close(); err != nil {
		t.Fatal(err)
	}
	var entries []Entry
	for e, err := range readHistories(folder) {
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, e)
	}
	if len(entries) != 1 || entries[0].Command != "a" || entries[0].Process != "writer-1.1" {
		t.Errorf("read %+v", entries)
	}
	if _, err := createHistory(folder + "/writer-1.1" + historySuffix); err == nil {
		t.Error("a history was made over another one")
	}
}
