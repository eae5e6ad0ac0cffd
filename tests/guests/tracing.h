/* What the programs about tracing share: ptrace(2) itself, waiting for tracees, and children that are traced. */
#include "case.h"
#include <linux/ptrace.h>
#include <stddef.h>
#include <sys/user.h>

static inline long trace(long request, pid_t pid, unsigned long address, unsigned long data) {
    return syscall(SYS_ptrace, request, pid, address, data);
}

/* Waits for news of this process or thread; answers its status. */
static inline int wait_for(pid_t pid) {
    int status = -1;
    return waitpid(pid, &status, __WALL) < 0 ? -errno : status;
}

static inline int go(long request, pid_t pid, int number) {
    if (trace(request, pid, 0, number))
        return -errno;
    return wait_for(pid);
}

#define STOPPED(number) ((number) << 8 | 0x7f)
#define EVENT(event) (SIGTRAP << 8 | 0x7f | (event) << 16)
#define CALL STOPPED(SIGTRAP | 0x80)

/* A child that is traced by its parent and stopped; it runs this then. */
static inline pid_t start(void (*body)(void), unsigned long options) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(20);
        trace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        body();
        _exit(0);
    }
    wait_for(pid);
    trace(PTRACE_SETOPTIONS, pid, 0, options | PTRACE_O_EXITKILL);
    return pid;
}

static inline void finish(pid_t pid) {
    kill(pid, SIGKILL);
    while (WIFSTOPPED(wait_for(pid)))
        ;
}

static inline char state(pid_t pid) {
    char name[64], text[512] = "";
    snprintf(name, sizeof name, "/proc/%d/stat", pid);
    int fd = open(name, O_RDONLY);
    if (fd < 0)
        return '?';
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    char *end = length > 0 ? strrchr(text, ')') : NULL;
    return end ? end[2] : '?';
}

/* Memory that processes share; what its words mean is up to each case. */
static volatile long *shared;

static volatile int caught, caught_code;
static inline void note(int number, siginfo_t *info, void *context) {
    caught = number;
    caught_code = info->si_code;
}

static inline void hear(int number) {
    struct sigaction action = {.sa_sigaction = note, .sa_flags = SA_SIGINFO};
    sigaction(number, &action, NULL);
}

static inline void rests(void) {
    for (;;)
        pause();
}

static inline void stops_itself(void) {
    raise(SIGTSTP);
    raise(SIGSTOP);
    _exit(7);
}

static inline pid_t sleeper(void) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(20);
        rests();
    }
    UNTIL(state(pid) == 'S');
    return pid;
}
