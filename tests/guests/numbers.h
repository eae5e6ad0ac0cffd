/* PID namespaces as the programs about them use them. */
#include "case.h"
#include <linux/sched.h>

static char buffer[1 << 16];

/* What both sides of a namespace's edge see. */
static volatile struct {
    int step;
    int pids[8];
    int futex;
} *shared;

/* Runs `body` as the first process of a namespace, and waits for it. */
#define INSIDE(...)                                \
    ({                                              \
        int status_ = -1;                           \
        shared->pids[7] = 0;                        \
        fflush(stdout);                             \
        pid_t outer_ = fork();                      \
        if (!outer_) {                              \
            if (unshare(CLONE_NEWPID))              \
                _exit(99);                          \
            pid_t init_ = fork();                   \
            if (!init_) {                           \
                __VA_ARGS__;                        \
                _exit(0);                           \
            }                                       \
            shared->pids[7] = init_;                \
            waitpid(init_, &status_, 0);            \
            if (WIFSIGNALED(status_))               \
                _exit(100 + WTERMSIG(status_));     \
            _exit(WEXITSTATUS(status_));            \
        }                                           \
        waitpid(outer_, &status_, 0);               \
        WIFEXITED(status_) ? WEXITSTATUS(status_) : 1000 + status_; \
    })

static inline const char *read_file(const char *name) {
    int fd = open(name, O_RDONLY);
    long count = fd < 0 ? -1 : read(fd, buffer, sizeof buffer - 1);
    close(fd);
    buffer[count < 0 ? 0 : count] = 0;
    return buffer;
}

/* A line of a file by its label, without the label. */
static inline const char *line(const char *name, const char *label) {
    static char found[256];
    const char *at = strstr(read_file(name), label);
    found[0] = 0;
    if (at)
        sscanf(at + strlen(label), "%255[^\n]", found);
    return found;
}

static inline int write_file(const char *name, const char *text) {
    int fd = open(name, O_WRONLY);
    int result = fd < 0 || write(fd, text, strlen(text)) < 0 ? -1 : 0, number = errno;
    close(fd);
    errno = number;
    return result;
}

static inline int await(pid_t pid) {
    int status = -1;
    return waitpid(pid, &status, 0) == pid ? status : -1;
}

static inline long raw_clone(unsigned long flags) {
    return syscall(SYS_clone, flags, 0, 0, 0, 0);
}

static volatile int seen, sender;

static inline void note(int number, siginfo_t *info, void *context) {
    seen = number;
    sender = info->si_pid;
}

static inline void handle(int number) {
    struct sigaction action = {.sa_sigaction = note, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigaction(number, &action, NULL);
}

static inline void begin(void) {
    alarm(60);
    setvbuf(stdout, NULL, _IOLBF, 0);
    shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

/* A process with chosen numbers, the innermost first, which answers its own. */
static inline long choose(const pid_t *numbers, size_t count, unsigned long flags) {
    struct clone_args arguments = {.flags = flags, .exit_signal = SIGCHLD, .set_tid = (uintptr_t)numbers, .set_tid_size = count};
    long made = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (!made)
        _exit(getpid() & 0x7f);
    return made;
}
