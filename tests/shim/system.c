/* The system as a test wants it: preloaded before libc, it makes the disk fail, stall or end, the wall clock jump, and the
 * process die at any write to the state file. Everything else passes through.
 *
 * SHIM_CONTROL names a file that is read at each call, so that a test can change its mind while the process runs:
 *   sync=ERRNO   fsync and fdatasync of state files fail
 *   write=ERRNO  writes to state files fail
 *   stall=1      they wait until it is gone
 *   wall=SECONDS the wall clock is off by so much
 * SHIM_DIE_AT=N kills the process by SIGKILL at the Nth write, sync, truncation or removal of a state file, before it is
 * done; with SHIM_TEAR=1 a write is done by half first. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long said(const char *what) {
    const char *path = getenv("SHIM_CONTROL");
    char text[256];
    if (!path) return 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0) return 0;
    text[n] = 0;
    char *at = strstr(text, what);
    return at ? strtol(at + strlen(what), NULL, 10) : 0;
}

static int is_state_path(const char *path) { return strstr(path, "ledger.sqlite3") != NULL; }

static int is_state(int fd) {
    char link[64], path[512];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    return is_state_path(path);
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* Whether this is the call at which to die. */
static int fatal(void) {
    static long calls;
    long nth = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
    const char *at = getenv("SHIM_DIE_AT");
    return at && nth == strtol(at, NULL, 10);
}

/* What the control file says about one kind of call: 0 or an error. */
static int fault(const char *kind) {
    while (said("stall=")) usleep(20000);
    return (int)said(kind);
}

ssize_t write(int fd, const void *buffer, size_t length) {
    if (is_state(fd)) {
        if (fatal()) {
            if (getenv("SHIM_TEAR")) syscall(SYS_write, fd, buffer, length / 2);
            die();
        }
        int error = fault("write=");
        if (error) {
            errno = error;
            return -1;
        }
    }
    return syscall(SYS_write, fd, buffer, length);
}

ssize_t pwrite64(int fd, const void *buffer, size_t length, off64_t offset) {
    if (is_state(fd)) {
        if (fatal()) {
            if (getenv("SHIM_TEAR")) syscall(SYS_pwrite64, fd, buffer, length / 2, offset);
            die();
        }
        int error = fault("write=");
        if (error) {
            errno = error;
            return -1;
        }
    }
    return syscall(SYS_pwrite64, fd, buffer, length, offset);
}

ssize_t pwrite(int fd, const void *buffer, size_t length, off_t offset) { return pwrite64(fd, buffer, length, offset); }

static int synced(int fd, long number) {
    if (is_state(fd)) {
        if (fatal()) die();
        int error = fault("sync=");
        if (error) {
            errno = error;
            return -1;
        }
    }
    return (int)syscall(number, fd);
}

int fsync(int fd) { return synced(fd, SYS_fsync); }

int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

int ftruncate64(int fd, off64_t length) {
    if (is_state(fd) && fatal()) die();
    return (int)syscall(SYS_ftruncate, fd, length);
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

int unlink(const char *path) {
    if (is_state_path(path) && fatal()) die();
    return (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = (int)syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) time->tv_sec += said("wall=");
    return result;
}
