package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/thalo-go/es/examples/loans/application"
)

// report writes tables. After an error it writes nothing.
type report struct {
	w   io.Writer
	err error
}

func (r *report) printf(format string, args ...any) {
	if r.err == nil {
		_, r.err = fmt.Fprintf(r.w, format, args...)
	}
}

func (r *report) load(l *loader, took time.Duration, atOnce int) {
	stored, before := l.stored.Load(), l.before.Load()
	r.printf("Sent %s lines of %s applications: %s stored, %s stored before.\n",
		number(stored+before), number(l.applications), number(stored), number(before))
	r.printf("It took %.1f s with up to %d applications at once: %s lines per second.\n",
		took.Seconds(), atOnce, number(int64(float64(stored+before)/took.Seconds())))
}

func (r *report) tally(t *tally) {
	if t.events == 0 {
		r.printf("\nThe store holds no applications.\n")
		return
	}
	r.facts(t)
	r.activities(t)
	r.ends(t)
	r.irregular(t)
}

func (r *report) facts(t *tally) {
	r.printf("\nThe store holds:\n\n")
	for _, row := range [][2]string{
		{"applications", number(len(t.applications))},
		{"events", number(t.events)},
		{"most events of one application", number(t.longest)},
		{"sum of the requested amounts", number(t.amount)},
		{"first event", stamp(t.first)},
		{"last event", stamp(t.last)},
	} {
		r.printf("  %-32s %30s\n", row[0], row[1])
	}
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "none"
	}
	return t.Format("2006-01-02T15:04:05.000Z07:00")
}

// activities prints the number of events by name and life-cycle transition. Names that the rules do not know come last.
func (r *report) activities(t *tally) {
	names := application.Activities()
	for _, name := range slices.Sorted(maps.Keys(t.activities)) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	columns := []string{application.TransitionSchedule, application.TransitionStart, application.TransitionComplete}
	row := func(name string, counts map[string]int) {
		r.printf("  %-32s", name)
		sum := 0
		for _, column := range columns {
			r.printf(" %9s", orDot(counts[column]))
			sum += counts[column]
		}
		r.printf(" %9s\n", orDot(sum))
	}
	r.printf("\n  %-32s %9s %9s %9s %9s\n", "", columns[0], columns[1], columns[2], "all")
	for _, name := range names {
		row(name, t.activities[name])
	}
	row("all", t.transitions)
}

// ends prints the last stages of the applications.
func (r *report) ends(t *tally) {
	counts := make(map[string]int)
	noOffer, working := 0, 0
	for _, h := range t.applications {
		counts[end(h.Application)]++
		if h.Granted() && h.Table != application.OfferAccepted {
			noOffer++
		}
		if h.Busy() {
			working++
		}
	}
	r.printf("\nLast stages of the applications:\n\n")
	for _, e := range slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(counts[b]-counts[a], cmp.Compare(a, b))
	}) {
		r.printf("  %-52s %9s %7.1f %%\n", e, number(counts[e]), 100*float64(counts[e])/float64(len(t.applications)))
	}
	r.printf("\n  Granted without an accepted offer: %s. With work in progress at the end of the log: %s.\n", number(noOffer), number(working))
}

// end describes the last stage of an application.
func end(a application.Application) string {
	stage := string(a.Stage())
	switch {
	case a.Granted():
		return "granted (approved, registered and activated)"
	case a.Closed() && len(a.Stages) > 1:
		return fmt.Sprintf("%s after %s", stage, a.Stages[len(a.Stages)-2])
	}
	return "open, at " + stage
}

func (r *report) irregular(t *tally) {
	if t.broken == 0 {
		r.printf("\nNo event breaks a rule.\n")
		return
	}
	applications := 0
	for _, h := range t.applications {
		if h.irregular {
			applications++
		}
	}
	r.printf("\n%s of %s events, in %s of %s applications, break a rule. They are stored with the name of the rule:\n\n",
		number(t.broken), number(t.events), number(applications), number(len(t.applications)))
	for _, rule := range slices.SortedFunc(maps.Keys(t.irregular), func(a, b application.Rule) int {
		return cmp.Or(t.irregular[b].times-t.irregular[a].times, cmp.Compare(a, b))
	}) {
		i := t.irregular[rule]
		r.printf("  %7s  %-22s %s, for example %s\n", number(i.times), rule, rule.Meaning(), i.event)
	}
}

func orDot(n int) string {
	if n == 0 {
		return "."
	}
	return number(n)
}

// number formats 262200 as 262,200.
func number[N int | int64](n N) string {
	digits := strconv.FormatInt(int64(n), 10)
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
