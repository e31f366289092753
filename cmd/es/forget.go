package main

import "fmt"

type forget struct {
	Projection string `arg:"" help:"The projection or reaction, as es status names it: balances, or balances@2."`
	Yes        bool   `help:"Confirm: its checkpoints and parked records are removed, and a new run begins from the beginning."`
}

// forgottenObject is the JSON of a projection that was removed.
type forgottenObject struct {
	Projection string `json:"name"`
	Version    int    `json:"version"`
	Forgotten  bool   `json:"forgotten"`
}

// Run is called by kong.
func (v *forget) Run(s *session) error {
	name, version := parseProjection(v.Projection)
	if !v.Yes {
		return fmt.Errorf("forget removes the checkpoints and parked records of %s, but not its tables: confirm with --yes", printable(v.Projection))
	}
	return s.write(func(db database) error {
		if err := db.Forget(s.ctx, name, version); err != nil {
			return err
		}
		if s.out.json {
			return s.out.object(forgottenObject{name, version, true})
		}
		s.out.line("%s: forgotten. Drop its tables if no other version uses them.", printable(projectionName(name, version)))
		return nil
	})
}
