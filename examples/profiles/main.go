// Profiles keeps e-mail addresses that can be erased. The events are in one SQLite file, and the keys of the addresses in another.
//
//	export PROFILES_KEY=$(openssl rand -hex 32)
//	go run ./examples/profiles log.db keys.db register ann ann@example.com
//	go run ./examples/profiles log.db keys.db email ann ann@example.org
//	go run ./examples/profiles log.db keys.db show ann
//	go run ./examples/profiles log.db keys.db forget ann
package main

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	_ "github.com/mattn/go-sqlite3" // the driver of the database of the keys

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/profiles/profile"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sealed"
	"github.com/thalo-go/es/sqlite"
)

const keyVariable = "PROFILES_KEY"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var errUsage = errors.New("usage: profiles LOG KEYS COMMAND, with the master key in " + keyVariable + " as 64 hexadecimal digits\ncommands: register ID EMAIL, email ID EMAIL, show ID, forget ID")

// run opens both databases and runs the command.
func run(ctx context.Context, out io.Writer, args []string) (err error) {
	if len(args) < 4 {
		return errUsage
	}
	log, err := sqlite.Open(args[0])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	keys, closeKeys, err := openKeys(ctx, args[1])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeKeys()) }()

	// What the log says was erased is erased, also if the file of the keys is an old copy.
	back, err := sealed.Enforce(ctx, keys, profile.Erased(ctx, log))
	if err != nil {
		return err
	}
	for _, subject := range back {
		fmt.Fprintf(out, "the key of %s was there although it was erased: destroyed again\n", subject)
	}
	profiles := es.NewRepo(log, profile.Kind, profile.Rules{}, profile.Codec)
	profiles.Snapshots = log
	if err := command(ctx, out, profiles, keys, args[2:]); err != nil {
		return err
	}
	return log.React(ctx, Eraser(keys))
}

// openKeys opens the keys in a file.
func openKeys(ctx context.Context, path string) (keys sealed.Keys, closeKeys func() error, err error) {
	master, err := hex.DecodeString(os.Getenv(keyVariable))
	if err != nil || len(master) != 32 {
		return nil, nil, errUsage
	}
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		return nil, nil, err
	}
	if keys, err = sealed.SQLKeys(ctx, db, [32]byte(master)); err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	return keys, db.Close, nil
}

// Eraser returns the reaction that destroys the key of each profile that was forgotten. It is retried until that is done.
func Eraser(keys sealed.Keys) projection.Reaction {
	return projection.Reaction{
		Name:   "erase-profiles",
		From:   projection.Beginning(),
		Filter: es.Filter{Kinds: []string{profile.Kind}, Types: []string{"forgotten"}},
		Once:   true,
		Handle: func(ctx context.Context, r es.Record) error { return keys.Erase(ctx, profile.Subject(r.Stream.ID)) },
	}
}

func command(ctx context.Context, out io.Writer, profiles *es.Repo[profile.Profile, profile.Command, profile.Event], keys sealed.Keys, args []string) error {
	name, id := args[0], args[1]
	var c profile.Command
	switch {
	case name == "show" && len(args) == 2:
		return show(ctx, out, profiles, keys, id)
	case name == "forget" && len(args) == 2:
		c = profile.Forget{}
	case (name == "register" || name == "email") && len(args) == 3:
		email, err := profile.Seal(ctx, keys, id, args[2])
		if err != nil {
			return err
		}
		if name == "register" {
			c = profile.Register{Email: email}
		} else {
			c = profile.ChangeEmail{Email: email}
		}
	default:
		return errUsage
	}
	_, err := profiles.Execute(ctx, id, c)
	return err
}

func show(ctx context.Context, out io.Writer, profiles *es.Repo[profile.Profile, profile.Command, profile.Event], keys sealed.Keys, id string) error {
	p, err := profiles.Load(ctx, id)
	switch {
	case err != nil:
		return err
	case p.State.Forgotten:
		fmt.Fprintln(out, id, "was erased")
		return nil
	case !p.State.Registered:
		fmt.Fprintln(out, id, "is not registered")
		return nil
	}
	email, err := p.State.Email.Open(ctx, keys)
	if errors.Is(err, sealed.ErrErased) { // between Load and now
		fmt.Fprintln(out, id, "was erased")
		return nil
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(out, id, email)
	return nil
}
