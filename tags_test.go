package es_test

import (
	"errors"
	"slices"
	"strconv"
	"testing"

	"github.com/thalo-go/es"
)

type enrolled struct{ Course, Student string }

func enrolments() *es.Codec[any] {
	return es.JSON(map[string]any{"enrolled": enrolled{}}).Tag(func(event any) []string {
		e, ok := event.(enrolled)
		if !ok {
			return nil
		}
		return []string{"student:" + e.Student, "course:" + e.Course, "student:" + e.Student}
	})
}

func TestACodecTagsEvents(t *testing.T) {
	want := []string{"course:7", "student:ann"}
	codec := enrolments().
		Upcast("enrolled.v1", es.From(func(old struct{ C int }) any { return enrolled{strconv.Itoa(old.C), "ann"} })).
		Retire("printed")
	r, err := codec.Encode(enrolled{"7", "ann"})
	if err != nil || !slices.Equal(r.Tags, want) {
		t.Errorf("Encode: tags %q, %v; want them sorted and each once: %q", r.Tags, err, want)
	}
	for _, stored := range []es.Record{{Type: r.Type, Data: r.Data}, {Type: "enrolled.v1", Data: []byte(`{"C":7}`)}} {
		if tags, err := codec.Tags(stored); err != nil || !slices.Equal(tags, want) {
			t.Errorf("Tags of %s: %q, %v; want %q", stored.Type, tags, err, want)
		}
	}
	if tags, err := codec.Tags(es.Record{Type: "printed"}); err != nil || tags != nil {
		t.Errorf("Tags of a retired event: %q, %v; want none", tags, err)
	}
	if _, err := codec.Tags(es.Record{Type: "unheard of"}); !errors.As(err, new(*es.UnknownEventError)) {
		t.Errorf("Tags of an unknown event: %v; want an UnknownEventError", err)
	}

	byHand := es.CodecFunc(
		func(e enrolled) (es.Record, error) {
			return es.Record{Type: "e", Tags: []string{"student:" + e.Student}}, nil
		},
		func(es.Record) (enrolled, error) { return enrolled{"7", "ann"}, nil },
	).Tag(func(e enrolled) []string { return []string{"course:" + e.Course} })
	if r, err := byHand.Encode(enrolled{"7", "ann"}); err != nil || !slices.Equal(r.Tags, want) {
		t.Errorf("Encode of a CodecFunc: tags %q, %v; want those of both functions: %q", r.Tags, err, want)
	}
	if tags, err := byHand.Tags(es.Record{Type: "e"}); err != nil || !slices.Equal(tags, want) {
		t.Errorf("Tags of a CodecFunc: %q, %v; want those of both functions: %q", tags, err, want)
	}
}

type enrolling struct{}

func (enrolling) Decide(_ int, e enrolled) ([]any, error) { return []any{e}, nil }
func (enrolling) Evolve(n int, _ any) int                 { return n + 1 }

func TestARepoWritesTheTagsOfTheCodec(t *testing.T) {
	m := new(es.Mem)
	repo := es.NewRepo(m, "enrolment", enrolling{}, enrolments())
	if _, err := repo.Execute(t.Context(), "7", enrolled{"7", "ann"}); err != nil {
		t.Fatal(err)
	}
	found := 0
	for r, err := range m.All(t.Context(), 0, es.Filter{Tags: []string{"student:ann", "course:7"}}) {
		if err != nil || !slices.Equal(r.Tags, []string{"course:7", "student:ann"}) {
			t.Errorf("%s has tags %q, %v", r.ID(), r.Tags, err)
		}
		found++
	}
	if found != 1 {
		t.Errorf("%d records have the tags; want 1", found)
	}
}
