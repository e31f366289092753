// A library that is loaded before others (LD_PRELOAD) and keeps what a power cut would leave of the files below a folder.
//
// It replaces the functions that write, truncate and sync files, and those that change a folder's names. Nothing is slowed but by copying:
// a sync copies the blocks of the file that were written since its last one to an image, and returns without asking the disk.
//
// Beside the library is a file of the same name with .conf behind it, with two lines: the folder, and the folder of the images:
//
//	img/INODE    what is durable of the content of a file
//	dirty/INODE  a byte for each block that was written and not synced
//	tree/PATH    what is durable of the names: each is a hard link to an image
//
// A file's content is durable up to its last fsync or fdatasync, and so is its name, as on ext4, XFS and others. All names of a folder
// are as they were when the folder was last synced: files that were created since are lost unless they were synced themselves, and
// files that were removed or renamed since are back.
//
// The marks are set after the write has returned: who learns from the writer that it has, and then syncs, syncs it.
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { BLOCK = 4096, FILES = 65536 };

static char root[PATH_MAX], images[PATH_MAX];
static size_t root_length;
static dev_t root_device;

#define REAL(name, result, ...) \
	static result (*real_##name)(__VA_ARGS__); \
	static void find_##name(void) { if (!real_##name) real_##name = (result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name); }

REAL(write, ssize_t, int, const void *, size_t)
REAL(pwrite, ssize_t, int, const void *, size_t, off_t)
REAL(writev, ssize_t, int, const struct iovec *, int)
REAL(pwritev, ssize_t, int, const struct iovec *, int, off_t)
REAL(ftruncate, int, int, off_t)
REAL(fsync, int, int)
REAL(fdatasync, int, int)
REAL(unlink, int, const char *)
REAL(rename, int, const char *, const char *)

static void find_all(void) {
	find_write(); find_pwrite(); find_writev(); find_pwritev(); find_ftruncate(); find_fsync(); find_fdatasync(); find_unlink(); find_rename();
}

static void fatal(const char *what, const char *path) {
	fprintf(stderr, "powercut: %s %s: %s\n", what, path, strerror(errno));
	abort();
}

__attribute__((constructor)) static void configure(void) {
	find_all();
	Dl_info self;
	if (!dladdr((void *)configure, &self)) return;
	char name[PATH_MAX];
	snprintf(name, sizeof name, "%s.conf", self.dli_fname);
	FILE *conf = fopen(name, "re");
	if (!conf) return; // not yet
	char first[PATH_MAX];
	if (fgets(first, sizeof first, conf) && fgets(images, sizeof images, conf)) {
		first[strcspn(first, "\n")] = 0;
		images[strcspn(images, "\n")] = 0;
		struct stat info;
		if (realpath(first, root) && stat(root, &info) == 0) {
			root_device = info.st_dev;
			root_length = strlen(root);
		}
	}
	fclose(conf);
}

// relative returns the path below the root of an open file, or NULL if it is elsewhere or has no name any more.
static const char *relative(int fd, char *path) {
	char link[64];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, PATH_MAX - 1);
	if (n < 0) return NULL;
	path[n] = 0;
	if (strncmp(path, root, root_length) || (path[root_length] != '/' && path[root_length])) return NULL;
	if (n > 10 && !strcmp(path + n - 10, " (deleted)")) return NULL;
	return path[root_length] ? path + root_length + 1 : "";
}

// What is known of an open file. Its number can be reused, so the inode is compared at each use.
static struct { ino_t inode; char below; int marks; } known[FILES];

// tracked reports whether a file is a regular one below the root.
static int tracked(int fd, struct stat *info) {
	if (!root_length || fd < 0 || fd >= FILES || fstat(fd, info) || !S_ISREG(info->st_mode) || info->st_dev != root_device) return 0;
	if (known[fd].inode != info->st_ino) {
		char path[PATH_MAX];
		known[fd].below = relative(fd, path) != NULL;
		known[fd].inode = info->st_ino;
	}
	return known[fd].below;
}

static void image_name(char *name, const char *kind, ino_t inode) {
	snprintf(name, PATH_MAX, "%s/%s/%lu", images, kind, (unsigned long)inode);
}

static int open_raw(const char *name, int flags) { return syscall(SYS_openat, AT_FDCWD, name, flags | O_CLOEXEC, 0666); }

// mark notes that bytes of a file were written.
static void mark(const struct stat *info, off_t from, off_t length) {
	char name[PATH_MAX], ones[4096];
	if (length <= 0) return;
	image_name(name, "dirty", info->st_ino);
	int fd = open_raw(name, O_WRONLY | O_CREAT);
	if (fd < 0) fatal("open", name);
	memset(ones, 1, sizeof ones);
	off_t first = from / BLOCK, last = (from + length - 1) / BLOCK;
	while (first <= last) {
		off_t n = last - first + 1;
		if (n > (off_t)sizeof ones) n = sizeof ones;
		if (real_pwrite(fd, ones, n, first) != n) fatal("write", name);
		first += n;
	}
	close(fd);
}

static void make_folders(char *path) {
	for (char *p = path + strlen(images) + 1; (p = strchr(p, '/')); p++) {
		*p = 0;
		mkdir(path, 0777);
		*p = '/';
	}
}

// keep_name makes the name of a file durable.
static void keep_name(const char *path, const char *image) {
	char name[2 * PATH_MAX];
	struct stat there, wanted;
	snprintf(name, sizeof name, "%s/tree/%s", images, path);
	if (stat(image, &wanted)) fatal("stat", image);
	if (!stat(name, &there)) {
		if (there.st_ino == wanted.st_ino) return;
		real_unlink(name);
	} else {
		make_folders(name);
	}
	if (link(image, name) && errno != EEXIST) fatal("link", name);
}

// keep_file makes the content and the name of a file durable.
static void keep_file(int fd, const struct stat *before) {
	char image[PATH_MAX], dirty[PATH_MAX], path[PATH_MAX], self[64], marks[65536], block[BLOCK];
	image_name(image, "img", before->st_ino);
	image_name(dirty, "dirty", before->st_ino);
	int to = open_raw(image, O_RDWR | O_CREAT);
	if (to < 0) fatal("open", image);
	while (flock(to, LOCK_EX) && errno == EINTR) {}
	snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
	int from = open_raw(self, O_RDONLY);
	int bits = open_raw(dirty, O_RDWR);
	ssize_t n;
	for (off_t at = 0; from >= 0 && bits >= 0 && (n = pread(bits, marks, sizeof marks, at)) > 0; at += n) {
		for (ssize_t i = 0; i < n; i++) {
			if (!marks[i]) continue;
			char zero = 0;
			real_pwrite(bits, &zero, 1, at + i); // before reading: a write in between is marked again
			ssize_t size = pread(from, block, BLOCK, (at + i) * (off_t)BLOCK);
			if (size > 0 && real_pwrite(to, block, size, (at + i) * (off_t)BLOCK) != size) fatal("write", image);
		}
	}
	struct stat now;
	if (!fstat(fd, &now) && real_ftruncate(to, now.st_size)) fatal("truncate", image);
	const char *name = relative(fd, path);
	if (name) keep_name(name, image);
	if (from >= 0) close(from);
	if (bits >= 0) close(bits);
	close(to);
}

// keep_folder makes the names of a folder durable.
static void keep_folder(int fd) {
	char path[PATH_MAX], name[2 * PATH_MAX], image[PATH_MAX];
	const char *folder = relative(fd, path);
	if (!folder) return;
	char here[PATH_MAX];
	snprintf(here, sizeof here, "%s", folder);
	snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
	DIR *now = opendir(name);
	if (!now) return;
	snprintf(name, sizeof name, "%s/tree/%s/x", images, here);
	make_folders(name);
	for (struct dirent *e; (e = readdir(now));) {
		struct stat info;
		if (fstatat(dirfd(now), e->d_name, &info, AT_SYMLINK_NOFOLLOW)) continue;
		if (S_ISDIR(info.st_mode) && strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) {
			snprintf(name, sizeof name, "%s/tree/%s/%s", images, here, e->d_name);
			mkdir(name, 0777);
		}
		if (!S_ISREG(info.st_mode)) continue;
		image_name(image, "img", info.st_ino);
		int to = open_raw(image, O_RDWR | O_CREAT); // without content, if it was never synced
		if (to >= 0) close(to);
		snprintf(name, sizeof name, "%s%s%s", here, *here ? "/" : "", e->d_name);
		keep_name(name, image);
	}
	snprintf(name, sizeof name, "%s/tree/%s", images, here);
	DIR *old = opendir(name);
	if (old) {
		for (struct dirent *e; (e = readdir(old));) {
			struct stat info;
			if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
			if (fstatat(dirfd(now), e->d_name, &info, AT_SYMLINK_NOFOLLOW) && errno == ENOENT) {
				unlinkat(dirfd(old), e->d_name, 0); // a folder stays, empty or not
			}
		}
		closedir(old);
	}
	closedir(now);
}

static int sync_file(int fd, int (*real)(int)) {
	struct stat info;
	if (root_length && !fstat(fd, &info) && info.st_dev == root_device) {
		if (S_ISDIR(info.st_mode)) {
			keep_folder(fd);
			return 0;
		}
		if (tracked(fd, &info)) {
			keep_file(fd, &info);
			return 0;
		}
	}
	return real(fd);
}

int fsync(int fd) { find_all(); return sync_file(fd, real_fsync); }
int fdatasync(int fd) { find_all(); return sync_file(fd, real_fdatasync); }

// wrote marks what a call has written, and syncs it if the file is open for that.
static ssize_t wrote(int fd, off_t at, ssize_t n) {
	struct stat info;
	if (n <= 0 || !tracked(fd, &info)) return n;
	int saved = errno;
	int flags = fcntl(fd, F_GETFL);
	if (at < 0) at = flags & O_APPEND ? info.st_size - n : lseek(fd, 0, SEEK_CUR) - n;
	mark(&info, at, n);
	if (flags & O_DSYNC) keep_file(fd, &info);
	errno = saved;
	return n;
}

ssize_t write(int fd, const void *data, size_t n) { find_all(); return wrote(fd, -1, real_write(fd, data, n)); }
ssize_t writev(int fd, const struct iovec *v, int n) { find_all(); return wrote(fd, -1, real_writev(fd, v, n)); }
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) { find_all(); return wrote(fd, at, real_pwrite(fd, data, n, at)); }
ssize_t pwritev(int fd, const struct iovec *v, int n, off_t at) { find_all(); return wrote(fd, at, real_pwritev(fd, v, n, at)); }
ssize_t pwrite64(int fd, const void *data, size_t n, off_t at) { return pwrite(fd, data, n, at); }
ssize_t pwritev64(int fd, const struct iovec *v, int n, off_t at) { return pwritev(fd, v, n, at); }

int ftruncate(int fd, off_t size) {
	find_all();
	struct stat before;
	int below = tracked(fd, &before);
	int failed = real_ftruncate(fd, size);
	if (!failed && below && size < before.st_size) mark(&before, size, before.st_size - size); // it may grow again, with other content
	return failed;
}
int ftruncate64(int fd, off_t size) { return ftruncate(fd, size); }

// forget separates the image of a file that is removed from the inode, which another file may get. Its durable name keeps the image.
static void forget(const char *path) {
	struct stat info;
	char name[PATH_MAX];
	if (!root_length || lstat(path, &info) || !S_ISREG(info.st_mode) || info.st_dev != root_device || info.st_nlink > 1) return;
	image_name(name, "img", info.st_ino);
	real_unlink(name);
	image_name(name, "dirty", info.st_ino);
	real_unlink(name);
}

int unlink(const char *path) { find_all(); forget(path); return real_unlink(path); }

int rename(const char *from, const char *to) {
	find_all();
	struct stat a, b;
	if (!lstat(from, &a) && !lstat(to, &b) && a.st_ino != b.st_ino) forget(to);
	return real_rename(from, to);
}
