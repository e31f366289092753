// Es looks into a store of events, in a SQLite file or a Postgres database, and helps when something is wrong with it:
//
//	es -s bank.db verify                  is all there, in order, and does everything agree with it
//	es -s bank.db streams -k account      which streams there are
//	es -s bank.db read account/ann        the events of one
//	es -s bank.db tail -f                 the last events, and those that come
//	es -s bank.db status                  how projections, reactions and relays stand
//	es -s bank.db park list               what projections have put aside; retry and drop beside it
//	es -s bank.db timers expire           what a reaction will handle when it is due
//	es -s bank.db rebuild balances --yes  has a projection begin again
//	es -s bank.db reconcile               after a restore, which readers know records that the log does not have
//	es -s bank.db forget balances --yes   removes the checkpoints of a projection that is not run any more
//	es schema account/testdata/events.json  JSON Schemas of events, from the file of their test
//	es -s bank.db redact person/ann 3     erases the content of an event and its copies; give --reason and --yes
//
// The verbs that only read open the store for reading: they neither make nor migrate nor change anything.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

// Exit codes, which scripts rely on.
const (
	exitOK     = 0
	exitFailed = 1 // it could not be done
	exitUsage  = 2
	exitDamage = 3 // verify, reconcile or diff has found something
)

type cli struct {
	Store   string        `short:"s" env:"ES_STORE" placeholder:"STORE" help:"A SQLite file, or a postgres:// URL. Can stand in $ES_STORE instead, where a password is better kept."`
	Schema  string        `default:"es" help:"The schema of a Postgres store (es)."`
	JSON    bool          `name:"json" help:"Write one JSON object a line, for programs."`
	Timeout time.Duration `default:"10s" help:"How long to wait for a server that does not answer (10s)."`

	Verify  verify  `cmd:"" help:"Check that nothing is missing, doubled, out of order or at odds with something else. Exit code 3 if something is."`
	Streams streams `cmd:"" help:"List streams with their versions."`
	Read    read    `cmd:"" help:"Show the events of a stream."`
	Tail    tail    `cmd:"" help:"Show the last events of the log."`
	Status  status  `cmd:"" help:"Show how projections, reactions and relays stand."`
	Why     why     `cmd:"" help:"Say why a projection, reaction or relay is behind, and what to do."`
	Park    park    `cmd:"" help:"List, retry and drop the records that projections have put aside."`
	Timers  timers  `cmd:"" help:"List the records that a reaction will handle later, the earliest first."`
	Rebuild rebuild `cmd:"" help:"Have a projection begin again."`
	Forget  forget  `cmd:"" help:"Remove the checkpoints and parked records of a projection that is not run any more."`

	Redact redactEvent `cmd:"" help:"Erase the content of an event, and every copy that the store has of it."`

	Diff     diff     `cmd:"" help:"Compare the read models of two projections at one position. Exit code 3 if they differ."`
	Replay   replay   `cmd:"" help:"Have a projection or reaction handle again what comes after a place."`
	Refilter refilter `cmd:"" help:"Accept a changed filter of a projection or reaction."`
	Rename   rename   `cmd:"" help:"Move a projection or reaction to another name."`

	Schemas schema `cmd:"" name:"schema" help:"Write JSON Schemas, or an AsyncAPI document, of the events in golden files of estest.TestSchemas. It needs no store."`

	Reconcile reconcile `cmd:"" help:"After a restore: compare the log with all that has read it, and say how to bring them together. Exit code 3 if a reader is ahead."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// An exited is what kong panics with in place of ending the process.
type exited int

// run does what the arguments say, and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (code int) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case exited:
			code = int(p)
		default:
			panic(p)
		}
	}()
	var c cli
	parser, err := kong.New(&c,
		kong.Name("es"),
		kong.Description("Look into a store of events.\n\nExit codes: 0 done, 1 failed, 2 wrong usage, 3 verify, reconcile or diff has found something."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { panic(exited(code)) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true}),
	)
	if err != nil {
		panic(err) // the tags above are wrong
	}
	for i, arg := range args {
		name, _, _ := strings.Cut(arg, "=")
		if name == "-json" || name == "-descriptor" || name == "-message" { // as Go's own tools have it
			args[i] = "-" + arg
		}
	}
	parsed, err := parser.Parse(args)
	if err == nil && c.Store == "" && !strings.HasPrefix(parsed.Command(), "schema") {
		err = errors.New("missing flags: --store=STORE")
	}
	if err != nil {
		fmt.Fprintf(stderr, "es: %s; es --help tells what there is\n", redact(err.Error(), c.Store))
		return exitUsage
	}
	s := &session{ctx: ctx, cli: &c, out: newOutput(stdout, c.JSON), stderr: stderr}
	err = errors.Join(parsed.Run(s), s.out.flush())
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errDamage):
		return exitDamage
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		fmt.Fprintln(stderr, "es: interrupted")
	default:
		text := redact(strings.TrimPrefix(err.Error(), "es: "), c.Store)
		for _, store := range c.Reconcile.With {
			text = redact(text, store)
		}
		fmt.Fprintf(stderr, "es: %s\n", text)
	}
	return exitFailed
}

// A session is one run of the program.
type session struct {
	ctx    context.Context // kong gives the verbs one value
	cli    *cli
	out    *output
	stderr io.Writer
}
