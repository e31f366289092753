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
		broken("commands are not looked at", commandOnce, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			if es.CheckAppends(appends...) != nil {
				return m.Append(ctx, appends...)
			}
			plain := atAnyVersion(appends)
			for i := range plain {
				plain[i].Command, plain[i].Expected = "", appends[i].Expected
			}
			return m.Append(ctx, plain...)
		})).noticedBy(firstNamed, duplicateVersions, duplicateBeforeConflict, commandBytes, commandWithoutEvents, commandRaces, allOrNothing, positionsDense, withinLimits, commandRefused),
		broken("a duplicate is told as a success", commandOnce, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			position, err := m.Append(ctx, appends...)
			var there *es.DuplicateError
			if errors.As(err, &there) {
				return 0, nil
			}
			return position, err
		})).noticedBy(firstNamed, duplicateVersions, duplicateBeforeConflict, commandBytes, commandWithoutEvents, commandRaces, allOrNothing, positionsDense, withinLimits, commandRefused),
		broken("a duplicate names the last version of the stream", duplicateVersions, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			position, err := m.Append(ctx, appends...)
			var there *es.DuplicateError
			if errors.As(err, &there) {
				there.Last = head(m, there.Stream)
			}
			return position, err
		})),
		broken("the version is looked at before the command", duplicateBeforeConflict, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
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
		broken("a command is known on all streams", commandOfStream, ownCommands(func(a es.Append) string { return a.Command })).noticedBy(firstNamed),
		broken("stream and command are glued together", commandOfStream, ownCommands(func(a es.Append) string {
			return a.Stream.String() + "/" + a.Command
		})).noticedBy(firstNamed),
		broken("commands are compared without regard to case", commandBytes, ownCommands(func(a es.Append) string {
			return a.Stream.String() + "\x00" + strings.ToLower(a.Command)
		})).noticedBy(firstNamed),
		broken("commands are compared without the spaces around them", commandBytes, ownCommands(func(a es.Append) string {
			return a.Stream.String() + "\x00" + strings.TrimSpace(a.Command)
		})).noticedBy(firstNamed),
		broken("a command is noted before its events are written", commandRefused, func(m *es.Mem) *faulty {
			var refused table[*es.DuplicateError]
			return &faulty{Mem: m, onAppend: func(ctx context.Context, appends []es.Append) (es.Position, error) {
				for _, a := range appends {
					if there, found := refused.get(a.Stream.String() + "\x00" + a.Command); found && a.Command != "" {
						return 0, there
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
		broken("a command without events is remembered", commandWithoutEvents, func(m *es.Mem) *faulty {
			var asked table[*es.DuplicateError]
			return &faulty{Mem: m, onAppend: func(ctx context.Context, appends []es.Append) (es.Position, error) {
				for _, a := range appends {
					if there, found := asked.get(a.Stream.String() + "\x00" + a.Command); found && a.Command != "" {
						return 0, there
					}
				}
				position, err := m.Append(ctx, appends...)
				for _, a := range appends {
					if err == nil && len(a.Events) == 0 {
						asked.put(a.Stream.String()+"\x00"+a.Command, &es.DuplicateError{Stream: a.Stream, Command: a.Command})
					}
				}
				return position, err
			}}
		}),
		broken("a command is looked up before the lock", commandRaces, looksUpFirst),
		broken("a command that lost the race is told of a conflict", commandRaces, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			fine := looksFine(m, appends)
			window()
			position, err := m.Append(ctx, appends...)
			if fine && err != nil && ctx.Err() == nil {
				return 0, &es.ConflictError{Stream: appends[0].Stream, Expected: appends[0].Expected}
			}
			return position, err
		})).noticedBy(losersWriteNothing),
	}
}

// looksUpFirst is a log that finds out whether a command is new before it takes the lock to write it.
func looksUpFirst(m *es.Mem) *faulty {
	var mu sync.Mutex
	var written table[*es.DuplicateError]
	return &faulty{Mem: m, onAppend: func(ctx context.Context, appends []es.Append) (es.Position, error) {
		for _, a := range appends {
			if there, found := written.get(a.Stream.String() + "\x00" + a.Command); found {
				return 0, there
			}
		}
		if len(appends) != 1 || appends[0].Command == "" || !looksFine(m, appends) {
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

// ownCommands is a log that also looks for commands in a table of its own, under a key of its own making.
func ownCommands(key func(es.Append) string) func(m *es.Mem) *faulty {
	return func(m *es.Mem) *faulty {
		var mu sync.Mutex
		var written table[*es.DuplicateError]
		return &faulty{Mem: m, onAppend: func(ctx context.Context, appends []es.Append) (es.Position, error) {
			mu.Lock()
			defer mu.Unlock()
			for _, a := range appends {
				if there, found := written.get(key(a)); found && a.Command != "" {
					return 0, there
				}
			}
			position, err := m.Append(ctx, appends...)
			for _, a := range appends {
				if there := duplicate(m, a); err == nil && a.Command != "" && there != nil {
					written.put(key(a), there)
				}
			}
			return position, err
		}}
	}
}
