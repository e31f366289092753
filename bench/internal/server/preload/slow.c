// Each flush of a file takes DELAY microseconds longer, as it does on a disk in the network or with a synchronous standby.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

static int slowly(const char *name, int fd) {
	struct timespec delay = {DELAY / 1000000, DELAY % 1000000 * 1000L};
	int (*flush)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
	nanosleep(&delay, 0);
	return flush(fd);
}

int fsync(int fd) { return slowly("fsync", fd); }
int fdatasync(int fd) { return slowly("fdatasync", fd); }
