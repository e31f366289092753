package projection

import (
	"context"
	"errors"

	"github.com/thalo-go/es"
)

// Each returns a [Projection.Handle] that decodes each record with the codec and calls handle with the event.
// Retired and redacted events, and other records of the store itself, are skipped. An event that the codec does not know waits for a
// worker that knows it; see [Projection.OnError]. An event that it cannot decode is an error of its record.
func Each[Tx, E any](codec *es.Codec[E], handle func(ctx context.Context, tx Tx, r es.Record, event E) error) func(ctx context.Context, tx Tx, records []es.Record) error {
	return func(ctx context.Context, tx Tx, records []es.Record) error {
		for _, r := range records {
			event, skip, err := decode(codec, r)
			if err != nil {
				return err
			}
			if skip {
				continue
			}
			if err := handle(ctx, tx, r, event); err != nil {
				return err
			}
		}
		return nil
	}
}

// Typed is like [Each] for [Reaction.Handle] and for the handler of a kafka.Consumer, which get one record at a time.
func Typed[E any](codec *es.Codec[E], handle func(ctx context.Context, r es.Record, event E) error) func(ctx context.Context, r es.Record) error {
	return func(ctx context.Context, r es.Record) error {
		event, skip, err := decode(codec, r)
		if err != nil || skip {
			return err
		}
		return handle(ctx, r, event)
	}
}

// decode returns the event of a record, or that it is to be skipped.
func decode[E any](codec *es.Codec[E], r es.Record) (event E, skip bool, err error) {
	event, err = codec.Decode(r)
	if err != nil && errors.Is(err, es.ErrRetired) {
		return event, true, nil
	}
	return event, false, err
}
