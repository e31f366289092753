package chaos

import (
	"context"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// sqlFaults returns the faults that a client of the server injects. They need a server that answers.
func sqlFaults() []fault {
	backends := func(*run) string { return "connections" }
	leases := func(*run) string { return "leases" }
	end := func(f string) func(r *run, about string) strike {
		return func(r *run, _ string) strike {
			share := 0.1 + 0.9*r.random.Float64()
			return r.sql(fmt.Sprintf("select %s(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and query ~ $1 and random() < $2", f), r.schema, share)
		}
	}
	update := func(table, what string) func(r *run, about string) strike {
		return func(r *run, _ string) strike { return r.sql("update " + r.table(table) + " set " + what) }
	}
	return []fault{
		{"end connections", kindSQL, 4, backends, end("pg_terminate_backend")},
		{"cancel queries", kindSQL, 2, backends, end("pg_cancel_backend")},
		{"hold the append lock", kindSQL, 2, func(*run) string { return "lock" }, func(r *run, _ string) strike {
			return r.session(r.between(100*time.Millisecond, 2*time.Second), fmt.Sprintf("begin; select pg_advisory_xact_lock(%d)", r.lockKey()))
		}},
		{"keep a transaction open", kindSQL, 2, func(*run) string { return "transaction" }, func(r *run, _ string) strike {
			return r.session(r.between(time.Second, 10*time.Second), "begin isolation level serializable; select count(*) from "+r.table("events")+"; create temporary table t as select 1")
		}},
		{"fill the connection slots", kindSQL, 1, func(*run) string { return "slots" }, fillSlots},
		{"expire workers' claims", kindSQL, 2, leases, update("workers", "expires = expires - 3600000000")},
		{"rebuild a read model", kindSQL, 1, func(*run) string { return "read models" }, func(r *run, _ string) strike {
			name := []string{projectionBalances, projectionStatement}[r.random.IntN(2)]
			return r.sql("update "+r.table("projections")+" set rebuild = true where name = $1", name) // as Rebuild does
		}},
	}
}

// leaseFaults returns the faults of leases, which only relays have.
func leaseFaults() []fault {
	leases := func(*run) string { return "leases" }
	change := func(name string, weight int, what string) fault {
		return fault{name, kindSQL, weight, leases, func(r *run, _ string) strike { return r.sql(fmt.Sprintf(what, r.table("leases"))) }}
	}
	return []fault{
		change("expire leases", 3, "update %s set until = until - interval '1 hour'"),
		change("extend leases", 1, "update %s set until = until + interval '5 seconds'"),
		change("delete leases", 1, "delete from %s"),
	}
}

func (r *run) table(name string) string { return pgx.Identifier{r.schema, name}.Sanitize() }

// lockKey returns the key of the store's advisory lock; see lockKey of package postgres.
func (r *run) lockKey() int64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte("es append " + r.schema)) // a hash has no error
	return int64(h.Sum64())
}

// sql runs a statement, bypassing the proxies. It had an effect if it changed a row. Its own faults can make it fail,
// which is only logged.
func (r *run) sql(text string, args ...any) strike {
	ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Second)
	defer cancel()
	var tag pgconn.CommandTag
	conn, err := pgx.Connect(ctx, r.url)
	if err == nil {
		tag, err = conn.Exec(ctx, text, append([]any{pgx.QueryExecModeExec}, args...)...)
		_ = conn.Close(ctx)
	}
	if err != nil {
		r.say("%.60s: %v", text, err)
	}
	return at(err == nil && tag.RowsAffected() > 0)
}

// session runs statements on a connection that stays open for a while.
func (r *run) session(lasts time.Duration, text string) strike {
	ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, r.url)
	if err == nil {
		_, err = conn.PgConn().Exec(ctx, text).ReadAll()
	}
	if err != nil {
		r.say("%.60s: %v", text, err)
	}
	return strike{hit: err == nil, lasts: lasts, undo: func() {
		if conn != nil {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_ = conn.Close(ctx)
		}
	}}
}

// fillSlots takes all free connections of the server. On an existing server it takes at most 20.
func fillSlots(r *run, _ string) strike {
	ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Second)
	defer cancel()
	most := 200
	if r.server == nil {
		most = 20
	}
	var conns []*pgx.Conn
	for range most {
		conn, err := pgx.Connect(ctx, r.url)
		if err != nil {
			r.say("%d connections were free: %v", len(conns), err)
			break
		}
		conns = append(conns, conn)
	}
	return strike{hit: len(conns) > 0, lasts: r.between(500*time.Millisecond, 3*time.Second), undo: func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		for _, conn := range conns {
			_ = conn.Close(ctx)
		}
	}}
}
