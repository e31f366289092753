package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

// Appends that share a transaction must not fail because of what one of them appends.
func TestOneCallersBadDatumFailsOnlyItsCall(t *testing.T) {
	t.Parallel()
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		nothing := postgres.Projection{Name: "nothing", Handle: func(context.Context, pgx.Tx, []es.Record) error { return nil }}
		for by, inline := range map[string][]postgres.Projection{"": nil, "with an inline projection": {nothing}} {
			for name, rule := range map[string]string{
				"a constraint": "alter table es.events add constraint small check (octet_length(data) < 100)",
				"a data error": `create function public.small() returns trigger language plpgsql as $$ begin
					perform 1 / (octet_length(new.data) / 100 - 1); return new; end $$;
					create trigger small before insert on es.events for each row execute function public.small()`,
				"an error of a trigger": `create function public.small() returns trigger language plpgsql as $$ begin
					if octet_length(new.data) >= 100 then raise exception 'large'; end if; return new; end $$;
					create trigger small before insert on es.events for each row execute function public.small()`,
			} {
				t.Run(strings.TrimSpace(name+" "+by), func(t *testing.T) {
					url := server.Database(t)
					s := openWith(t, postgres.Config{Inline: inline}, url)
					run(t, url, rule)
					bad := es.Append{Stream: account("bad"), Expected: es.AnyVersion, Events: []es.Record{{Type: "t", Data: make([]byte, 100)}}}
					for turn := range es.Version(3) { // by each of the functions
						var calls [][]es.Append
						for i := range 9 {
							calls = append(calls, []es.Append{at(account(fmt.Sprint(i)), turn, 1)})
						}
						calls[4] = []es.Append{bad}
						_, errs := s.WriteTogether(t.Context(), calls...)
						for i, err := range errs {
							if i == 4 && !errors.Is(err, es.ErrInvalid) {
								t.Errorf("the bad call: got %v, want an error that wraps es.ErrInvalid", err)
							}
							if i != 4 && err != nil {
								t.Errorf("call %d: %v", i, err)
							}
						}
					}
					if _, err := s.Append(t.Context(), bad); !errors.Is(err, es.ErrInvalid) {
						t.Errorf("alone: got %v, want an error that wraps es.ErrInvalid", err)
					}
					tx := begin(t, connect(t, url), pgx.ReadCommitted)
					if _, err := s.In(tx).Append(t.Context(), bad); !errors.Is(err, es.ErrInvalid) {
						t.Errorf("in a transaction: got %v, want an error that wraps es.ErrInvalid", err)
					}
					if err := tx.Rollback(t.Context()); err != nil {
						t.Error(err)
					}
					if got := len(dense(t, s)); got != 24 {
						t.Errorf("there are %d records, want 24", got)
					}
				})
			}
		}
	})
}
