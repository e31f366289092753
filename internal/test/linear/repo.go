package linear

import (
	"context"
	"errors"

	"github.com/thalo-go/es"
)

// Make makes a call on a Repo. It returns false if the call failed with an error that guarantees that it had no effect.
func Make[S, C, E any](ctx context.Context, repo *es.Repo[S, C, E], call Call[C]) (Answer, bool) {
	if call.Command == nil {
		at, err := repo.Load(ctx, call.ID)
		s, v := at.State, at.Version
		return Answer{State: Print(s), Version: v}, err == nil
	}
	var options []es.ExecuteOption
	if call.CommandID != "" {
		options = append(options, es.CommandID(call.CommandID))
	}
	if call.Expected != nil {
		options = append(options, es.ExpectVersion(*call.Expected))
	}
	result, err := repo.Execute(ctx, call.ID, *call.Command, options...)
	conflict := (*es.ConflictError)(nil)
	switch {
	case err == nil:
		return Answer{State: Print(result.State), Version: result.Version, Events: len(result.Events)}, true
	case errors.Is(err, es.ErrUnknownOutcome):
		return Answer{Unknown: true}, true
	case call.Expected != nil && errors.As(err, &conflict):
		return Answer{Refused: "conflict"}, true
	case Refusal(err) != "":
		return Answer{Refused: Refusal(err)}, true
	}
	return Answer{}, false
}

// Refusal returns the code of a refusal by the rules, or "".
func Refusal(err error) string {
	if invariant := (*es.InvariantError)(nil); errors.As(err, &invariant) {
		return invariant.Code
	}
	return ""
}
