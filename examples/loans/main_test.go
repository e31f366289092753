package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/loans/application"
	"github.com/thalo-go/es/sqlite"
)

func replayed(t *testing.T, store es.Log, file []byte) (report string, err error) {
	t.Helper()
	var out strings.Builder
	err = replay(t.Context(), store, bytes.NewReader(file), io.NopCloser(nil), 8, &out)
	return out.String(), err
}

func sample(t *testing.T) []byte {
	t.Helper()
	file, err := os.ReadFile("testdata/sample.xes")
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func TestSecondReplayChangesNothing(t *testing.T) {
	store, err := sqlite.Open(t.TempDir() + "/loans.db")
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	first, err := replayed(t, store, sample(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Sent 30 lines of 4 applications: 30 stored, 0 stored before.",
		"granted (approved, registered and activated)",
		"WORK_NOT_STARTED", "application/4/6",
		"UNKNOWN_ACTIVITY", "application/4/7",
	} {
		if !strings.Contains(first, want) {
			t.Errorf("the report lacks %q:\n%s", want, first)
		}
	}
	second, err := replayed(t, store, sample(t))
	if err != nil {
		t.Fatal(err)
	}
	if want := "Sent 30 lines of 4 applications: 0 stored, 30 stored before."; !strings.Contains(second, want) {
		t.Errorf("the second report lacks %q:\n%s", want, second)
	}
	_, first, _ = strings.Cut(first, "The store holds:")
	_, second, _ = strings.Cut(second, "The store holds:")
	if first != second {
		t.Errorf("after the second replay the store holds\n%s\nwant, as before,\n%s", second, first)
	}
}

func TestDamagedFileIsReplayedUpToTheDamage(t *testing.T) {
	file := sample(t)
	beforeThird, _, _ := bytes.Cut(file, []byte(`value="2011-11-02T09:00:02`))
	for name, test := range map[string]struct {
		file       []byte
		want       string
		applicants int
	}{
		"truncated":                {beforeThird, "line 47", 2},
		"unknown kind of activity": {bytes.Replace(file, []byte(`"A_WONDERED"`), []byte(`"X_WONDERED"`), 1), `line 60: application 4: no command for activity "X_WONDERED"`, 3},
		"invalid time":             {bytes.Replace(file, []byte("2011-11-02T09:00:02.000+01:00"), []byte("yesterday"), 1), `line 47: application 3: time:timestamp is "yesterday"`, 2},
		"invalid amount":           {bytes.Replace(file, []byte(`value="500"`), []byte(`value="a lot"`), 1), `application 2: AMOUNT_REQ is "a lot"`, 1},
	} {
		t.Run(name, func(t *testing.T) {
			store := new(es.Mem)
			_, err := replayed(t, store, test.file)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got the error %v, want %q in it", err, test.want)
			}
			counted, err := count(t.Context(), store)
			if err != nil {
				t.Fatal(err)
			}
			if len(counted.applications) != test.applicants {
				t.Errorf("%d applications are stored, want the %d before the damage", len(counted.applications), test.applicants)
			}
		})
	}
}

// interrupted is a file that calls stop while it is read.
type interrupted struct {
	io.Reader
	stop context.CancelFunc
}

func (i interrupted) Read(p []byte) (int, error) {
	i.stop()
	return i.Reader.Read(p)
}

func TestInterruptedReplayReportsProgress(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var out strings.Builder
	err := replay(ctx, new(es.Mem), interrupted{bytes.NewReader(sample(t)), stop}, io.NopCloser(nil), 8, &out)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "0 lines") {
		t.Errorf("got the error %v, want one with the number of stored lines", err)
	}
}

func TestDifferentLineAtAStoredPlaceIsAnError(t *testing.T) {
	file := sample(t)
	store := new(es.Mem)
	if _, err := replayed(t, store, file); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"another time":     {"2011-10-02T09:00:02.000+02:00", "2011-10-02T09:00:03.000+02:00"},
		"another activity": {`"A_DECLINED"`, `"A_CANCELLED"`},
		"another person":   {`value="10862"/><string key="concept:name" value="A_ACCEPTED"`, `value="10863"/><string key="concept:name" value="A_ACCEPTED"`},
	} {
		t.Run(name, func(t *testing.T) {
			other := bytes.Replace(file, []byte(change[0]), []byte(change[1]), 1)
			_, err := replayed(t, store, other)
			if err == nil || !strings.Contains(err.Error(), "the store has another line in its place") {
				t.Errorf("got the error %v", err)
			}
		})
	}
	if head, err := es.Head(t.Context(), store); err != nil || head != 30 {
		t.Errorf("the store is at %d (%v), want 30 as before", head, err)
	}
}

func TestPasswordIsNotPrinted(t *testing.T) {
	for where, want := range map[string]string{
		"postgres://ann:secret@host:5432/loans?password=secret": "postgres://host:5432/loans",
		"loans.db":         "loans.db",
		"/tmp/a b/100%.db": "/tmp/a b/100%.db",
		"mem:":             "mem:",
	} {
		if got := withoutPassword(where); got != want {
			t.Errorf("%s is printed as %s, want %s", where, got, want)
		}
	}
}

func TestMissingLog(t *testing.T) {
	const path = "none.xes.gz"
	err := run(t.Context(), path, "mem:", 1, "")
	if err == nil || !strings.Contains(err.Error(), "-log "+path) || !strings.Contains(err.Error(), "https://doi.org/") {
		t.Errorf("got the error %v, want one that names the file and where to download it", err)
	}
}

func TestSyntheticLogIsTheDefault(t *testing.T) {
	if err := run(t.Context(), "", filepath.Join(t.TempDir(), "loans.db"), 8, ""); err != nil {
		t.Fatal(err)
	}
	store := new(es.Mem)
	if _, err := replayed(t, store, synthetic); err != nil {
		t.Fatal(err)
	}
	got, err := count(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.applications) != 60 || got.events != 809 || got.broken != 2 {
		t.Errorf("%d applications with %d events, %d of which break a rule; want 60, 809, 2", len(got.applications), got.events, got.broken)
	}
}

// TestTheRealLog replays the whole log and compares the result with counts taken directly from the file by another program.
// The file is not part of the repository. Without it the test is skipped, or fails if ES_TEST_REQUIRE is set.
func TestTheRealLog(t *testing.T) {
	const path = "../../../shared/data/bpic2012.xes.gz"
	file, err := os.ReadFile(path)
	switch {
	case err == nil && testing.Short():
		t.Skip("takes several seconds")
	case err == nil && raced:
		t.Skip("takes minutes with the race detector; make test runs it without")
	case os.IsNotExist(err) && os.Getenv("ES_TEST_REQUIRE") == "":
		t.Skipf("%s is missing; download it from https://doi.org/10.4121/uuid:3926db30-f712-4394-aebc-75976070e91f", path)
	case err != nil:
		t.Fatal(err)
	}
	store := new(es.Mem)
	if _, err := replayed(t, store, file); err != nil {
		t.Fatal(err)
	}
	got, err := count(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	funnelAgrees(t, store, map[application.Stage]int{
		"A_SUBMITTED": 13_087, "A_PREACCEPTED": 7_367, "A_ACCEPTED": 5_113, "A_FINALIZED": 5_015, "A_APPROVED": 2_246, "A_DECLINED": 7_635, "A_CANCELLED": 2_807,
	})
	total := func(name string) (n int) {
		for _, times := range got.activities[name] {
			n += times
		}
		return n
	}
	for what, pair := range map[string][2]int{
		"cases":    {len(got.applications), 13_087},
		"events":   {got.events, 262_200},
		"longest":  {got.longest, 175},
		"amount":   {int(got.amount), 177_634_511},
		"COMPLETE": {got.transitions[application.TransitionComplete], 164_506},
		"START":    {got.transitions[application.TransitionStart], 71_376},
		"SCHEDULE": {got.transitions[application.TransitionSchedule], 26_318},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: %d are stored, the file has %d", what, pair[0], pair[1])
		}
	}
	for name, want := range map[string]int{
		"A_SUBMITTED": 13_087, "A_PARTLYSUBMITTED": 13_087, "A_PREACCEPTED": 7_367, "A_ACCEPTED": 5_113, "A_FINALIZED": 5_015,
		"A_APPROVED": 2_246, "A_REGISTERED": 2_246, "A_ACTIVATED": 2_246, "A_DECLINED": 7_635, "A_CANCELLED": 2_807,
		"O_SELECTED": 7_030, "O_CREATED": 7_030, "O_SENT": 7_030, "O_SENT_BACK": 3_454, "O_CANCELLED": 3_655, "O_ACCEPTED": 2_243, "O_DECLINED": 802,
		"W_Completeren aanvraag": 54_850, "W_Nabellen offertes": 52_016, "W_Nabellen incomplete dossiers": 25_190,
		"W_Valideren aanvraag": 20_809, "W_Afhandelen leads": 16_566, "W_Beoordelen fraude": 664, "W_Wijzigen contractgegevens": 12,
	} {
		if total(name) != want {
			t.Errorf("%s: %d are stored, the file has %d", name, total(name), want)
		}
	}
	// These were counted by another program as well.
	for rule, want := range map[application.Rule]int{
		application.WorkNotStarted: 1_042, application.OfferNotSentBack: 184, application.ApplicationClosed: 23, application.WorkAlreadyScheduled: 9,
		application.WorkOfAnother: 9, application.WorkTooEarly: 8, application.WorkInProgress: 2,
	} {
		if got.irregular[rule].times != want {
			t.Errorf("%s is broken %d times, want %d", rule, got.irregular[rule].times, want)
		}
	}
	if got.broken != 1_277 {
		t.Errorf("%d events break a rule, want 1,277", got.broken)
	}
	for what, pair := range map[string][2]string{
		"first": {got.first.Format(time.RFC3339Nano), "2011-10-01T00:38:44.546+02:00"},
		"last":  {got.last.Format(time.RFC3339Nano), "2012-03-14T16:04:54.681+01:00"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("the %s event is of %s, in the file of %s", what, pair[0], pair[1])
		}
	}
}
