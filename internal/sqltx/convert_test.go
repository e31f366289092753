package sqltx_test

import (
	"context"
	"log/slog"
	"reflect"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/sqltx"
	"github.com/thalo-go/es/projection"
)

// A field that a release adds to Projection must not be lost.
func TestConvertKeepsEveryField(t *testing.T) {
	p := projection.SQLProjection{
		Name: "a", Version: 1, Source: projection.FromLog(new(es.Mem)), Filter: es.Filter{Kinds: []string{"a"}}, Partitions: 2, OnError: es.Park,
		Retries: 3, Batch: 4, Lease: time.Second, Once: true, Logger: slog.Default(),
		OnProgress: func(projection.Progress) {}, OnCaughtUp: func(context.Context) error { return nil },
		Prepare: func(context.Context, projection.SQL) error { return nil },
		Handle:  func(context.Context, projection.SQL, []es.Record) error { return nil },
	}
	from, to := reflect.ValueOf(p), reflect.ValueOf(sqltx.Convert(p, func(int) *sqltx.Tx { return nil }))
	if from.NumField() != to.NumField() {
		t.Fatalf("got %d fields, want %d", to.NumField(), from.NumField())
	}
	for i := range from.NumField() {
		name := from.Type().Field(i).Name
		switch {
		case from.Field(i).IsZero():
			t.Errorf("%s has no value in this test: give it one", name)
		case to.Field(i).IsZero():
			t.Errorf("%s is lost", name)
		case from.Field(i).Kind() != reflect.Func && !reflect.DeepEqual(from.Field(i).Interface(), to.Field(i).Interface()):
			t.Errorf("%s is %v, want %v", name, to.Field(i), from.Field(i))
		}
	}
	empty := sqltx.Convert(projection.SQLProjection{}, func(int) *sqltx.Tx { return nil })
	if empty.Handle != nil || empty.Prepare != nil {
		t.Error("a projection without functions has got some, so that the store does not refuse it")
	}
}
