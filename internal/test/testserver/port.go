package testserver

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

// reserved are the ports that this process has chosen, each with the function that unlocks it.
var reserved = struct {
	sync.Mutex
	unlock map[int]func()
}{unlock: map[int]func(){}}

// freePort reserves a port until releasePort. The port is below those that the system uses for outgoing connections: such a
// connection could take it while the server is down, and a client that retries could even connect to itself. A lock file
// keeps other test processes from choosing the port in that time.
func freePort() (int, error) {
	for range 100 {
		port := 15000 + rand.IntN(32768-15000)
		unlock, ok := reservePort(port)
		if !ok {
			continue
		}
		var config net.ListenConfig
		l, err := config.Listen(context.Background(), "tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			unlock()
			continue
		}
		reserved.Lock()
		reserved.unlock[port] = unlock
		reserved.Unlock()
		return port, l.Close()
	}
	return 0, errors.New("no free port on 127.0.0.1 in 100 attempts")
}

// releasePort ends the reservation of a port. A port that is not reserved is ignored.
func releasePort(port int) {
	reserved.Lock()
	unlock := reserved.unlock[port]
	delete(reserved.unlock, port)
	reserved.Unlock()
	if unlock != nil {
		unlock()
	}
}

// reservePort locks the file of a port. Without a folder for such files nothing is reserved, and a collision is unlikely.
func reservePort(port int) (unlock func(), ok bool) {
	reserved.Lock()
	_, ours := reserved.unlock[port]
	reserved.Unlock()
	if ours {
		return nil, false
	}
	folder := filepath.Join(os.TempDir(), "thalo-es-test-ports")
	if err := os.Mkdir(folder, 0o777); err == nil {
		_ = os.Chmod(folder, 0o777) // for other users, against the umask; without it they reserve nothing
	}
	unlock, err := tryLock(filepath.Join(folder, strconv.Itoa(port)))
	if errors.Is(err, errLocked) {
		return nil, false
	}
	if err != nil {
		return func() {}, true
	}
	return unlock, true
}

// errLocked is returned by tryLock if another process holds the lock.
var errLocked = errors.New("locked by another process")
