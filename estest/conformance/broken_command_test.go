package conformance_test

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/thalo-go/es"
)

const (
	commandOnce             = "command is taken once on a stream"
	duplicateVersions       = "duplicate error has the versions of the command"
	duplicateBeforeConflict = "duplicate takes precedence over a conflict"
	commandOfStream         = "command ids are scoped to their stream"
	commandBytes            = "command ids are compared byte by byte"
	commandRefused          = "refused append does not record its command"
	commandWithoutEvents    = "append without events only checks the command"
	commandRaces            = "command is taken once in a race"
)

func brokenCommands() []defect[es.Log] {
	return []defect[es.Log]{
		broken("commands are ignored", commandOnce, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			if es.CheckAppends(appends...) != nil {
				return m.Append(ctx, appends...)
			}
			plain := atAnyVersion(appends)
			for i := range plain {
				plain[i].Command, plain[i].Expected = "", appends[i].Expected
			}
			return m.Append(ctx, plain...)
		})).noticedBy(firstNamed, duplicateVersions, duplicateBeforeConflict, commandBytes, commandWithoutEvents, commandRaces, allOrNothing, positionsDense, withinLimits, commandRefused),
		broken("a duplicate is reported as a success", commandOnce, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			position, err := m.Append(ctx, appends...)
			var recorded *es.DuplicateError
			if errors.As(err, &recorded) {
				return 0, nil
			}
			return position, err
		})).noticedBy(firstNamed, duplicateVersions, duplicateBeforeConflict, commandBytes, commandWithoutEvents, commandRaces, allOrNothing, positionsDense, withinLimits, commandRefused),
		broken("a duplicate names the last version of the stream", duplicateVersions, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			position, err := m.Append(ctx, appends...)
			var recorded *es.DuplicateError
			if errors.As(err, &recorded) {
				recorded.Last = head(m, recorded.Stream)
			}
			return position, err
		})),
		broken("the version is checked before the command", duplicateBeforeConflict, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			a := es.Append{}
			if len(appends) == 1 && es.CheckAppends(appends...) == nil {
				a = appends[0]
			}
			if a.Expected > es.AnyVersion && a.Command != "" && a.Expected != head(m, a.Stream) {
				return 0, &es.ConflictError{Stream: a.Stream, Expected: a.Expected}
			}
			return m.Append(ctx, appends...)
		})).noticedBy(commandRaces),
	}
}

func brokenCommandTables() []defect[es.Log] {
	return []defect[es.Log]{
		broken("commands are shared by all streams", commandOfStream, ownCommands(func(a es.Append) string { return a.Command })).noticedBy(firstNamed),
		broken("stream and command are joined ambiguously", commandOfStream, ownCommands(func(a es.Append) string {
			return a.Stream.String() + "/" + a.Command
		})).noticedBy(firstNamed),
		broken("commands ignore case", commandBytes, ownCommands(func(a es.Append) string {
			return a.Stream.String() + "\x00" + strings.ToLower(a.Command)
		})).noticedBy(firstNamed),
		broken("commands ignore surrounding spaces", commandBytes, ownCommands(func(a es.Append) string {
			return a.Stream.String() + "\x00" + strings.TrimSpace(a.Command)
		})).noticedBy(firstNamed),
		broken("a command is recorded before its events are written", commandRefused, func(m *es.Mem) *faulty {
			var refused table[*es.DuplicateError]
			return &faulty{Mem: m, onAppend: func(ctx context.Context, appends []es.Append) (es.Position, error) {
				for _, a := range appends {
					if recorded, found := refused.get(a.Stream.String() + "\x00" + a.Command); found && a.Command != "" {
						return 0, recorded
					}
				}
				position, err := m.Append(ctx, appends...)
				for _, a := range appends {
					if err != nil && duplicate(m, a) == nil {
						refused.put(a.Stream.String()+"\x00"+a.Command, &es.DuplicateError{Stream: a.Stream, Command: a.Command})
					}
				}
				return position, err
			}}
		}),
		broken("a command without events is recorded", commandWithoutEvents, func(m *es.Mem) *faulty {
			var checked table[*es.DuplicateError]
			return &faulty{Mem: m, onAppend: func(ctx context.Context, appends []es.Append) (es.Position, error) {
				for _, a := range appends {
					if recorded, found := checked.get(a.Stream.String() + "\x00" + a.Command); found && a.Command != "" {
						return 0, recorded
					}
				}
				position, err := m.Append(ctx, appends...)
				for _, a := range appends {
					if err == nil && len(a.Events) == 0 {
						checked.put(a.Stream.String()+"\x00"+a.Command, &es.DuplicateError{Stream: a.Stream, Command: a.Command})
					}
				}
				return position, err
			}}
		}),
		broken("a command is checked before the lock", commandRaces, checksFirst),
		broken("a command that lost the race returns a conflict", commandRaces, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			fine := wouldSucceed(m, appends)
			window()
			position, err := m.Append(ctx, appends...)
			if fine && err != nil && ctx.Err() == nil {
				return 0, &es.ConflictError{Stream: appends[0].Stream, Expected: appends[0].Expected}
			}
			return position, err
		})).noticedBy(losersWriteNothing),
	}
}

// checksFirst is a log that checks whether a command is new before it takes the lock.
func checksFirst(m *es.Mem) *faulty {
	var mu sync.Mutex
	var written table[*es.DuplicateError]
	return &faulty{Mem: m, onAppend: func(ctx context.Context, appends []es.Append) (es.Position, error) {
		for _, a := range appends {
			if recorded, found := written.get(a.Stream.String() + "\x00" + a.Command); found {
				return 0, recorded
			}
		}
		if len(appends) != 1 || appends[0].Command == "" || !wouldSucceed(m, appends) {
			return m.Append(ctx, appends...)
		}
		a := appends[0]
		window()
		mu.Lock()
		defer mu.Unlock()
		before := head(m, a.Stream)
		position, err := m.Append(ctx, es.Append{Stream: a.Stream, Expected: es.AnyVersion, Events: a.Events})
		if err == nil && len(a.Events) > 0 {
			written.put(a.Stream.String()+"\x00"+a.Command, &es.DuplicateError{Stream: a.Stream, Command: a.Command, First: before + 1, Last: before + es.Version(len(a.Events))})
		}
		return position, err
	}}
}

// ownCommands is a log that also keeps commands in a table of its own, under the given key.
func ownCommands(key func(es.Append) string) func(m *es.Mem) *faulty {
	return func(m *es.Mem) *faulty {
		var mu sync.Mutex
		var written table[*es.DuplicateError]
		return &faulty{Mem: m, onAppend: func(ctx context.Context, appends []es.Append) (es.Position, error) {
			mu.Lock()
			defer mu.Unlock()
			for _, a := range appends {
				if recorded, found := written.get(key(a)); found && a.Command != "" {
					return 0, recorded
				}
			}
			position, err := m.Append(ctx, appends...)
			for _, a := range appends {
				if recorded := duplicate(m, a); err == nil && a.Command != "" && recorded != nil {
					written.put(key(a), recorded)
				}
			}
			return position, err
		}}
	}
}
