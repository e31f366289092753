package seen_test

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/seen"
)

// Whatever a caller knows that is lost makes its stream suspect, however often the log is rewound and however late that is noticed. A log that
// has lost little makes few streams suspect.
func TestSuspects(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s seen.Streams
		var log []es.Record   // as it is now
		var known []es.Record // by callers
		lost := make(map[es.Stream]bool)
		common, unnoticed := 0, false
		lose := func(left int) {
			if !unnoticed {
				common = len(log)
			}
			log, common, unnoticed = log[:left:left], min(common, left), true
		}
		notice := func() {
			if unnoticed {
				s.Rewound(es.Position(common))
				unnoticed = false
			}
		}
		has := func(r es.Record) bool {
			return int(r.Position) <= len(log) && log[r.Position-1].Type == r.Type
		}
		names := rapid.IntRange(0, 30)
		number := 0
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				for range rapid.SampledFrom([]int{1, 3, 200}).Draw(t, "records") {
					number++
					log = append(log, es.Record{Stream: es.Stream{Kind: "k", ID: fmt.Sprint(names.Draw(t, "stream"))}, Position: es.Position(len(log) + 1), Type: fmt.Sprint(number)})
				}
			},
			"read": func(t *rapid.T) {
				if len(log) == 0 {
					t.Skip("empty")
				}
				from := rapid.IntRange(0, len(log)-1).Draw(t, "from")
				to := min(len(log), from+rapid.IntRange(1, 50).Draw(t, "number"))
				s.NoteAll(s.Epoch(), log[from:to])
				known = append(known, log[from:to]...)
			},
			"late": func(t *rapid.T) { // a read that began before the loss was noticed
				if len(log) == 0 {
					t.Skip("empty")
				}
				epoch, r := s.Epoch(), rapid.SampledFrom(log).Draw(t, "record")
				lose(rapid.IntRange(0, len(log)).Draw(t, "left"))
				notice()
				s.Note(epoch, r.Position, r.Stream)
				known = append(known, r)
			},
			"lose":   func(t *rapid.T) { lose(rapid.IntRange(0, len(log)).Draw(t, "left")) },
			"notice": func(*rapid.T) { notice() },
			"": func(t *rapid.T) {
				if unnoticed {
					return
				}
				for _, r := range known {
					if !has(r) {
						lost[r.Stream] = true
					}
				}
				for stream := range lost {
					if !s.Suspect(stream) {
						t.Fatalf("a caller knows a record of %s that is lost, and it is not suspect", stream)
					}
				}
			},
		})
	})
}

func TestFewStreamsAreSuspect(t *testing.T) {
	stream := func(i int) es.Stream { return es.Stream{Kind: "k", ID: fmt.Sprint(i)} }
	var s seen.Streams
	const records, streams = 30_000, 1000
	for i := range records {
		s.Note(s.Epoch(), es.Position(i+1), stream(i%streams))
	}
	s.Rewound(records - 100)
	suspects := 0
	for i := range streams {
		if s.Suspect(stream(i)) {
			suspects++
		}
	}
	if suspects != 100 {
		t.Errorf("%d streams are suspect, want the 100 that have lost a record", suspects)
	}
	s.Rewound(records - 20_000)
	if !s.Suspect(stream(streams)) {
		t.Error("a stream is not suspect, though more was lost than is remembered")
	}
}
