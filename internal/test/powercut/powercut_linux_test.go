package powercut_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/thalo-go/es/internal/test/powercut"
)

// program changes files in each of the ways that the library follows. Its files say in their names what a power cut leaves of them.
const program = `
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
static void put(const char *name, const char *text, off_t at, int sync) {
	int fd = open(name, O_RDWR | O_CREAT, 0600);
	pwrite(fd, text, strlen(text), at);
	if (sync) fsync(fd);
	close(fd);
}
int main(int n, char **args) {
	if (chdir(args[1])) return 1;
	put("old", "new", 0, 0);                       // not synced: as before
	put("synced", "new", 0, 1);
	put("synced", "lost", 5000, 0);                // behind what was synced
	put("both", "a", 0, 0); put("both", "b", 9000, 1); // a sync takes all that was written
	put("created", "x", 0, 0);                     // never synced: not there
	put("created-synced", "x", 0, 1);
	rename("moved", "moved-to");                   // the folder is not synced: back
	unlink("removed");
	put("sub/created", "x", 0, 0);                 // the folder is synced: there, without content
	rename("sub/moved", "sub/moved-to");
	unlink("sub/removed");
	int fd = open("sub", O_RDONLY | O_DIRECTORY); fsync(fd); close(fd);
	put("sub/after", "x", 0, 0);
	fd = open("short", O_RDWR); ftruncate(fd, 1); pwrite(fd, "z", 1, 2); fsync(fd); ftruncate(fd, 0); close(fd);
	unlink("reused"); put("other", "other", 0, 1); // may get the inode of the file that was removed
	fd = open("direct", O_RDWR | O_CREAT | O_DSYNC, 0600); write(fd, "x", 1); write(fd, "y", 1); close(fd);
	return 0;
}`

func TestACutLeavesWhatWasSynced(t *testing.T) {
	d := powercut.Start(t)
	root := t.TempDir()
	put := func(name, text string) {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(root, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"old", "synced", "both", "moved", "removed", "sub/moved", "sub/removed", "reused"} {
		put(name, "old")
	}
	put("short", "long")
	code, binary := filepath.Join(t.TempDir(), "writer.c"), filepath.Join(t.TempDir(), "writer")
	if err := os.WriteFile(code, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "cc", "-o", binary, code).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := d.Attach(root); err != nil {
		t.Fatal(err)
	}
	zeros := func(n int) string { return string(make([]byte, n)) }
	for range 2 { // the second time on what the first has left
		write := exec.CommandContext(t.Context(), binary, root)
		write.Env = append(os.Environ(), "LD_PRELOAD="+d.Library())
		if out, err := write.CombinedOutput(); err != nil || len(out) > 0 {
			t.Fatalf("%v\n%s", err, out)
		}
		if err := d.Cut(); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{
			"old": "old", "synced": "new", "both": "ald" + zeros(8997) + "b", "created-synced": "x", "moved": "old", "removed": "old",
			"sub/created": "", "sub/moved-to": "old", "short": "l\x00z", "reused": "old", "other": "other", "direct": "xy",
		}
		found := make(map[string]string)
		err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			data, err := os.ReadFile(path)
			name, _ := filepath.Rel(root, path)
			found[name] = string(data)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range slices.Sorted(maps.Keys(want)) {
			if text, there := found[name]; !there || text != want[name] {
				t.Errorf("%s has %.40q (there: %v), want %.40q", name, text, there, want[name])
			}
			delete(found, name)
		}
		if len(found) > 0 {
			t.Errorf("there are other files: %q", found)
		}
	}
}
