package commit_test

import (
	"errors"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/commit"
)

func TestCheckTagsAdded(t *testing.T) {
	for _, test := range []struct {
		pending, kinds []string
		refused        bool
	}{
		{nil, nil, false},
		{[]string{"a"}, nil, true},
		{[]string{"a", "b"}, []string{"c", "b"}, true},
		{[]string{"a", "b"}, []string{"c"}, false},
	} {
		err := commit.CheckTagsAdded(test.pending, es.Filter{Kinds: test.kinds, Tags: []string{"t"}})
		if errors.Is(err, es.ErrUnavailable) != test.refused {
			t.Errorf("kinds %q while %q have no tags yet: %v; want it refused: %t", test.kinds, test.pending, err, test.refused)
		}
	}
}
