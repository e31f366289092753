package sqlite_test

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// The schema is frozen as testdata/schema.golden has it: the release before has statements for it. Expansions may add tables, and columns
// with a default, which the statements of the release before do not name.
func TestTheSchemaOnlyExpands(t *testing.T) {
	path := file(t)
	open(t, path)
	rows, err := connect(t, path).QueryContext(t.Context(), `select m.name || '.' || c.name || ' ' || c.type || case when c.pk > 0 and c.dflt_value is null then ' key' when c."notnull" and c.dflt_value is null then ' required' else '' end
		from sqlite_master m join pragma_table_info(m.name) c where m.type = 'table' order by m.name, c.cid`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var columns []string
	for rows.Next() {
		var column string
		if err := rows.Scan(&column); err != nil {
			t.Fatal(err)
		}
		columns = append(columns, column)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	golden, err := os.ReadFile("testdata/schema.golden")
	if err != nil {
		t.Fatal(err)
	}
	frozen := strings.Split(strings.TrimSpace(string(golden)), "\n")
	for _, column := range frozen {
		if !slices.Contains(columns, column) {
			t.Errorf("the schema has no %q any more", column)
		}
	}
	for _, column := range columns {
		table, _, _ := strings.Cut(column, ".")
		old := slices.ContainsFunc(frozen, func(c string) bool { return strings.HasPrefix(c, table+".") })
		if old && !slices.Contains(frozen, column) && (strings.HasSuffix(column, " required") || strings.HasSuffix(column, " key")) {
			t.Errorf("%q has no default, so the statements of the release before fail", column)
		}
	}
	if t.Failed() {
		t.Logf("the schema has:\n%s", strings.Join(columns, "\n"))
	}
}
