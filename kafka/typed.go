package kafka

import (
	"context"

	"github.com/thalo-go/es"
)

// Typed returns a handler that decodes each record by a codec and skips retired events. A record that the codec does not
// know or cannot decode fails; exclude unwanted records by [Consumer.Filter].
func Typed[E any](codec *es.Codec[E], handle func(ctx context.Context, r es.Record, event E) error) func(ctx context.Context, r es.Record) error {
	return func(ctx context.Context, r es.Record) error {
		event, err := codec.Decode(r)
		if err == es.ErrRetired { //nolint:errorlint // a Codec returns it unwrapped
			return nil
		}
		if err != nil {
			return err
		}
		return handle(ctx, r, event)
	}
}
