package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/bench/baseline"
	"github.com/thalo-go/es/bench/internal/measure"
	"github.com/thalo-go/es/bench/internal/work"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/postgres"
)

// decideWord starts a process that decides on the hot boundary. Arguments: URL, callers, and whether it is the textbook.
const decideWord = "measure-decide"

func tagFigures() []figure {
	return []figure{
		{"pg-tags-128", "appends of one event with two tags by 128 writers, against without tags", atLeast(0.6), rates(pgTags)},
		{
			"pg-dcb-128", "accepted appends with two tags and a condition of two filters by 128 writers, each on tags of its own, against a SERIALIZABLE transaction with a table of tags",
			atLeast(8), rates(pgConditions),
		},
		{
			"pg-dcb-hot", "accepted decisions of 64 deciders on one boundary of two tags, against a SERIALIZABLE transaction with a table of tags",
			atLeast(20), rates(pgHotBoundary),
		},
		{"pg-dcb-hot-16", "the same by 16 processes of four deciders, against the same in the same shape", atLeast(2), pgHotProcesses},
		{
			"pg-dcb-growth", "appends as in pg-dcb-128 whose conditions name a tag of a tenth of all events first, after the head and 10,000 before it, at 10 million events, against at 10 thousand",
			atLeast(0.8), pgConditionsGrowth,
		},
		{
			"sqlite-dcb-128", "accepted appends with two tags and a condition of two filters by 128 writers, each on tags of its own, against one transaction each",
			atLeast(4), rates(sqliteConditions),
		},
		{
			"pg-transact", "transfers by Transact between two of 1,000 accounts by 64 callers, against a transaction with select for update on two rows and the insert of two events",
			atLeast(1.5), rates(pgTransact),
		},
	}
}

func pgTags(ctx context.Context, r *round) (ours, theirs measure.Side, err error) {
	tagged, _, err := r.session.pgStore(ctx, r)
	if err != nil {
		return ours, theirs, err
	}
	plain, _, err := r.session.pgStore(ctx, r) // in another database, so that no event there has tags
	if err != nil {
		return ours, theirs, err
	}
	return work.Tagged("with two tags", tagged, 128, payload), work.Appends("without tags", work.To(plain), 128, 1, payload), nil
}

// pgTagged opens both sides in one database.
func pgTagged(ctx context.Context, r *round) (*postgres.Store, *baseline.Tags, error) {
	store, url, err := r.session.pgStore(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	plain, err := baseline.OpenTags(ctx, url, 32)
	if err == nil {
		r.cleanup(plain.Close)
	}
	return store, plain, err
}

func pgConditions(ctx context.Context, r *round) (ours, theirs measure.Side, err error) {
	store, plain, err := pgTagged(ctx, r)
	if err != nil {
		return ours, theirs, err
	}
	textbook := func(ctx context.Context, _ es.Stream, _ es.Version, query []string, after es.Position, event es.Record) (es.Position, error) {
		return plain.Append(ctx, query, after, event)
	}
	return work.Conditions("Append with a condition", work.Unless(store), 128, payload), work.Conditions("textbook", textbook, 128, payload), nil
}

func pgHotBoundary(ctx context.Context, r *round) (ours, theirs measure.Side, err error) {
	store, plain, err := pgTagged(ctx, r)
	if err != nil {
		return ours, theirs, err
	}
	return work.Bookings(store, 64), work.PlainBookings(plain.Append, 64), nil
}

const hotPool = 4 // connections of each process

// measureDecide is the task of a deciding process.
func measureDecide(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	if len(args) != 3 {
		return fmt.Errorf("usage: %s URL CALLERS TEXTBOOK", decideWord)
	}
	callers, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	if args[2] == "true" {
		plain, err := baseline.OpenTags(ctx, args[0], hotPool)
		if err != nil {
			return err
		}
		defer plain.Close()
		return work.Answer(ctx, work.PlainBookings(plain.Append, callers), in, out)
	}
	separator := "?"
	if strings.Contains(args[0], "?") {
		separator = "&"
	}
	store, err := postgres.Open(ctx, fmt.Sprint(args[0], separator, "pool_max_conns=", hotPool))
	if err != nil {
		return err
	}
	defer store.Close()
	return work.Answer(ctx, work.Bookings(store, callers), in, out)
}

// pgHotProcesses compares 16 processes of each side.
func pgHotProcesses(ctx context.Context, s *session) (outcome, error) {
	const processes, callers = 16, 4
	var pairs measure.Pairs
	err := s.round(func(r *round) error {
		url, err := s.database(ctx, r)
		if err != nil {
			return err
		}
		var sides [2][]*work.Process
		for side := range sides {
			for range processes {
				p, err := work.StartProcess(ctx, decideWord, url, strconv.Itoa(callers), strconv.FormatBool(side == 1))
				if err != nil {
					return err
				}
				r.cleanup(p.Close)
				sides[side] = append(sides[side], p)
			}
		}
		for i := range s.pairs*s.rounds + 1 {
			var samples [2]measure.Sample
			for side := range sides {
				if samples[side], err = work.Together(sides[side], s.turn); err != nil {
					return err
				}
			}
			if i > 0 { // the first run warms up
				pairs.Add(samples[0], samples[1])
			}
		}
		return nil
	})
	if err != nil {
		return outcome{}, err
	}
	return outcome{value: pairs.Ratio(), details: []string{
		fmt.Sprintf("Decisions\t%.0f/s", measure.Together(pairs.A).Rate()), fmt.Sprintf("textbook\t%.0f/s", measure.Together(pairs.B).Rate()),
	}}, nil
}

// pgConditionsGrowth compares a large log with a small one. Filling the large one takes minutes, so there is one round.
func pgConditionsGrowth(ctx context.Context, s *session) (outcome, error) {
	large := s.records
	if large >= long.records {
		large *= 10
	}
	small := min(10_000, large/10)
	all := s.effort
	defer func() { s.effort = all }()
	s.rounds, s.pairs = 1, s.pairs*s.rounds
	return rates(func(ctx context.Context, r *round) (ours, theirs measure.Side, err error) {
		sides := make([]measure.Side, 2)
		for i, records := range []int{large, small} {
			store, _, err := r.session.pgStore(ctx, r)
			if err != nil {
				return ours, theirs, err
			}
			if err := work.FillTagged(ctx, store, records, payload); err != nil {
				return ours, theirs, err
			}
			sides[i] = work.ConditionsOnLog(fmt.Sprint("at ", records, " events"), work.Unless(store), 128, records, payload)
		}
		return sides[0], sides[1], nil
	})(ctx, s)
}

func sqliteConditions(_ context.Context, r *round) (ours, theirs measure.Side, err error) {
	store, err := sqliteStore(r)
	if err != nil {
		return ours, theirs, err
	}
	plain, err := baseline.OpenSQLiteTags(filepath.Join(r.dir, "plain.db"))
	if err != nil {
		return ours, theirs, err
	}
	r.cleanup(plain.Close)
	one := func(_ context.Context, stream es.Stream, version es.Version, query []string, after es.Position, event es.Record) (es.Position, error) {
		return plain.AppendUnless(stream, version, query, after, event)
	}
	return work.Conditions("Append with a condition", work.Unless(store), 128, payload), work.Conditions("one transaction each", one, 128, payload), nil
}

func pgTransact(ctx context.Context, r *round) (ours, theirs measure.Side, err error) {
	const callers, accounts, balance, amount = 64, 1_000, 1_000_000_00, 1
	store, plain, err := pgBoth(ctx, r)
	if err != nil {
		return ours, theirs, err
	}
	repo := work.NewRepo(store)
	repo.Retries = 1_000
	if err := work.OpenAccounts(ctx, repo, accounts, balance); err != nil {
		return ours, theirs, err
	}
	ids := make([]string, accounts)
	for n := range ids {
		ids[n] = work.AccountID(n)
	}
	if err := plain.OpenBalances(ctx, ids, balance); err != nil {
		return ours, theirs, err
	}
	taken, err := account.Codec.Encode(account.Withdrawn{Amount: amount})
	if err != nil {
		return ours, theirs, err
	}
	given, err := account.Codec.Encode(account.Deposited{Amount: amount})
	if err != nil {
		return ours, theirs, err
	}
	ours = work.Transfers("Transact", callers, accounts, work.Transact(repo, amount))
	theirs = work.Transfers("select for update", callers, accounts, func(ctx context.Context, from, to string) error {
		return plain.Transfer(ctx, from, to, amount, taken, given)
	})
	return ours, theirs, nil
}
