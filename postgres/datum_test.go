package postgres_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/datum"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

// Appends that share a transaction must not fail because of what one of them appends.
func TestOneCallersBadDatumFailsOnlyItsCall(t *testing.T) {
	t.Parallel()
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		nothing := postgres.Projection{Name: "nothing", Handle: func(context.Context, pgx.Tx, []es.Record) error { return nil }}
		datum.Run(t, datum.Backend{
			Rules: map[string]string{
				"a constraint": "alter table es.events add constraint small check (octet_length(data) < 100)",
				"a data error": `create function public.small() returns trigger language plpgsql as $$ begin
					perform 1 / (octet_length(new.data) / 100 - 1); return new; end $$;
					create trigger small before insert on es.events for each row execute function public.small()`,
				"an error of a trigger": `create function public.small() returns trigger language plpgsql as $$ begin
					if octet_length(new.data) >= 100 then raise exception 'large'; end if; return new; end $$;
					create trigger small before insert on es.events for each row execute function public.small()`,
			},
			Open: func(t *testing.T, rule string, inline bool) datum.Store {
				var c postgres.Config
				if inline {
					c.Inline = []postgres.Projection{nothing}
				}
				url := server.Database(t)
				s := openWith(t, c, url)
				run(t, url, rule)
				return s
			},
			Within: func(t *testing.T, s datum.Store, bad es.Append) error {
				tx, err := s.(*postgres.Store).Pool().Begin(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				_, failed := s.(*postgres.Store).In(tx).Append(t.Context(), bad)
				if err := tx.Rollback(t.Context()); err != nil {
					t.Error(err)
				}
				return failed
			},
		})
	})
}
