package digest_test

import (
	"testing"

	"github.com/thalo-go/es/internal/digest"
)

// The digests are stored in snapshots of users.
func TestDigestsDoNotChange(t *testing.T) {
	for _, test := range []struct {
		eventType, data string
		want            uint64
	}{
		{"", "", 0xaf63bd4c8601b7df},
		{"deposited", `{"Amount":5}`, 0x52a55bd769817bb},
		{"deposited{", `"Amount":5}`, 0x5b669a1f0db764e5},
	} {
		if got := digest.Of(test.eventType, []byte(test.data)); got != test.want {
			t.Errorf("Of(%q, %q) = %#x, want %#x", test.eventType, test.data, got, test.want)
		}
	}
}
