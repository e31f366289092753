package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/loans/application"
	"github.com/thalo-go/es/projection"
)

// tables are those of the read model. The times are milliseconds.
const tables = `drop table if exists applications;
	drop table if exists reached;
	create table applications (id text primary key, amount bigint not null);
	create table reached (application text not null, stage text not null, at bigint not null, primary key (application, stage))`

// funnelModel returns the read model of the funnel: which application has reached which stage, and when. It is queried with SQL.
func funnelModel() projection.SQLProjection {
	return projection.SQLProjection{
		Name:   "funnel",
		Filter: es.Filter{Kinds: []string{kind}, Types: []string{"submitted", "moved"}},
		Prepare: func(ctx context.Context, tx projection.SQL) error {
			_, err := tx.Exec(ctx, tables)
			return err
		},
		Handle: func(ctx context.Context, tx projection.SQL, records []es.Record) error {
			var applications, reached [][]any
			for _, r := range records {
				event, err := application.Codec.Decode(r)
				if err != nil {
					return err
				}
				stage := application.StageSubmitted
				switch e := event.(type) {
				case application.Submitted:
					applications = append(applications, []any{r.Stream.ID, e.Amount})
				case application.Moved:
					stage = e.To
				}
				reached = append(reached, []any{r.Stream.ID, stage, event.Logged().At.UnixMilli()})
			}
			err := insert(ctx, tx, "applications (id, amount)", applications)
			if err == nil {
				err = insert(ctx, tx, "reached (application, stage, at)", reached)
			}
			return err
		},
	}
}

// insert inserts rows, up to 200 with each statement. Rows that exist stay, so each stage has the time at which it was first reached.
func insert(ctx context.Context, tx projection.SQL, into string, rows [][]any) error {
	const most = 200
	for len(rows) > 0 {
		n := min(most, len(rows))
		values, args := make([]string, n), []any(nil)
		for i, row := range rows[:n] {
			marks := make([]string, len(row))
			for j, v := range row {
				args = append(args, v)
				marks[j] = fmt.Sprintf("$%d", len(args))
			}
			values[i] = "(" + strings.Join(marks, ", ") + ")"
		}
		if _, err := tx.Exec(ctx, "insert into "+into+" values "+strings.Join(values, ", ")+" on conflict do nothing", args...); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// bands are ranges of the requested amount, in euros.
var bands = []string{"below 5,000", "5,000 to 9,999", "10,000 to 19,999", "20,000 and more"}

const band = "case when a.amount < 5000 then 0 when a.amount < 10000 then 1 when a.amount < 20000 then 2 else 3 end"

const (
	countStages = `select r.stage, ` + band + `, count(*) from reached r join applications a on a.id = r.application group by 1, 2`

	// Returns the 50th and the 90th percentile of the times. SQLite has no percentile_disc, so window functions compute it.
	timeSteps = `select f, t, band, max(n), max(case when i = (n * 50 + 99) / 100 then took end), max(case when i = (n * 90 + 99) / 100 then took end) from (
		select f.stage as f, t.stage as t, ` + band + ` as band, t.at - f.at as took,
			row_number() over (partition by f.stage, t.stage, ` + band + ` order by t.at - f.at) as i,
			count(*) over (partition by f.stage, t.stage, ` + band + `) as n
		from reached f join reached t on t.application = f.application join applications a on a.id = f.application
		where (f.stage = 'A_SUBMITTED' and t.stage in ('A_PREACCEPTED', 'A_DECLINED', 'A_CANCELLED')) or (f.stage = 'A_PREACCEPTED' and t.stage = 'A_ACCEPTED')
			or (f.stage = 'A_ACCEPTED' and t.stage = 'A_FINALIZED') or (f.stage = 'A_FINALIZED' and t.stage = 'A_APPROVED')) as x
		group by f, t, band`
)

// step is a pair of stages.
type step struct{ from, to application.Stage }

var steps = []step{
	{application.StageSubmitted, application.StagePreaccepted}, {application.StagePreaccepted, application.StageAccepted},
	{application.StageAccepted, application.StageFinalized}, {application.StageFinalized, application.StageApproved},
	{application.StageSubmitted, application.StageDeclined}, {application.StageSubmitted, application.StageCancelled},
}

// wait is the time that a step took.
type wait struct {
	count       int
	median, p90 float64 // days
}

// funnel holds how many applications reached each stage, and how long each step took, by band.
type funnel struct {
	reached map[application.Stage][]int
	waits   map[step][]wait
}

func (f *funnel) count(s application.Stage) (n int) {
	for _, k := range f.reached[s] {
		n += k
	}
	return n
}

// buildFunnel brings the read model up to date with a source, which is nil for the store itself.
func buildFunnel(ctx context.Context, store projection.Database, source projection.Source, onProgress func(projection.Progress)) error {
	m := funnelModel()
	m.Source, m.OnProgress, m.Once = source, onProgress, true
	m.Lease = 2 * time.Second // short, because the example is often interrupted and started again
	return store.Project(ctx, m)
}

// queryFunnel queries the read model.
func queryFunnel(ctx context.Context, db projection.Querier) (*funnel, error) {
	f := &funnel{reached: make(map[application.Stage][]int), waits: make(map[step][]wait)}
	for row, err := range db.Query(ctx, countStages) {
		var s application.Stage
		var b, n int
		if err == nil {
			err = row.Scan(&s, &b, &n)
		}
		if err != nil {
			return nil, err
		}
		if f.reached[s] == nil {
			f.reached[s] = make([]int, len(bands))
		}
		f.reached[s][b] = n
	}
	const day = 24 * 60 * 60 * 1000
	for row, err := range db.Query(ctx, timeSteps) {
		var s step
		var b, n int
		var median, p90 int64
		if err == nil {
			err = row.Scan(&s.from, &s.to, &b, &n, &median, &p90)
		}
		if err != nil {
			return nil, err
		}
		if f.waits[s] == nil {
			f.waits[s] = make([]wait, len(bands))
		}
		f.waits[s][b] = wait{n, float64(median) / day, float64(p90) / day}
	}
	return f, nil
}

// funnelStages are the stages in the order of the table and the chart.
var funnelStages = []application.Stage{
	application.StageSubmitted, application.StagePreaccepted, application.StageAccepted, application.StageFinalized, application.StageApproved,
	application.StageDeclined, application.StageCancelled,
}

func (r *report) funnel(f *funnel) {
	r.printf("\nApplications by stage and requested amount in euros:\n\n  %-32s", "")
	for _, b := range bands {
		r.printf(" %17s", b)
	}
	r.printf(" %9s\n", "all")
	for _, s := range funnelStages {
		r.printf("  %-32s", s)
		for b := range bands {
			n := 0
			if f.reached[s] != nil {
				n = f.reached[s][b]
			}
			r.printf(" %17s", orDot(n))
		}
		r.printf(" %9s\n", orDot(f.count(s)))
	}
	r.printf("\nDays between stages, median / 90th percentile:\n\n")
	for _, s := range steps {
		r.printf("  %-32s", strings.TrimPrefix(string(s.from), "A_")+" to "+strings.TrimPrefix(string(s.to), "A_"))
		for b := range bands {
			text := "."
			if w := f.waits[s]; w != nil && w[b].count > 0 {
				text = fmt.Sprintf("%.1f / %.1f", w[b].median, w[b].p90)
			}
			r.printf(" %17s", text)
		}
		r.printf("\n")
	}
}
