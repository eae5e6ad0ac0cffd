/* Filters that leave calls to a tracer, seccomp(2) and ptrace(2); what else filters do that filters.c does not show. */
#include "case.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/ptrace.h>
#include <sys/user.h>

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define ANSWER(value) BPF_STMT(BPF_RET | BPF_K, value)
#define FOR(call, answer) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1), ANSWER(answer)
#define INSTALL(flags, ...)                                                     \
    ({                                                                          \
        struct sock_filter program_[] = {__VA_ARGS__};                          \
        struct sock_fprog given_ = {sizeof program_ / sizeof program_[0], program_}; \
        (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &given_);     \
    })
#define LET_IN(...) ({ int status_; CHILD(status_, _exit(INSTALL(0, __VA_ARGS__) == -1 ? errno : 0)); WEXITSTATUS(status_); })

/* What a child says about itself: its exit status. Its filters are made before its tracer looks on. */
static pid_t start(int (*body)(void)) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(15);
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        _exit(body());
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return pid;
}

static int next(pid_t pid, int request, int number) {
    int status = -1;
    ptrace(request, pid, 0, number);
    waitpid(pid, &status, __WALL);
    return status;
}

static int calls_once(void) {
    pid_t parent = getppid();
    INSTALL(0, LOAD(nr), FOR(SYS_getppid, SECCOMP_RET_TRACE | 0x1234), ANSWER(SECCOMP_RET_ALLOW));
    errno = 0;
    long value = syscall(SYS_getppid, 0x77001, 12, 13, 14, 15, 16);
    return value == -1 ? errno : value == parent ? 200 : value;
}

static int calls_guarded(void) {
    INSTALL(0, LOAD(nr), FOR(SYS_getppid, SECCOMP_RET_TRACE | 1), FOR(SYS_getuid, SECCOMP_RET_ERRNO | 44), FOR(SYS_getgid, SECCOMP_RET_TRACE),
            ANSWER(SECCOMP_RET_ALLOW));
    errno = 0;
    long value = syscall(SYS_getppid);
    return value == -1 ? errno : value;
}

#define AT_FILTER (SIGTRAP << 8 | 0x7f | PTRACE_EVENT_SECCOMP << 16)

static struct user_regs_struct registers(pid_t pid) {
    struct user_regs_struct values = {0};
    ptrace(PTRACE_GETREGS, pid, 0, &values);
    return values;
}

static void without_option(void) {
    pid_t pid = start(calls_once);
    EQ("without the option", next(pid, PTRACE_CONT, 0), ENOSYS << 8);
}

static void goes_on(void) {
    pid_t pid = start(calls_once);
    OK("option", ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESECCOMP));
    EQ("event", next(pid, PTRACE_CONT, 0), AT_FILTER);
    unsigned long message = 0;
    OK("message", ptrace(PTRACE_GETEVENTMSG, pid, 0, &message));
    EQ("is the data", message, 0x1234);
    siginfo_t info;
    memset(&info, 0, sizeof info);
    OK("siginfo", ptrace(PTRACE_GETSIGINFO, pid, 0, &info));
    EQ("its code", info.si_code, SIGTRAP | PTRACE_EVENT_SECCOMP << 8);
    struct user_regs_struct values = registers(pid);
    EQ("number", values.orig_rax, SYS_getppid);
    EQ("result before", (long)values.rax, -ENOSYS);
    EQ("argument", values.rdi, 0x77001);
    struct __ptrace_syscall_info call;
    memset(&call, 0, sizeof call);
    EQ("information", ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof call, &call), offsetof(struct __ptrace_syscall_info, seccomp.ret_data) + 4);
    EQ("its kind", call.op, PTRACE_SYSCALL_INFO_SECCOMP);
    EQ("its number", call.seccomp.nr, SYS_getppid);
    EQ("its data", call.seccomp.ret_data, 0x1234);
    EQ("its last argument", call.seccomp.args[5], 16);
    EQ("its instruction", call.instruction_pointer, values.rip);
    EQ("its stack", call.stack_pointer, values.rsp);
    EQ("goes on", next(pid, PTRACE_CONT, 0), 200 << 8);
}

static void changes(void) {
    pid_t pid = start(calls_once);
    ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESECCOMP);
    next(pid, PTRACE_CONT, 0);
    struct user_regs_struct values = registers(pid);
    values.orig_rax = SYS_dup;
    values.rdi = 9999;
    OK("another number and argument", ptrace(PTRACE_SETREGS, pid, 0, &values));
    EQ("is what is done", next(pid, PTRACE_CONT, 0), EBADF << 8);

    pid = start(calls_once);
    ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESECCOMP);
    next(pid, PTRACE_CONT, 0);
    values = registers(pid);
    values.orig_rax = -1;
    values.rax = 77;
    ptrace(PTRACE_SETREGS, pid, 0, &values);
    EQ("called off with a value", next(pid, PTRACE_CONT, 0), 77 << 8);

    pid = start(calls_once);
    ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESECCOMP);
    next(pid, PTRACE_CONT, 0);
    ptrace(PTRACE_POKEUSER, pid, offsetof(struct user_regs_struct, orig_rax), -1L);
    ptrace(PTRACE_POKEUSER, pid, offsetof(struct user_regs_struct, rax), (long)-EXDEV);
    EQ("called off with an error", next(pid, PTRACE_CONT, 0), EXDEV << 8);

    pid = start(calls_once);
    ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESECCOMP);
    next(pid, PTRACE_CONT, 0);
    ptrace(PTRACE_POKEUSER, pid, offsetof(struct user_regs_struct, orig_rax), 9999);
    EQ("no such call", next(pid, PTRACE_CONT, 0), ENOSYS << 8);

    pid = start(calls_guarded);
    ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESECCOMP);
    EQ("guarded", next(pid, PTRACE_CONT, 0), AT_FILTER);
    ptrace(PTRACE_POKEUSER, pid, offsetof(struct user_regs_struct, orig_rax), SYS_getuid);
    EQ("filters are asked once more", next(pid, PTRACE_CONT, 0), 44 << 8);

    pid = start(calls_guarded);
    ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESECCOMP);
    next(pid, PTRACE_CONT, 0);
    ptrace(PTRACE_POKEUSER, pid, offsetof(struct user_regs_struct, orig_rax), SYS_getgid);
    EQ("but not the tracer", next(pid, PTRACE_CONT, 0), getgid() << 8);
}

static void with_stops(void) {
    /* Both sorts of stops: first the call's own, then the filter's, then the end. */
    pid_t pid = start(calls_once);
    ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESECCOMP | PTRACE_O_TRACESYSGOOD);
    int status;
    do
        status = next(pid, PTRACE_SYSCALL, 0);
    while (WIFSTOPPED(status) && (registers(pid).orig_rax != SYS_getppid || registers(pid).rdi != 0x77001));
    EQ("entry", registers(pid).orig_rax, SYS_getppid);
    EQ("then the filter", next(pid, PTRACE_SYSCALL, 0), AT_FILTER);
    EQ("then the end", next(pid, PTRACE_SYSCALL, 0), (SIGTRAP | 0x80) << 8 | 0x7f);
    EQ("of the same", registers(pid).orig_rax, SYS_getppid);
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);

    /* Changed at its entry, it never comes to the filter. */
    pid = start(calls_once);
    ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESECCOMP | PTRACE_O_TRACESYSGOOD);
    do
        status = next(pid, PTRACE_SYSCALL, 0);
    while (WIFSTOPPED(status) && (registers(pid).orig_rax != SYS_getppid || registers(pid).rdi != 0x77001));
    ptrace(PTRACE_POKEUSER, pid, offsetof(struct user_regs_struct, orig_rax), SYS_getuid);
    EQ("changed at its entry", next(pid, PTRACE_SYSCALL, 0), (SIGTRAP | 0x80) << 8 | 0x7f);
    EQ("to this", registers(pid).orig_rax, SYS_getuid);
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);

    /* The tracer goes meanwhile: the call goes on. */
    pid = start(calls_once);
    ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESECCOMP);
    next(pid, PTRACE_CONT, 0);
    EQ("left at the filter", next(pid, PTRACE_DETACH, 0), 200 << 8);

    pid = start(calls_once);
    ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESECCOMP);
    next(pid, PTRACE_CONT, 0);
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    EQ("killed at the filter", status, SIGKILL);
}

static void checks(void) {
    EQ("load of what was not stored", LET_IN(BPF_STMT(BPF_LD | BPF_MEM, 3), ANSWER(SECCOMP_RET_ALLOW)), EINVAL);
    EQ("load of what was", LET_IN(BPF_STMT(BPF_ST, 3), BPF_STMT(BPF_LDX | BPF_MEM, 3), ANSWER(SECCOMP_RET_ALLOW)), 0);
    EQ("load of what may have been",
       LET_IN(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 3, 0, 1), BPF_STMT(BPF_ST, 3), BPF_STMT(BPF_LD | BPF_MEM, 3), ANSWER(SECCOMP_RET_ALLOW)), EINVAL);
    EQ("shift too far", LET_IN(BPF_STMT(BPF_ALU | BPF_LSH | BPF_K, 32), ANSWER(SECCOMP_RET_ALLOW)), EINVAL);
    EQ("remainder", LET_IN(BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, 3), ANSWER(SECCOMP_RET_ALLOW)), EINVAL);
    EQ("exclusive or", LET_IN(BPF_STMT(BPF_ALU | BPF_XOR | BPF_K, 3), ANSWER(SECCOMP_RET_ALLOW)), 0);
    EQ("indirect load", LET_IN(BPF_STMT(BPF_LD | BPF_W | BPF_IND, 0), ANSWER(SECCOMP_RET_ALLOW)), EINVAL);
    EQ("header length", LET_IN(BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, 0), ANSWER(SECCOMP_RET_ALLOW)), EINVAL);
    EQ("length", LET_IN(BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0), ANSWER(SECCOMP_RET_ALLOW)), 0);
    EQ("answer out of the index register", LET_IN(BPF_STMT(BPF_RET | BPF_X, 0)), EINVAL);
    EQ("strange code", LET_IN(BPF_STMT(0x1006, 0)), EINVAL);
    EQ("far jump", LET_IN(BPF_JUMP(BPF_JMP | BPF_JA, 0xffffffff, 0, 0), ANSWER(SECCOMP_RET_ALLOW)), EINVAL);
    static struct sock_filter many[BPF_MAXINSNS + 1];
    for (int i = 0; i <= BPF_MAXINSNS; i++)
        many[i] = (struct sock_filter)ANSWER(SECCOMP_RET_ALLOW);
    struct sock_fprog given = {BPF_MAXINSNS + 1, many};
    ERR("too long", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &given), EINVAL);
    given.len = BPF_MAXINSNS;
    int status;
    CHILD(status, {
        int count = 0;
        while (count < 20 && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &given) == 0)
            count++;
        _exit(errno == ENOMEM ? count : 99);
    });
    EQ("long ones together", status, 3 << 8);
    ERR("program nowhere", (given.filter = (void *)8, syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &given)), EFAULT);
    ERR("strict with an address", syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 0, &given), EINVAL);
    ERR("no such mode", prctl(PR_SET_SECCOMP, 3, &given), EINVAL);
    CHILD(status, INSTALL(0, ANSWER(SECCOMP_RET_ALLOW)); _exit(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == -1 ? errno : 0));
    EQ("strict after filters", status, EINVAL << 8);
    CHILD(status, INSTALL(0, LOAD(nr), FOR(SYS_getppid, SECCOMP_RET_ERRNO | 0xffff), ANSWER(SECCOMP_RET_ALLOW));
          _exit(syscall(SYS_getppid) == -1 && errno == 4095 ? 0 : 1));
    EQ("largest error number", status, 0);
    CHILD(status, INSTALL(0, LOAD(nr), FOR(SYS_getppid, 0x00070000), ANSWER(SECCOMP_RET_ALLOW)); syscall(SYS_getppid));
    EQ("strange answer", status & 0x7f, SIGSYS);
    CHILD(status, INSTALL(0, LOAD(nr), FOR(SYS_getppid, SECCOMP_RET_LOG | 5), ANSWER(SECCOMP_RET_ALLOW)); _exit(syscall(SYS_getppid) == -1));
    EQ("logged", status, 0);
    CHILD(status, INSTALL(0, LOAD(nr), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 2), BPF_STMT(BPF_LDX | BPF_IMM, 0),
                          BPF_STMT(BPF_ALU | BPF_DIV | BPF_X, 0), ANSWER(SECCOMP_RET_ALLOW));
          syscall(SYS_getppid));
    EQ("divides by nothing", status & 0x7f, SIGSYS);
}

static int has_two(void) {
    INSTALL(SECCOMP_FILTER_FLAG_LOG, ANSWER(SECCOMP_RET_ALLOW));
    INSTALL(0, LOAD(nr), FOR(SYS_getppid, SECCOMP_RET_ERRNO | 5), ANSWER(SECCOMP_RET_ALLOW));
    raise(SIGSTOP);
    errno = 0;
    return syscall(SYS_getppid) == -1 ? errno : 0;
}

#define GET_FILTER 0x420c
#define GET_METADATA 0x420d
#define ASK(request, address, data) syscall(SYS_ptrace, request, pid, address, data)

/* What a tracer learns of filters, and how it keeps them from counting. */
static void shown(void) {
    struct sock_filter program[8];
    struct {
        uint64_t index, flags;
    } about = {0, 99};
    pid_t pid = start(has_two);
    ERR("no filters", ASK(GET_FILTER, 0, program), EINVAL);
    next(pid, PTRACE_CONT, 0);
    EQ("length of the oldest", ASK(GET_FILTER, 0, NULL), 1);
    EQ("of the newest", ASK(GET_FILTER, 1, NULL), 4);
    ERR("of none", ASK(GET_FILTER, 2, NULL), ENOENT);
    ERR("nowhere", ASK(GET_FILTER, 1, 8), EFAULT);
    EQ("program", ASK(GET_FILTER, 1, program), 4);
    EQ("as it was given", program[2].k, SECCOMP_RET_ERRNO | 5);
    EQ("flags", ASK(GET_METADATA, sizeof about, &about), sizeof about);
    EQ("of the oldest", about.flags, SECCOMP_FILTER_FLAG_LOG);
    about.index = 1;
    EQ("flags again", ASK(GET_METADATA, 4096, &about), sizeof about);
    EQ("of the newest one", about.flags, 0);
    about.index = 2;
    ERR("flags of none", ASK(GET_METADATA, sizeof about, &about), ENOENT);
    about.index = 0;
    about.flags = 77;
    EQ("only the number", ASK(GET_METADATA, 8, &about), 8);
    EQ("so it is", about.flags, 77);
    ERR("less than that", ASK(GET_METADATA, 7, &about), EINVAL);
    ERR("flags nowhere", ASK(GET_METADATA, 16, 8), EFAULT);
    OK("suspend", ptrace(PTRACE_SETOPTIONS, pid, 0, 1 << 21));
    EQ("and nothing is refused", next(pid, PTRACE_CONT, 0), 0);
    pid = start(has_two);
    next(pid, PTRACE_CONT, 0);
    EQ("otherwise it is", next(pid, PTRACE_CONT, 0), 5 << 8);
    int status;
    CHILD(status, {
        pid = start(has_two);
        next(pid, PTRACE_CONT, 0);
        INSTALL(0, ANSWER(SECCOMP_RET_ALLOW));
        if (ASK(GET_FILTER, 0, NULL) != -1 || errno != EACCES)
            _exit(1);
        if (ptrace(PTRACE_SETOPTIONS, pid, 0, 1 << 21) != -1 || errno != EPERM)
            _exit(2);
        kill(pid, SIGKILL);
        _exit(0);
    });
    EQ("not for those who have filters", status, 0);
}

static volatile int installs, done;
static volatile pid_t other;
static void *has_its_own(void *unused) {
    other = syscall(SYS_gettid);
    if (installs)
        INSTALL(0, ANSWER(SECCOMP_RET_ALLOW));
    done = 1;
    for (;;)
        pause();
}

static void *goes_by_thread_kill(void *unused) {
    INSTALL(0, LOAD(nr), FOR(SYS_getppid, SECCOMP_RET_KILL_THREAD), ANSWER(SECCOMP_RET_ALLOW));
    syscall(SYS_getppid);
    return NULL;
}

static void threads(void) {
    int status;
    CHILD(status, {
        pthread_t thread;
        installs = 1;
        pthread_create(&thread, NULL, has_its_own, NULL);
        UNTIL(done);
        if (INSTALL(SECCOMP_FILTER_FLAG_TSYNC, ANSWER(SECCOMP_RET_ALLOW)) != other)
            _exit(1);
        if (INSTALL(SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH, ANSWER(SECCOMP_RET_ALLOW)) != -1 || errno != ESRCH)
            _exit(2);
        if (prctl(PR_GET_SECCOMP) != 0)
            _exit(3);
        _exit(0);
    });
    EQ("a thread with other filters", status, 0);
    CHILD(status, {
        pthread_t thread;
        pthread_create(&thread, NULL, has_its_own, NULL);
        UNTIL(done);
        INSTALL(0, ANSWER(SECCOMP_RET_ALLOW));
        if (INSTALL(SECCOMP_FILTER_FLAG_TSYNC, ANSWER(SECCOMP_RET_ALLOW)))
            _exit(1);
        _exit(0);
    });
    EQ("a thread with fewer", status, 0);
    CHILD(status, {
        pthread_t thread;
        pthread_create(&thread, NULL, goes_by_thread_kill, NULL);
        pthread_join(thread, NULL);
        _exit(6);
    });
    EQ("the thread alone", status, 6 << 8);
    CHILD(status, goes_by_thread_kill(NULL));
    EQ("the last thread", status & 0x7f, SIGSYS);
    struct sigaction action = {.sa_handler = SIG_IGN};
    CHILD(status, sigaction(SIGSYS, &action, NULL);
          INSTALL(0, LOAD(nr), FOR(SYS_getppid, SECCOMP_RET_TRAP), ANSWER(SECCOMP_RET_ALLOW)); syscall(SYS_getppid));
    EQ("trapped and ignored", status & 0x7f, SIGSYS);
}

int main(void) {
    alarm(30);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    without_option();
    goes_on();
    changes();
    with_stops();
    shown();
    checks();
    threads();
    return 0;
}
