// Package sealed encrypts personal values in events under a key of their subject, such as one person. Destroying the key erases the values
// wherever they are: in the log, snapshots, caches, parked records, topics, read models that keep them sealed, and backups of all of these.
//
// Seal a value before it goes into a command, so that rules, events and states have the sealed [Value], and open it where it is shown:
//
//	email, err := sealed.Seal(ctx, keys, "user/42", "ann@example.com")
//	_, err = users.Execute(ctx, "42", Register{email})
//	...
//	text, err := state.Email.Open(ctx, keys) // ErrErased after keys.Erase(ctx, "user/42")
//
// Values are encrypted with AES-256-GCM and a random nonce. Subject and key are authenticated with them, so a value cannot be moved to another
// subject. Who sees it learns its subject and its length. Equal values are sealed differently: compare them after opening, and put
// nothing personal into ids, tags and subjects.
//
// To erase, record it in the log first, and then destroy the key: append an event to the subject's stream, and let a reaction to it call
// [Keys].Erase. So the log knows what was erased, also if the database of the keys is restored from an older backup. [Enforce] compares the two.
package sealed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"

	"github.com/thalo-go/es"
)

// Errors to match with errors.Is.
var (
	// ErrErased indicates that the key of the subject was destroyed. Its values cannot be opened any more, and none can be sealed.
	ErrErased = errors.New("erased")

	// ErrUnknownKey indicates a value whose key the database does not have, although its subject was not erased: it belongs to other keys,
	// or the database was restored from a backup that is older than the key.
	ErrUnknownKey = errors.New("unknown key")

	// ErrDamaged indicates a value that was changed after it was sealed, or that was moved to another subject or key.
	ErrDamaged = errors.New("damaged, or of another subject or key")
)

// Value is a T that can only be read with the key of its subject. Commands, events and states carry it. It is comparable, and JSON stores it
// as an object with three strings. The zero Value has nothing in it and cannot be opened.
type Value[T any] struct {
	Subject string `json:"subject"` // whose value it is, such as user/42
	Key     string `json:"key"`     // the id of the key
	Box     string `json:"box"`     // the encrypted JSON of the value
}

// Seal encrypts a value under the key of a subject, which is made if there is none. T must survive a JSON round trip.
// It returns an error that wraps [ErrErased] if the subject was erased.
func Seal[T any](ctx context.Context, keys Keys, subject string, value T) (Value[T], error) {
	var v Value[T]
	if err := checkSubject(subject); err != nil {
		return v, err
	}
	plain, err := json.Marshal(value)
	if err != nil {
		return v, fmt.Errorf("sealed: encode a value of %s: %w: %w", subject, es.ErrInvalid, err)
	}
	key, box, err := keys.Seal(ctx, subject, plain)
	if err != nil {
		return v, fmt.Errorf("sealed: seal a value of %s: %w", subject, err)
	}
	return Value[T]{Subject: subject, Key: key, Box: box}, nil
}

// Open decrypts the value. It returns an error that wraps [ErrErased], [ErrUnknownKey], [ErrDamaged], or [es.ErrUnavailable] if the keys
// cannot be reached.
func (v Value[T]) Open(ctx context.Context, keys Keys) (value T, err error) {
	if v == (Value[T]{}) {
		return value, fmt.Errorf("sealed: open: %w: the value is empty: ask IsZero first, if it is optional", es.ErrInvalid)
	}
	plain, err := keys.Open(ctx, v.Subject, v.Key, v.Box)
	if err != nil {
		return value, fmt.Errorf("sealed: open a value of %s: %w", v.Subject, err)
	}
	if err := json.Unmarshal(plain, &value); err != nil {
		var none T
		return none, fmt.Errorf("sealed: decode a value of %s: %w: it is not a %T", v.Subject, es.ErrInvalid, value) // the cause may quote it
	}
	return value, nil
}

// IsZero reports whether the value has nothing in it. A JSON field with the option omitzero leaves it out then.
func (v Value[T]) IsZero() bool { return v == Value[T]{} }

// Keys hold one key for each subject. [SQLKeys] returns some; those of a KMS implement it. All methods may be called concurrently.
//
// Implementations must bind a box to its subject and key, as additional authenticated data, and return errors that wrap those of this
// package. After Erase has returned, Open and Seal must return [ErrErased] in every process, without a cache that does not know of it.
type Keys interface {
	// Seal encrypts under the key of a subject, which it makes if the subject has none and was not erased. It returns the id of the key
	// and the encrypted text.
	Seal(ctx context.Context, subject string, plain []byte) (key, box string, err error)

	// Open decrypts what Seal returned.
	Open(ctx context.Context, subject, key, box string) ([]byte, error)

	// Erase destroys the key of a subject for good. First it makes sure that no new one is made. It may be repeated, and be called for
	// a subject without a key.
	Erase(ctx context.Context, subject string) error
}

// Enforce erases every subject of a sequence, and returns those that were not erased. Call it when the program starts, with the subjects that
// the log says were erased:
//
//	back, err := sealed.Enforce(ctx, keys, erased)
//
// A subject that it returns has a key again, because the keys were restored from a backup that is older than the erasure, or its erasure was
// interrupted. It is erased now; find out what was opened in the meantime.
func Enforce(ctx context.Context, keys Keys, erased iter.Seq2[string, error]) (back []string, err error) {
	for subject, err := range erased {
		if err != nil {
			return back, fmt.Errorf("sealed: enforce erasures: %w", err)
		}
		switch _, _, err := keys.Seal(ctx, subject, nil); {
		case errors.Is(err, ErrErased):
			continue
		case err != nil:
			return back, fmt.Errorf("sealed: enforce the erasure of %s: %w", subject, err)
		}
		if err := keys.Erase(ctx, subject); err != nil {
			return back, fmt.Errorf("sealed: enforce the erasure of %s: %w", subject, err)
		}
		back = append(back, subject)
	}
	return back, nil
}

// checkSubject limits subjects as ids of streams are.
func checkSubject(subject string) error {
	if err := (es.Stream{Kind: "subject", ID: subject}).Check(); err != nil {
		return fmt.Errorf("sealed: subject: %w", err)
	}
	return nil
}
