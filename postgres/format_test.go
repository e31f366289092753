package postgres_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/thalo-go/es/internal/test/testserver"
)

// The schema is frozen as testdata/schema.golden has it: the release before has statements for it. Expansions may add tables and functions,
// and columns with a default, which the statements of the release before do not name.
func TestTheSchemaOnlyExpands(t *testing.T) {
	golden, err := os.ReadFile("testdata/schema.golden")
	if err != nil {
		t.Fatal(err)
	}
	frozen := strings.Split(strings.TrimSpace(string(golden)), "\n")
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		open(t, url)
		have := strings.Split(scalar[string](t, url, `select string_agg(line, e'\n' order by line collate "C") from (
			select c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) ||
				case when a.attnotnull and not a.atthasdef and a.attidentity = '' then ' required' else '' end as line
			from pg_class c join pg_attribute a on a.attrelid = c.oid
			where c.relnamespace = 'es'::regnamespace and c.relkind in ('r', 'v') and a.attnum > 0 and not a.attisdropped
			union all
			select x.relname || ' is an index of ' || c.relname || ' ' || pg_get_indexdef(i.indexrelid, 0, true)
			from pg_index i join pg_class x on x.oid = i.indexrelid join pg_class c on c.oid = i.indrelid
			where c.relnamespace = 'es'::regnamespace and i.indisunique
			union all
			select p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ') ' || pg_get_function_result(p.oid)
			from pg_proc p where p.pronamespace = 'es'::regnamespace and p.prokind = 'f') x`), "\n")
		for _, line := range frozen {
			if !slices.Contains(have, line) {
				t.Errorf("the schema has no %q any more", line)
			}
		}
		for _, line := range have {
			table, _, isColumn := strings.Cut(line, ".")
			old := isColumn && slices.ContainsFunc(frozen, func(c string) bool { return strings.HasPrefix(c, table+".") })
			if old && !slices.Contains(frozen, line) && strings.HasSuffix(line, " required") {
				t.Errorf("%q has no default, so the statements of the release before fail", line)
			}
		}
		if t.Failed() {
			t.Logf("the schema has:\n%s", strings.Join(have, "\n"))
		}
	})
}
