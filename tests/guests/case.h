/* What the conformance programs share: one line for each case, "ok name" or "FAIL name got expected". */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

/* The value is what was expected. */
static void eq_(const char *name, long long got, long long want) {
    if (got == want)
        printf("ok %s\n", name);
    else
        printf("FAIL %s got %lld expected %lld\n", name, got, want);
    fflush(stdout);
}
#define EQ(name, got, want)                     \
    do {                                        \
        long long got_ = (long long)(got);      \
        eq_(name, got_, (long long)(want));     \
    } while (0)

/* The call fails with this error number; success shows as 0. */
#define ERR(name, call, number)                                        \
    do {                                                               \
        errno = 0;                                                     \
        long long result_ = (long long)(call);                         \
        eq_(name, result_ == -1 ? errno : 0, number);                  \
    } while (0)

/* The call succeeds; failure shows its error number. */
#define OK(name, call)                                                 \
    do {                                                               \
        errno = 0;                                                     \
        long long result_ = (long long)(call);                         \
        eq_(name, result_ == -1 ? errno : 0, 0);                       \
    } while (0)

#define YES(name, condition) EQ(name, !!(condition), 1)

/* Changes into an empty directory of its own. */
static inline void enter_directory(void) {
    /* Where the files are says which filesystem is tested. */
    const char *where = getenv("CASES_IN");
    char name[PATH_MAX];
    snprintf(name, sizeof name, "%s/case.XXXXXX", where ? where : "/tmp");
    if (!mkdtemp(name) || chdir(name)) {
        printf("FAIL directory\n");
        exit(1);
    }
    umask(022);
}

/* Writes a file with this text. */
static inline void put(const char *name, const char *text) {
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        printf("FAIL put %s\n", name);
    close(fd);
}

static inline void nap(int milliseconds) {
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
    while (nanosleep(&time, &time) && errno == EINTR)
        ;
}

/* Waits until something is so, but not for ever: a busy machine must not decide a case. */
#define UNTIL(condition)                                \
    do {                                                \
        for (int i_ = 0; i_ < 2000 && !(condition); i_++) \
            nap(2);                                     \
    } while (0)

static inline long long now_ms(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000LL + time.tv_nsec / 1000000;
}

/* Runs `body` in a child and answers its wait status. */
#define CHILD(status, ...)                     \
    do {                                        \
        fflush(stdout);                         \
        pid_t pid_ = fork();                    \
        if (pid_ == 0) {                        \
            __VA_ARGS__;                               \
            _exit(0);                           \
        }                                       \
        status = -1;                            \
        waitpid(pid_, &status, 0);              \
    } while (0)
