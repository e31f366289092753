package commit_test

import (
	"errors"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/commit"
)

func TestABackendWithoutTagsRefusesThem(t *testing.T) {
	tagged := []es.Append{{}, {Events: []es.Record{{Type: "e"}, {Type: "e", Tags: []string{"t"}}}}}
	unless := []es.Append{{}, {Unless: es.Condition{Match: []es.Filter{{Tags: []string{"t"}}}}}}
	for what, err := range map[string]error{
		"tags":        commit.CheckUntagged(tagged),
		"a condition": commit.CheckUntagged(unless),
		"a filter":    commit.CheckUntaggedFilter(es.Filter{Tags: []string{"t"}}),
	} {
		if !errors.Is(err, es.ErrInvalid) {
			t.Errorf("%s: %v; want it refused", what, err)
		}
	}
	if err := commit.CheckUntagged([]es.Append{{Events: []es.Record{{Type: "e"}}}}); err != nil {
		t.Errorf("an append without tags: %v", err)
	}
}
