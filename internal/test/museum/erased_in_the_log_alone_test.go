package museum_test

import (
	"context"
	"database/sql"
	"fmt"
	"testing"

	"github.com/thalo-go/es"
	rules "github.com/thalo-go/es/examples/bank/account"
)

// The failure: a person's name is erased from its event with SQL. The snapshot of the stream has it still, the next process reads it
// back, and a process with the state in memory writes it into the next snapshot.
//
// Not here: a redaction removes the snapshot, and is a record of the stream at which every process drops what it knows.
func TestErasedInTheLogAlone(t *testing.T) {
	ours(t, func(t *testing.T, p place) error {
		return nameComesBack(t, p, func(log es.Log) error {
			_, err := log.(interface {
				Redact(ctx context.Context, stream es.Stream, version es.Version, reason string) (es.Redaction, error)
			}).Redact(t.Context(), account("ann"), 1, "request 17")
			return err
		})
	})
	control(t, "an event that is emptied with SQL", func(t *testing.T) error {
		p := onSQLite(t)
		return nameComesBack(t, p, func(es.Log) error {
			db, err := sql.Open("sqlite3", p.path)
			must(t, err)
			defer db.Close()
			for _, statement := range []string{"drop trigger es_events_update", "update es_events set data = cast('{}' as blob) where position = 1"} {
				if _, err := db.ExecContext(t.Context(), statement); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// nameComesBack looks for the owner of an account after it was erased, in a process that had it in memory and in a new one.
func nameComesBack(t *testing.T, p place, erase func(log es.Log) error) error {
	process := func() *es.Repo[rules.Account, rules.Command, rules.Event] {
		log := p.open(t)
		r := es.NewRepo(log, "account", rules.Rules{}, rules.Codec)
		r.Snapshots, r.SnapshotEvery = log.(es.Snapshots), 2
		return r
	}
	writer, cached := process(), process()
	for _, c := range []rules.Command{rules.Open{Owner: "Ann Smith"}, rules.Deposit{Amount: 60}, rules.Withdraw{Amount: 50}} {
		_, err := writer.Execute(t.Context(), "ann", c)
		must(t, err)
	}
	must(t, writer.Close(t.Context())) // saves the snapshot
	_, err := cached.Load(t.Context(), "ann")
	must(t, err)
	must(t, erase(p.open(t)))
	for _, reader := range []struct {
		who  string
		repo *es.Repo[rules.Account, rules.Command, rules.Event]
	}{{"a new process", process()}, {"the process that had it", cached}} {
		at, err := reader.repo.Load(t.Context(), "ann")
		must(t, err)
		must(t, reader.repo.Close(t.Context()))
		if at.State.Owner != "" {
			return fmt.Errorf("%s has the owner %q at version %d", reader.who, at.State.Owner, at.Version)
		}
	}
	return nil
}
