package child_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/thalo-go/es/internal/test/child"
	"github.com/thalo-go/es/internal/test/recorder"
)

func TestMain(m *testing.M) {
	child.Main(map[string]child.Func{
		"count": func(_ context.Context, args []string) error {
			for _, arg := range args {
				child.Say(arg)
			}
			return nil
		},
		"ready": func(ctx context.Context, _ []string) error {
			return child.Ready(ctx).Err()
		},
		"partial": func(ctx context.Context, _ []string) error {
			child.Say("whole")
			fmt.Print("part")
			<-ctx.Done()
			return nil
		},
		"parent": func(ctx context.Context, _ []string) error {
			cmd, err := child.Command(ctx, []string{"ES_TEST_CHILD=stubborn"})
			if err != nil {
				return err
			}
			cmd.Stdout = os.Stdout
			return cmd.Run()
		},
		"stubborn": func(context.Context, []string) error {
			child.Say("runs")
			select {}
		},
		"fail": func(context.Context, []string) error { return errors.New("a failure") },
	})
	os.Exit(m.Run())
}

func TestLines(t *testing.T) {
	p := child.Start(t, "count", 1, "two words", 3)
	if line := p.Line(t); line != "1" {
		t.Errorf("Line returned %q", line)
	}
	if lines := p.Finish(t); !slices.Equal(lines, []string{"two words", "3"}) {
		t.Errorf("Finish returned %q", lines)
	}
	if lines := p.Await(7); len(lines) != 3 {
		t.Errorf("Await returned %q after the end", lines)
	}
}

func TestRelease(t *testing.T) {
	a, b := child.Start(t, "ready"), child.Start(t, "ready")
	child.Release(t, a, b)
	a.Finish(t)
	b.Finish(t)
}

func TestStop(t *testing.T) {
	p := child.Start(t, "partial")
	p.Await(1)
	p.Stop()
	if lines := p.Lines(); !slices.Equal(lines, []string{"whole"}) {
		t.Errorf("Lines returned %q, want the complete line", lines)
	}
	p.Stop()
}

// A child ends after its parent was killed, also if it ignores its context. It has the output of its parent, which ends with it.
func TestOrphansEnd(t *testing.T) {
	p := child.Start(t, "parent")
	p.Await(1)
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if lines := p.Await(2); len(lines) != 1 {
		t.Errorf("Await returned %q", lines)
	}
}

func TestFailuresAreReported(t *testing.T) {
	for _, name := range []string{"fail", "unknown"} {
		p := child.Start(t, name)
		r := &recorder.T{TB: t}
		func() {
			defer func() { _ = recover() }()
			p.Finish(fatal{r})
		}()
		if all := strings.Join(r.Failures, "\n"); !strings.Contains(all, "a failure") && !strings.Contains(all, "no child function") {
			t.Errorf("Finish reported %q", all)
		}
	}
}

// fatal is a recorder whose Fatalf panics.
type fatal struct{ *recorder.T }

func (f fatal) Fatalf(format string, args ...any) {
	f.Errorf(format, args...)
	panic("fatal")
}
