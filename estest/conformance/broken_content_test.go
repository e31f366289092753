package conformance_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/thalo-go/es"
)

const (
	asWritten    = "record is read as it was written"
	streamBytes  = "stream names are kept byte by byte"
	typeBytes    = "event types are kept byte by byte"
	dataBytes    = "data is kept byte by byte"
	metaText     = "metadata is kept unchanged"
	emptyMeta    = "empty metadata is read as nil"
	retainsNone  = "Append does not retain its arguments"
	modifiesNone = "Append does not modify its arguments"
	callersOwn   = "records that were read may be kept and modified"
	badRefused   = "input beyond a limit is refused before anything is written"
	withinLimits = "input at the limits is accepted"
)

func brokenContents() []defect[es.Log] {
	return []defect[es.Log]{
		broken("metadata of records without data is lost", asWritten, recording(func(r es.Record) es.Record {
			if len(r.Data) == 0 {
				r.Meta = nil
			}
			return r
		})),
		broken("ids are folded to lower case", streamBytes, foldsIDs(strings.ToLower)),
		broken("spaces at the end of an id are ignored", streamBytes, foldsIDs(func(id string) string {
			if short := strings.TrimRight(id, " "); short != "" {
				return short
			}
			return id
		})),
		broken("ß equals ss", streamBytes, foldsIDs(strings.NewReplacer("ß", "ss").Replace)),
		broken("letters are normalized", streamBytes, foldsIDs(strings.NewReplacer("a\u0308", "ä").Replace)),
		broken("types are trimmed", typeBytes, recording(func(r es.Record) es.Record {
			r.Type = strings.TrimSpace(r.Type)
			return r
		})),
		broken("data is taken for text", dataBytes, recording(func(r es.Record) es.Record {
			r.Data = bytes.ToValidUTF8(r.Data, []byte("\ufffd"))
			return r
		})),
		broken("data ends at the first NUL byte", dataBytes, recording(func(r es.Record) es.Record {
			r.Data, _, _ = bytes.Cut(r.Data, []byte{0})
			return r
		})),
		broken("metadata is escaped but not unescaped", metaText, recording(func(r es.Record) es.Record {
			for key, value := range r.Meta {
				r.Meta[key] = strings.ReplaceAll(value, "<", "\\u003c")
			}
			return r
		})),
		broken("empty metadata values are lost", metaText, recording(func(r es.Record) es.Record {
			maps.DeleteFunc(r.Meta, func(_, value string) bool { return value == "" })
			return r
		})),
		broken("missing metadata is read as an empty map", emptyMeta, recording(func(r es.Record) es.Record {
			if r.Meta == nil {
				r.Meta = map[string]string{}
			}
			return r
		})).noticedBy(asWritten),
	}
}

func brokenMemory() []defect[es.Log] {
	return []defect[es.Log]{
		broken("the caller's data is retained", retainsNone, func(m *es.Mem) *faulty {
			var kept table[[]byte]
			return &faulty{Mem: m, onAppend: func(ctx context.Context, appends []es.Append) (es.Position, error) {
				position, err := m.Append(ctx, appends...)
				if err == nil && len(appends) == 1 && len(appends[0].Events) > 0 {
					kept.put(appends[0].Stream.String()+fmt.Sprint("/", head(m, appends[0].Stream)), appends[0].Events[len(appends[0].Events)-1].Data)
				}
				return position, err
			}, onRecord: func(r es.Record) es.Record {
				if data, found := kept.get(r.ID()); found {
					r.Data = bytes.Clone(data)
				}
				return r
			}}
		}),
		broken("the caller's records are numbered", modifiesNone, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			for _, a := range appends {
				for i := range a.Events {
					a.Events[i].Version = es.Version(i + 1)
				}
			}
			return m.Append(ctx, appends...)
		})),
		broken("the caller's command is cleared", modifiesNone, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			position, err := m.Append(ctx, slices.Clone(appends)...)
			for i := range appends {
				appends[i].Command = ""
			}
			return position, err
		})).noticedBy(firstNamed),
		broken("readers share records", callersOwn, func(m *es.Mem) *faulty {
			var read table[es.Record]
			return &faulty{Mem: m, onRecord: func(r es.Record) es.Record {
				if shared, found := read.get(r.ID()); found {
					return shared
				}
				read.put(r.ID(), r)
				return r
			}}
		}),
		broken("the records of a loop share one buffer", callersOwn, reading(func(ctx context.Context, m *es.Mem, stream es.Stream, after es.Version) records {
			return func(yield func(es.Record, error) bool) {
				var buffer []byte
				for r, err := range m.Read(ctx, stream, after) {
					if from := len(buffer); err == nil {
						buffer = append(slices.Grow(buffer, 1<<10), r.Data...)
						r.Data = buffer[from:len(buffer):cap(buffer)]
					}
					if !yield(r, err) {
						return
					}
				}
			}
		})),
	}
}

func brokenLimits() []defect[es.Log] {
	return []defect[es.Log]{
		broken("a long type is truncated", badRefused, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			for _, a := range appends {
				for i, e := range a.Events {
					a.Events[i].Type = e.Type[:min(len(e.Type), es.MaxType)]
				}
			}
			return m.Append(ctx, appends...)
		})),
		broken("the error of a limit does not name the stream", badRefused, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			if err := es.CheckAppends(appends...); err != nil {
				return 0, fmt.Errorf("bad input: %w", es.ErrInvalid)
			}
			return m.Append(ctx, appends...)
		})),
		broken("an invalid stream is read as an empty one", badRefused, reading(func(ctx context.Context, m *es.Mem, stream es.Stream, after es.Version) records {
			if stream.Check() != nil {
				return func(func(es.Record, error) bool) {}
			}
			return m.Read(ctx, stream, after)
		})),
		broken("long ids are refused", withinLimits, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			for _, a := range appends {
				if len(a.Stream.ID) > 255 {
					return 0, fmt.Errorf("%w: %s: the key is too long", es.ErrInvalid, a.Stream)
				}
			}
			return m.Append(ctx, appends...)
		})),
		broken("long metadata is truncated", withinLimits, recording(func(r es.Record) es.Record {
			for key, value := range r.Meta {
				r.Meta[key] = value[:min(len(value), 16<<10)]
			}
			return r
		})),
	}
}

// foldsIDs is a log that compares stream ids after folding them.
func foldsIDs(fold func(string) string) func(m *es.Mem) *faulty {
	folded := func(s es.Stream) es.Stream { return es.Stream{Kind: s.Kind, ID: fold(s.ID)} }
	return func(m *es.Mem) *faulty {
		return &faulty{Mem: m, onAppend: func(ctx context.Context, appends []es.Append) (es.Position, error) {
			if err := es.CheckAppends(appends...); err != nil {
				return 0, err
			}
			appends = slices.Clone(appends)
			for i := range appends {
				appends[i].Stream = folded(appends[i].Stream)
			}
			return m.Append(ctx, appends...)
		}, onRead: func(ctx context.Context, stream es.Stream, after es.Version) records {
			if stream.Check() == nil {
				stream = folded(stream)
			}
			return m.Read(ctx, stream, after)
		}}
	}
}
