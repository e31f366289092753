package chaos

import (
	"context"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/jackc/pgx/v5"
)

// sqlFaults are those that are done by a client of the server's. Their names begin with SQL: they need one that answers.
func sqlFaults() []fault {
	backends := func(*run) string { return "connections" }
	end := func(f string) func(r *run, about string) (func(), time.Duration) {
		return func(r *run, _ string) (func(), time.Duration) {
			share := 0.1 + 0.9*r.random.Float64()
			r.sql(fmt.Sprintf("select %s(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and query ~ $1 and random() < $2", f), r.schema, share)
			return nil, 0
		}
	}
	return []fault{
		{"SQL: end connections", 4, backends, end("pg_terminate_backend")},
		{"SQL: cancel queries", 2, backends, end("pg_cancel_backend")},
		{"SQL: hold the lock of appends", 2, func(*run) string { return "lock" }, func(r *run, _ string) (func(), time.Duration) {
			return r.session(fmt.Sprintf("begin; select pg_advisory_xact_lock(%d)", r.lockKey())), r.between(100*time.Millisecond, 2*time.Second)
		}},
		{"SQL: keep a transaction open", 2, func(*run) string { return "transaction" }, func(r *run, _ string) (func(), time.Duration) {
			return r.session("begin isolation level serializable; select count(*) from " + r.table("events") + "; create temporary table t as select 1"), r.between(time.Second, 10*time.Second)
		}},
		{"SQL: fill the connection slots", 1, func(*run) string { return "slots" }, fillSlots},
		{"SQL: let leases run out", 3, func(*run) string { return "leases" }, func(r *run, _ string) (func(), time.Duration) {
			r.sql("update " + r.table("leases") + " set until = until - interval '1 hour'")
			return nil, 0
		}},
		{"SQL: let leases last", 1, func(*run) string { return "leases" }, func(r *run, _ string) (func(), time.Duration) {
			r.sql("update " + r.table("leases") + " set until = until + interval '5 seconds'")
			return nil, 0
		}},
		{"SQL: let workers' claims run out", 2, func(*run) string { return "leases" }, func(r *run, _ string) (func(), time.Duration) {
			r.sql("update " + r.table("workers") + " set expires = expires - 3600000000")
			return nil, 0
		}},
		{"SQL: have a read model built anew", 1, func(*run) string { return "read models" }, func(r *run, _ string) (func(), time.Duration) {
			name := []string{projectionBalances, projectionStatement}[r.random.IntN(2)]
			r.sql("update "+r.table("projections")+" set rebuild = true where name = $1", name) // as Rebuild does
			return nil, 0
		}},
		{"SQL: take leases away", 1, func(*run) string { return "leases" }, func(r *run, _ string) (func(), time.Duration) {
			r.sql("delete from " + r.table("leases"))
			return nil, 0
		}},
	}
}

func (r *run) table(name string) string { return pgx.Identifier{r.schema, name}.Sanitize() }

// lockKey is the key of the store's advisory lock; see lockKey of package postgres.
func (r *run) lockKey() int64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte("es append " + r.schema)) // a hash has no error
	return int64(h.Sum64())
}

// sql runs a statement past the proxies. The nemesis suffers from itself: what fails is noted and no more.
func (r *run) sql(text string, args ...any) {
	ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, r.url)
	if err == nil {
		_, err = conn.Exec(ctx, text, append([]any{pgx.QueryExecModeExec}, args...)...)
		_ = conn.Close(ctx)
	}
	if err != nil {
		r.say("%.60s: %v", text, err)
	}
}

// session runs statements on a connection that stays until undo.
func (r *run) session(text string) (undo func()) {
	ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, r.url)
	if err == nil {
		_, err = conn.PgConn().Exec(ctx, text).ReadAll()
	}
	if err != nil {
		r.say("%.60s: %v", text, err)
	}
	return func() {
		if conn != nil {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_ = conn.Close(ctx)
		}
	}
}

// fillSlots takes all the connections that the server has left. A server of the user's is left a few.
func fillSlots(r *run, _ string) (func(), time.Duration) {
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
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		for _, conn := range conns {
			_ = conn.Close(ctx)
		}
	}, r.between(500*time.Millisecond, 3*time.Second)
}
