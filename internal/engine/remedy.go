package engine

// remedyError is an error of a handler with its remedy, which [projection.Error] shows in place of the usual one.
type remedyError struct {
	error
	remedy string
}

func (e *remedyError) Error() string { return e.error.Error() + ": " + e.remedy }

func (e *remedyError) Unwrap() error { return e.error }

// Remedy returns what to do about the error.
func (e *remedyError) Remedy() string { return e.remedy }

// remedied adds the remedy to an error of Handle if the read model, or a part of it, does not exist.
func (t *task[Tx]) remedied(err error) error {
	switch {
	case err == nil || !t.engine.ledger.Missing(err):
		return err
	case t.prepare == nil:
		return &remedyError{err, "create it, or give the projection a Prepare that does, and raise Version"}
	}
	return &remedyError{err, "use Rebuild, which calls Prepare, or raise Version"}
}
