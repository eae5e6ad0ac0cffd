/* Filters on a program's own system calls, seccomp(2). */
#include "case.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define ANSWER(value) BPF_STMT(BPF_RET | BPF_K, value)
#define FOR(call, answer) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1), ANSWER(answer)
#define INSTALL(flags, ...)                                                                      \
    ({                                                                                           \
        struct sock_filter program_[] = {__VA_ARGS__};                                           \
        struct sock_fprog given_ = {sizeof program_ / sizeof program_[0], program_};             \
        (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &given_);                      \
    })

static volatile int trapped, number, data, code, before;
static void trap(int signal, siginfo_t *info, void *context) {
    trapped++;
    number = info->si_syscall;
    data = info->si_errno;
    code = info->si_code;
}

static volatile int is_installed;
static void *other_thread(void *unused) {
    UNTIL(is_installed);
    errno = 0;
    long result = syscall(SYS_getppid);
    return (void *)(result == -1 ? (long)errno : 0);
}

static void *killed_thread(void *unused) {
    syscall(SYS_getppid);
    return NULL;
}

int main(void) {
    int status;
    alarm(20);
    EQ("no mode", prctl(PR_GET_SECCOMP), 0);
    ERR("strange operation", syscall(SYS_seccomp, 99, 0, NULL), EINVAL);
    ERR("strict with flags", syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 1, NULL), EINVAL);
    ERR("strange flags", INSTALL(1 << 20, ANSWER(SECCOMP_RET_ALLOW)), EINVAL);
    uint32_t action = SECCOMP_RET_TRAP;
    OK("action there", syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action));
    action = 0x12340000;
    ERR("action strange", syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action), EOPNOTSUPP);
    ERR("no program", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, NULL), EFAULT);
    struct sock_fprog none = {0, NULL};
    ERR("empty program", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &none), EINVAL);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    ERR("no end", INSTALL(0, LOAD(nr)), EINVAL);
    ERR("past the data", INSTALL(0, BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 64), ANSWER(0)), EINVAL);
    ERR("odd place", INSTALL(0, BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 2), ANSWER(0)), EINVAL);
    ERR("a byte", INSTALL(0, BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0), ANSWER(0)), EINVAL);
    ERR("jump out", INSTALL(0, BPF_JUMP(BPF_JMP | BPF_JA, 5, 0, 0), ANSWER(0)), EINVAL);
    ERR("division by zero", INSTALL(0, BPF_STMT(BPF_ALU | BPF_DIV | BPF_K, 0), ANSWER(0)), EINVAL);
    ERR("scratch", INSTALL(0, BPF_STMT(BPF_ST, 16), ANSWER(0)), EINVAL);
    CHILD(status, {
        if (INSTALL(0, LOAD(nr), FOR(SYS_getppid, SECCOMP_RET_ERRNO | 77), ANSWER(SECCOMP_RET_ALLOW)))
            _exit(1);
        if (syscall(SYS_getppid) != -1 || errno != 77)
            _exit(2);
        if (prctl(PR_GET_SECCOMP) != 2)
            _exit(3);
        pid_t child = fork();
        if (child == 0)
            _exit(syscall(SYS_getppid) == -1 ? errno : 0);
        int inner;
        waitpid(child, &inner, 0);
        if (inner != 77 << 8)
            _exit(4);
        for (int i = 0; i < 200; i++)
            if (syscall(SYS_getppid) != -1)
                _exit(5);
        /* A second filter: the stricter answer counts. */
        if (INSTALL(0, LOAD(nr), FOR(SYS_getppid, SECCOMP_RET_ALLOW), FOR(SYS_getuid, SECCOMP_RET_ERRNO), ANSWER(SECCOMP_RET_LOG)))
            _exit(6);
        if (syscall(SYS_getppid) != -1 || syscall(SYS_getuid) != 0)
            _exit(7);
    });
    EQ("error number", status, 0);
    CHILD(status, {
        INSTALL(0, LOAD(nr), FOR(SYS_getppid, SECCOMP_RET_ERRNO | 9), ANSWER(SECCOMP_RET_ALLOW));
        execl("/bin/sh", "sh", "-c", "grep -q 'Seccomp:.*2' /proc/self/status && exit 12", NULL);
    });
    EQ("stays over exec", status, 12 << 8);
    CHILD(status, INSTALL(0, LOAD(nr), FOR(SYS_getppid, SECCOMP_RET_KILL_PROCESS), ANSWER(SECCOMP_RET_ALLOW)); syscall(SYS_getppid));
    EQ("killed", status & 0x7f, SIGSYS);
    CHILD(status, INSTALL(0, LOAD(nr), FOR(SYS_getppid, SECCOMP_RET_KILL_THREAD), ANSWER(SECCOMP_RET_ALLOW)); pthread_t t;
          pthread_create(&t, NULL, killed_thread, NULL); pthread_join(t, NULL); _exit(5));
    EQ("only the thread", status, 5 << 8);
    CHILD(status, {
        struct sigaction handler = {.sa_sigaction = trap, .sa_flags = SA_SIGINFO};
        sigaction(SIGSYS, &handler, NULL);
        INSTALL(0, LOAD(nr), FOR(SYS_getppid, SECCOMP_RET_TRAP | 5), ANSWER(SECCOMP_RET_ALLOW));
        before = syscall(SYS_getppid);
        if (trapped != 1 || number != SYS_getppid || data != 5 || code != 1)
            _exit(1);
        if (before != SYS_getppid)
            _exit(2);
    });
    EQ("trapped", status, 0);
    CHILD(status, {
        INSTALL(0, LOAD(nr), FOR(SYS_getppid, SECCOMP_RET_TRACE), ANSWER(SECCOMP_RET_ALLOW));
        _exit(syscall(SYS_getppid) == -1 ? errno : 0);
    });
    EQ("nobody traces", status, ENOSYS << 8);
    CHILD(status, {
        INSTALL(0, LOAD(nr), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 0, 3), LOAD(args[0]),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 99, 0, 1), ANSWER(SECCOMP_RET_ERRNO | 33), ANSWER(SECCOMP_RET_ALLOW));
        if (write(99, "", 0) != -1 || errno != 33)
            _exit(1);
        if (write(98, "", 0) != -1 || errno != EBADF)
            _exit(2);
    });
    EQ("arguments", status, 0);
    CHILD(status, {
        pthread_t t;
        void *result;
        pthread_create(&t, NULL, other_thread, NULL);
        if (INSTALL(SECCOMP_FILTER_FLAG_TSYNC, LOAD(nr), FOR(SYS_getppid, SECCOMP_RET_ERRNO | 44), ANSWER(SECCOMP_RET_ALLOW)))
            _exit(1);
        is_installed = 1;
        pthread_join(t, &result);
        _exit((long)result);
    });
    EQ("every thread", status, 44 << 8);
    CHILD(status, prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT); write(99, "", 0); syscall(SYS_exit, 3));
    EQ("strict lets exit", status, 3 << 8);
    CHILD(status, prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT); getppid());
    EQ("strict kills", status & 0x7f, SIGKILL);
    return 0;
}
