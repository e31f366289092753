package projection

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/thalo-go/es"
)

// The statements of Documents. Where arrays are possible, as on Postgres with prepared statements, one text serves any number of
// documents. Elsewhere each document has its own placeholders.

const (
	documentsAtOnce = 1000
	maxPlaceholders = 30_000 // SQLite's limit is 32,766, that of Postgres 65,535
)

// arrays reports whether a transaction takes slices as arrays.
func arrays(tx SQL) bool {
	a, is := tx.(interface{ Arrays() bool })
	return is && a.Arrays()
}

// loading returns the query for documents.
func (d *Documents[S, E]) loading(tx SQL, keys []string) (query string, args []any) {
	query = `select "key", "state", "revision" from ` + d.table + ` where "key" `
	if arrays(tx) {
		return query + "= any($1)", []any{keys}
	}
	args = make([]any, len(keys))
	for i, key := range keys {
		args[i] = key
	}
	return query + "in " + placeholders(0, len(keys), -1), args
}

// placeholders returns ($4, $5) after 3 others. The placeholder at a place is cast to bigint, unless that is negative.
func placeholders(after, n, number int) string {
	b := make([]byte, 0, 8*n+len("cast( as bigint)"))
	b = append(b, '(')
	for i := range n {
		if i > 0 {
			b = append(b, ", "...)
		}
		if i == number {
			b = append(b, "cast("...)
		}
		b = strconv.AppendInt(append(b, '$'), int64(after+i+1), 10)
		if i == number {
			b = append(b, " as bigint)"...)
		}
	}
	return string(append(b, ')'))
}

// write inserts and updates documents. If documents can be deleted, an upsert could bring one back with what it was before.
func (d *Documents[S, E]) write(ctx context.Context, tx SQL, docs []*document[S]) error {
	if d.Delete == nil {
		return d.insert(ctx, tx, docs)
	}
	var added, stored []*document[S]
	for _, doc := range docs {
		if doc.stored {
			stored = append(stored, doc)
		} else {
			added = append(added, doc)
		}
	}
	if err := d.insert(ctx, tx, added); err != nil {
		return err
	}
	return d.update(ctx, tx, stored)
}

// insert inserts documents. It updates those that exist, unless documents can be deleted.
func (d *Documents[S, E]) insert(ctx context.Context, tx SQL, docs []*document[S]) error {
	most := documentsAtOnce
	if !arrays(tx) {
		most = min(most, maxPlaceholders/(3+len(d.columns)))
	}
	for part := range slices.Chunk(docs, most) {
		query, args := d.inserting(arrays(tx), part)
		if err := d.exec(ctx, tx, len(part), query, args); err != nil {
			return err
		}
	}
	return nil
}

// update updates documents that exist.
func (d *Documents[S, E]) update(ctx context.Context, tx SQL, docs []*document[S]) error {
	if len(docs) == 0 {
		return nil
	}
	var b strings.Builder
	if arrays(tx) {
		fmt.Fprintf(&b, `update %s set "state" = v.s, "revision" = v.r`, d.table)
		for i, c := range d.columns {
			fmt.Fprintf(&b, ", %s = v.c%d", quoteName(c.name), i)
		}
		b.WriteString(" from (")
		args := d.selectArrays(&b, docs)
		fmt.Fprintf(&b, `) as v where %s."key" = v.k and %[1]s."revision" = v.r - 1`, d.table)
		return d.exec(ctx, tx, len(docs), b.String(), args)
	}
	fmt.Fprintf(&b, `update %s set "state" = $1, "revision" = $2`, d.table)
	for i, c := range d.columns {
		fmt.Fprintf(&b, ", %s = $%d", quoteName(c.name), i+3)
	}
	last := 2 + len(d.columns)
	fmt.Fprintf(&b, ` where "key" = $%d and "revision" = $%d`, last+1, last+2)
	for _, doc := range docs {
		args := []any{doc.data, doc.revision + 1}
		for _, c := range d.columns {
			args = append(args, c.value(doc.state))
		}
		if err := d.exec(ctx, tx, 1, b.String(), append(args, doc.key, doc.revision)); err != nil {
			return err
		}
	}
	return nil
}

// exec runs a statement that must change a number of documents.
func (d *Documents[S, E]) exec(ctx context.Context, tx SQL, want int, query string, args []any) error {
	n, err := tx.Exec(ctx, query, args...)
	if err == nil && n != int64(want) {
		err = fmt.Errorf("%w: another shard has changed %d of %d documents: the batch is done again", es.ErrUnavailable, int64(want)-n, want)
	}
	return err
}

func (d *Documents[S, E]) inserting(arrays bool, docs []*document[S]) (query string, args []any) {
	var b strings.Builder
	b.WriteString("insert into " + d.table + ` ("key", "state", "revision"`)
	for _, c := range d.columns {
		b.WriteString(", " + quoteName(c.name))
	}
	b.WriteString(") ")
	if arrays {
		args = d.selectArrays(&b, docs)
	} else {
		b.WriteString("values ")
		width := 3 + len(d.columns)
		args = make([]any, 0, width*len(docs))
		for i, doc := range docs {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(placeholders(len(args), width, -1))
			args = append(args, doc.key, doc.data, doc.revision+1)
			for _, c := range d.columns {
				args = append(args, c.value(doc.state))
			}
		}
	}
	if d.Delete != nil {
		b.WriteString(` on conflict ("key") do nothing`)
		return b.String(), args
	}
	b.WriteString(` on conflict ("key") do update set "state" = excluded."state", "revision" = excluded."revision"`)
	for _, c := range d.columns {
		fmt.Fprintf(&b, ", %s = excluded.%[1]s", quoteName(c.name))
	}
	// If another shard has written the row since it was read, no row is changed, which exec finds.
	fmt.Fprintf(&b, ` where %s."revision" = excluded."revision" - 1`, d.table)
	return b.String(), args
}

// selectArrays writes a query that makes rows of arrays.
func (d *Documents[S, E]) selectArrays(b *strings.Builder, docs []*document[S]) []any {
	b.WriteString("select u.k, u.s::json as s, u.r")
	for i := range d.columns {
		fmt.Fprintf(b, ", u.c%d", i)
	}
	b.WriteString(" from unnest($1::text[], $2::text[], $3::bigint[]")
	for i, c := range d.columns {
		fmt.Fprintf(b, ", $%d::%s[]", i+4, c.sqlType)
	}
	b.WriteString(") as u(k, s, r")
	for i := range d.columns {
		fmt.Fprintf(b, ", c%d", i)
	}
	b.WriteString(")")
	keys, states, revisions := make([]string, len(docs)), make([]string, len(docs)), make([]int64, len(docs))
	values := make([][]any, len(d.columns))
	for i := range values {
		values[i] = make([]any, len(docs))
	}
	for i, doc := range docs {
		keys[i], states[i], revisions[i] = doc.key, string(doc.data), doc.revision+1
		for j, c := range d.columns {
			values[j][i] = c.value(doc.state)
		}
	}
	args := []any{keys, states, revisions}
	for _, v := range values {
		args = append(args, v)
	}
	return args
}

// remove deletes documents.
func (d *Documents[S, E]) remove(ctx context.Context, tx SQL, docs []*document[S]) error {
	if len(docs) == 0 {
		return nil
	}
	keys, revisions := make([]string, len(docs)), make([]int64, len(docs))
	for i, doc := range docs {
		keys[i], revisions[i] = doc.key, doc.revision
	}
	if arrays(tx) {
		return d.exec(ctx, tx, len(docs), `delete from `+d.table+` where ("key", "revision") in (select * from unnest($1::text[], $2::bigint[]))`, []any{keys, revisions})
	}
	var b strings.Builder
	b.WriteString(`delete from ` + d.table + ` where ("key", "revision") in (values `)
	args := make([]any, 0, 2*len(docs))
	for i := range docs {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(placeholders(len(args), 2, 1))
		args = append(args, keys[i], revisions[i])
	}
	b.WriteString(")")
	return d.exec(ctx, tx, len(docs), b.String(), args)
}
