package chaos

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
)

// judge collects and checks the evidence, and reports the violations.
func (r *run) judge() {
	r.t.Helper()
	evidence := r.collect()
	violations, counts, err := Check(evidence)
	r.must("read the evidence", err)
	r.violations = append(r.violations, violations...)
	summary := r.summary(counts)
	r.must("write the summary", os.WriteFile(filepath.Join(r.folder, "summary.txt"), []byte(summary+"\n"+r.details()), 0o600))
	r.t.Logf("chaos:\n%s", summary)
	for _, what := range tooLittle(r.happened(counts)) {
		r.t.Errorf("the run is not significant: %s", what)
	}
	if len(r.violations) == 0 {
		return
	}
	r.dump(evidence)
	const most = 30
	for i, v := range r.violations {
		if i == most {
			r.t.Errorf("and %d more", len(r.violations)-most)
			break
		}
		r.t.Error(v)
	}
}

func (r *run) collect() Evidence {
	store := r.open()
	defer func() { r.must("close the store", store.Close()) }()
	e := Evidence{History: readHistories(r.folder), Funds: accountsOfBank * endowment}
	for record, err := range store.All(r.t.Context(), 0, es.Filter{}) {
		r.must("read the log", err)
		e.Log = append(e.Log, record)
	}
	balances, statement, bonus, err := projected(e.Log)
	r.must("fold the log", err)
	balances.Rows, statement.Rows = r.rows(selectBalances), r.rows(selectStatement)
	e.Models = append(append(e.Models, balances, statement, bonus), reminders(e.Log)...)
	if r.prefix != "" {
		ctx, cancel := context.WithTimeout(r.t.Context(), r.patience())
		defer cancel()
		if e.Published, err = readTopics(ctx, r.bootstrap, topicsOf(r.prefix)); err != nil {
			r.violations = append(r.violations, Violation{guaranteeTopics, err.Error()})
		}
		e.Relayed, e.Store = true, store.ID()
		ledger, fed := published("the consumers' ledger", e.Log), published("the model built from topics", e.Log)
		ledger.Rows, fed.Rows = r.rows(selectLedger), r.fedRows()
		e.Models = append(e.Models, ledger, fed)
	}
	return e
}

// rows reads a read model of two columns, a key and a value.
func (r *run) rows(sql string) map[string]string {
	model := make(map[string]string)
	r.must("read a read model", r.query(func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, modelled(sql, r.schema))
		if err != nil {
			return err
		}
		var key, value string
		_, err = pgx.ForEachRow(rows, []any{&key, &value}, func() error { model[key] = value; return nil })
		return err
	}))
	return model
}

// dump writes the evidence that is not in files yet.
func (r *run) dump(e Evidence) {
	write := func(name string, each func(*json.Encoder) error) {
		file, err := os.Create(filepath.Join(r.folder, name))
		r.must("keep the evidence", err)
		defer file.Close()
		r.must("keep the evidence", each(json.NewEncoder(file)))
	}
	write("log.jsonl", func(to *json.Encoder) error {
		for _, record := range e.Log {
			line := struct {
				Position es.Position
				ID       string
				Time     time.Time
				Content  string
				Meta     map[string]string
			}{record.Position, record.ID(), record.Time, content(record), record.Meta}
			if err := to.Encode(line); err != nil {
				return err
			}
		}
		return nil
	})
	write("models.json", func(to *json.Encoder) error { return to.Encode(e.Models) })
	write("topics.jsonl", func(to *json.Encoder) error {
		for _, p := range e.Published {
			if err := to.Encode(p); err != nil {
				return err
			}
		}
		return nil
	})
	write("violations.json", func(to *json.Encoder) error { return to.Encode(r.violations) })
	if r.server != nil {
		r.must("keep the evidence", os.WriteFile(filepath.Join(r.folder, "postgres.log"), []byte(r.server.Log()), 0o600))
	}
	if r.kafka != nil {
		r.keepKafkaLogs(func(name, text string) {
			r.must("keep the evidence", os.WriteFile(filepath.Join(r.folder, name), []byte(text), 0o600))
		})
	}
}
