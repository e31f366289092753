package powercut

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
)

//go:embed preload/powercut.c
var source string

// New builds the library. It returns an error that says what is missing where it cannot be built.
func New(ctx context.Context, folder string) (*Disk, error) {
	compiler, err := exec.LookPath("cc")
	if err != nil {
		return nil, fmt.Errorf("power cuts need a C compiler: %w", err)
	}
	d := &Disk{folder: folder}
	code := filepath.Join(folder, "powercut.c")
	if err := os.WriteFile(code, []byte(source), 0o600); err != nil {
		return nil, err
	}
	if out, err := exec.CommandContext(ctx, compiler, "-shared", "-fPIC", "-O2", "-o", d.Library(), code, "-ldl").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %w\n%s", d.Library(), err, out)
	}
	return d, nil
}

// Attach takes everything below a folder as durable. Processes that start from now on are followed. None may run.
func (d *Disk) Attach(root string) error {
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return err
	}
	d.root = root
	if err := d.snapshot(); err != nil {
		return err
	}
	// Processes of another user load the library and write the images.
	if err := os.Chmod(d.folder, 0o755); err != nil {
		return err
	}
	return os.WriteFile(d.Library()+".conf", []byte(root+"\n"+d.images()+"\n"), 0o644)
}

func (d *Disk) images() string { return filepath.Join(d.folder, "images") }

// snapshot makes images of all files.
func (d *Disk) snapshot() error {
	if err := os.RemoveAll(d.images()); err != nil {
		return err
	}
	for _, name := range []string{"", "img", "dirty", "tree"} {
		if err := makeFolder(filepath.Join(d.images(), name)); err != nil {
			return err
		}
	}
	return filepath.WalkDir(d.root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(d.root, path)
		if err != nil {
			return err
		}
		name := filepath.Join(d.images(), "tree", below)
		if e.IsDir() {
			return makeFolder(name)
		}
		if !e.Type().IsRegular() {
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		image := filepath.Join(d.images(), "img", strconv.FormatUint(info.Sys().(*syscall.Stat_t).Ino, 10))
		if err := copyFile(path, image, 0o666); err != nil {
			return err
		}
		return os.Link(image, name)
	})
}

// makeFolder makes a folder for all users.
func makeFolder(name string) error {
	if err := os.MkdirAll(name, 0o777); err != nil {
		return err
	}
	return os.Chmod(name, 0o777)
}

// Cut puts the files back to what was durable. The processes that use them must have been killed.
func (d *Disk) Cut() error {
	info, err := os.Stat(d.root)
	if err != nil {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t)
	modes, err := modesBelow(d.root)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(d.root)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(d.root, e.Name())))
	}
	if err != nil {
		return err
	}
	tree := filepath.Join(d.images(), "tree")
	err = filepath.WalkDir(tree, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == tree {
			return err
		}
		below, err := filepath.Rel(tree, path)
		if err != nil {
			return err
		}
		to := filepath.Join(d.root, below)
		if e.IsDir() {
			err = os.Mkdir(to, mode(modes, below, 0o700))
		} else {
			err = copyFile(path, to, mode(modes, below, 0o600))
		}
		if err != nil {
			return err
		}
		return os.Lchown(to, int(owner.Uid), int(owner.Gid))
	})
	if err != nil {
		return err
	}
	return d.snapshot()
}

// modesBelow returns the permissions of the files below a folder, which an image does not have.
func modesBelow(root string) (map[string]fs.FileMode, error) {
	modes := make(map[string]fs.FileMode)
	return modes, filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		below, err := filepath.Rel(root, path)
		modes[below] = info.Mode().Perm()
		return err
	})
}

func mode(modes map[string]fs.FileMode, name string, otherwise fs.FileMode) fs.FileMode {
	if m, found := modes[name]; found {
		return m
	}
	return otherwise // it had been removed
}

func copyFile(from, to string, perm fs.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return errors.Join(err, out.Close())
	}
	return errors.Join(out.Chmod(perm), out.Close()) // whatever the umask is
}
