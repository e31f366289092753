package linear_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/internal/test/linear"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/sqlite"
)

// childFlag makes this test binary a process that answers calls on the store given by the next argument.
const childFlag = "-answer-calls-on"

// A request is a call to another process. The command is stored with its name.
type request struct {
	Number    int
	Register  bool
	ID        string
	CommandID string      `json:",omitempty"`
	Expected  *es.Version `json:",omitempty"`
	Write     *write      `json:",omitempty"`
	Name      string      `json:",omitempty"`
	Amount    int64       `json:",omitempty"`
}

type response struct {
	Number int
	Answer linear.Answer
	Made   bool
}

// beChild answers calls until its input ends.
func beChild(store string) int {
	ctx := context.Background()
	var s es.Store
	var err error
	if path, file := strings.CutPrefix(store, "sqlite:"); file {
		s, err = sqlite.Open(path)
	} else {
		s, err = postgres.Open(ctx, store)
	}
	if err == nil {
		err = answerCalls(ctx, newLocal(s))
		err = errors.Join(err, s.(io.Closer).Close())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func answerCalls(ctx context.Context, l *local) error {
	var mu sync.Mutex
	out := json.NewEncoder(os.Stdout)
	in := json.NewDecoder(os.Stdin)
	var all sync.WaitGroup
	defer all.Wait()
	for {
		var r request
		if err := in.Decode(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		all.Go(func() {
			// A slower call is answered as one of unknown outcome, or as one without effect.
			ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			answer, made := r.call(ctx, l)
			mu.Lock()
			defer mu.Unlock()
			_ = out.Encode(response{r.Number, answer, made}) // the caller may be gone
		})
	}
}

func (r request) call(ctx context.Context, l *local) (linear.Answer, bool) {
	if r.Register {
		return l.register(ctx, linear.Call[write]{ID: r.ID, Command: r.Write, CommandID: r.CommandID, Expected: r.Expected})
	}
	call := linear.Call[account.Command]{ID: r.ID, CommandID: r.CommandID, Expected: r.Expected}
	command := map[string]account.Command{
		"open": account.Open{Owner: "Ann"}, "deposit": account.Deposit{Amount: r.Amount}, "withdraw": account.Withdraw{Amount: r.Amount}, "close": account.Close{},
	}[r.Name]
	if command != nil {
		call.Command = &command
	}
	return l.account(ctx, call)
}

// A process answers calls. When it is killed, another one replaces it.
type process struct {
	t     testing.TB
	store string

	mu      sync.Mutex
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	waiting map[int]chan response
	number  int
	dead    chan struct{} // closed when its output ends
	away    sync.RWMutex  // held by replace, so that callers wait for the next process and do not count as calls of unknown outcome
}

func startProcess(t testing.TB, store string) *process {
	t.Helper()
	p := &process{t: t, store: store}
	if err := p.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.end() })
	return p
}

func (p *process) start() error {
	cmd := exec.CommandContext(p.t.Context(), os.Args[0], childFlag, p.store)
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd, p.stdin, p.waiting, p.dead = cmd, stdin, make(map[int]chan response), make(chan struct{})
	go p.listen(stdout, p.waiting, p.dead)
	return nil
}

func (p *process) listen(stdout io.Reader, waiting map[int]chan response, dead chan struct{}) {
	defer close(dead)
	for lines := bufio.NewReader(stdout); ; {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return // a truncated line does not count
		}
		var r response
		if err := json.Unmarshal(line, &r); err != nil {
			p.t.Errorf("unexpected line %q from a process: %v", line, err)
			return
		}
		p.mu.Lock()
		answer := waiting[r.Number]
		delete(waiting, r.Number)
		p.mu.Unlock()
		answer <- r
	}
}

// ask sends a call and waits for the answer. The outcome is unknown if the process dies first.
func (p *process) ask(r request) (linear.Answer, bool) {
	answer := make(chan response, 1)
	p.away.RLock()
	p.mu.Lock()
	p.number++
	r.Number = p.number
	p.waiting[r.Number] = answer
	dead := p.dead
	err := json.NewEncoder(p.stdin).Encode(r)
	p.mu.Unlock()
	p.away.RUnlock()
	if err != nil {
		<-dead // its pipe is closed
	}
	select {
	case a := <-answer:
		return a.Answer, a.Made
	case <-dead:
	}
	select {
	case a := <-answer: // an answer before it died
		return a.Answer, a.Made
	default:
		return linear.Answer{Unknown: true}, true
	}
}

func (p *process) register(_ context.Context, call linear.Call[write]) (linear.Answer, bool) {
	return p.ask(request{Register: true, ID: call.ID, CommandID: call.CommandID, Expected: call.Expected, Write: call.Command})
}

func (p *process) account(_ context.Context, call linear.Call[account.Command]) (linear.Answer, bool) {
	r := request{ID: call.ID, CommandID: call.CommandID, Expected: call.Expected}
	if call.Command != nil {
		switch c := (*call.Command).(type) {
		case account.Open:
			r.Name = "open"
		case account.Deposit:
			r.Name, r.Amount = "deposit", c.Amount
		case account.Withdraw:
			r.Name, r.Amount = "withdraw", c.Amount
		case account.Close:
			r.Name = "close"
		}
	}
	return p.ask(r)
}

// replace kills the process with SIGKILL and starts another.
func (p *process) replace() {
	p.away.Lock()
	defer p.away.Unlock()
	p.mu.Lock()
	cmd, dead := p.cmd, p.dead
	p.mu.Unlock()
	_ = cmd.Process.Kill()
	<-dead
	_ = cmd.Wait() // reports that it was killed
	if err := p.start(); err != nil && p.t.Context().Err() == nil {
		p.t.Error(err)
	}
}

// end closes the input of the process and waits for its end.
func (p *process) end() {
	p.mu.Lock()
	cmd, dead, stdin := p.cmd, p.dead, p.stdin
	p.mu.Unlock()
	_ = stdin.Close()
	<-dead
	if err := cmd.Wait(); err != nil && p.t.Context().Err() == nil {
		p.t.Errorf("a process ended with: %v", err)
	}
}
