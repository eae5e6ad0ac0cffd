/* Tracees in detail, ptrace(2): what is asked about them, and how they stop. */
#include "tracing.h"

static void calls(void) {
    hear(SIGUSR1);
    syscall(SYS_getppid, 0x77001);
    _exit(caught == SIGUSR1 && caught_code == SI_KERNEL ? 5 : caught);
}

/* Up to the call that has a mark. */
static int to_call(pid_t pid) {
    struct user_regs_struct registers;
    int status;
    do {
        status = go(PTRACE_SYSCALL, pid, 0);
        trace(PTRACE_GETREGS, pid, 0, (long)&registers);
    } while (WIFSTOPPED(status) && registers.rdi != 0x77001);
    return status;
}

static void call_stops(void) {
    pid_t pid = start(calls, PTRACE_O_TRACESYSGOOD);
    struct ptrace_syscall_info call;
    unsigned long message = 99;
    EQ("message of the first stop", (trace(PTRACE_GETEVENTMSG, pid, 0, (long)&message), message), 0);
    EQ("no call", (trace(PTRACE_GET_SYSCALL_INFO, pid, sizeof call, (long)&call), call.op), PTRACE_SYSCALL_INFO_NONE);
    EQ("a call", to_call(pid), CALL);
    EQ("message of its entry", (trace(PTRACE_GETEVENTMSG, pid, 0, (long)&message), message), PTRACE_EVENTMSG_SYSCALL_ENTRY);
    memset(&call, 0x55, sizeof call);
    EQ("without room", trace(PTRACE_GET_SYSCALL_INFO, pid, 0, (long)&call), offsetof(struct ptrace_syscall_info, entry.args) + 48);
    EQ("nothing written", call.op, 0x55);
    EQ("a little room", trace(PTRACE_GET_SYSCALL_INFO, pid, 1, (long)&call), offsetof(struct ptrace_syscall_info, entry.args) + 48);
    EQ("its kind", call.op, PTRACE_SYSCALL_INFO_ENTRY);
    EQ("and no more", call.arch, 0x55555555);
    ERR("nowhere", trace(PTRACE_GET_SYSCALL_INFO, pid, sizeof call, 8), EFAULT);
    EQ("given at its entry", go(PTRACE_CONT, pid, SIGUSR1), STOPPED(SIGUSR1));
    siginfo_t info;
    trace(PTRACE_GETSIGINFO, pid, 0, (long)&info);
    EQ("a signal from the kernel", info.si_code, SI_KERNEL);
    finish(pid);
    pid = start(calls, 0);
    EQ("not told from others", to_call(pid), STOPPED(SIGTRAP));
    trace(PTRACE_GET_SYSCALL_INFO, pid, sizeof call, (long)&call);
    EQ("nor asked about", call.op, PTRACE_SYSCALL_INFO_NONE);
    trace(PTRACE_GETSIGINFO, pid, 0, (long)&info);
    EQ("its code", info.si_code, SIGTRAP);
    EQ("whose", info.si_pid, pid);
    finish(pid);
    /* Numbers without a call: only -1 calls it off. */
    pid = start(calls, PTRACE_O_TRACESYSGOOD);
    to_call(pid);
    trace(PTRACE_POKEUSR, pid, offsetof(struct user, regs.orig_rax), -2L);
    trace(PTRACE_POKEUSR, pid, offsetof(struct user, regs.rax), 7);
    go(PTRACE_SYSCALL, pid, 0);
    memset(&call, 0, sizeof call);
    EQ("the end's size", trace(PTRACE_GET_SYSCALL_INFO, pid, sizeof call, (long)&call), offsetof(struct ptrace_syscall_info, exit.is_error) + 1);
    EQ("no such call", call.exit.rval, -ENOSYS);
    EQ("an error", call.exit.is_error, 1);
    EQ("message of the end", (trace(PTRACE_GETEVENTMSG, pid, 0, (long)&message), message), PTRACE_EVENTMSG_SYSCALL_EXIT);
    finish(pid);
}

static void register_sets(void) {
    pid_t pid = start(calls, 0);
    struct user_regs_struct registers, changed;
    char room[8192];
    struct iovec set = {room, 7};
    ERR("a part of a word", trace(PTRACE_GETREGSET, pid, 1, (long)&set), EINVAL);
    set.iov_len = 8;
    OK("one word", trace(PTRACE_GETREGSET, pid, 1, (long)&set));
    EQ("that much", set.iov_len, 8);
    set.iov_len = 0;
    OK("none", trace(PTRACE_GETREGSET, pid, 1, (long)&set));
    set.iov_len = sizeof room;
    OK("all", trace(PTRACE_GETREGSET, pid, 1, (long)&set));
    EQ("are", set.iov_len, sizeof registers);
    set.iov_len = sizeof room;
    ERR("a strange set", trace(PTRACE_GETREGSET, pid, 0x999, (long)&set), EINVAL);
    ERR("a set nowhere", trace(PTRACE_GETREGSET, pid, 1, 8), EFAULT);
    struct iovec nowhere = {(void *)8, 216};
    ERR("to nowhere", trace(PTRACE_GETREGSET, pid, 1, (long)&nowhere), EFAULT);
    set.iov_len = sizeof room;
    OK("floating point", trace(PTRACE_GETREGSET, pid, 2, (long)&set));
    EQ("its size", set.iov_len, 512);
    OK("set", trace(PTRACE_SETREGSET, pid, 2, (long)&set));
    set.iov_len = 64;
    ERR("a part of it", trace(PTRACE_SETREGSET, pid, 2, (long)&set), EINVAL);
    set.iov_len = 512;
    *(uint32_t *)(room + 24) = 0xffffffff;
    ERR("bad control word", trace(PTRACE_SETREGSET, pid, 2, (long)&set), EINVAL);
    set.iov_len = sizeof room;
    OK("vector state", trace(PTRACE_GETREGSET, pid, 0x202, (long)&set));
    set.iov_len = 64;
    ERR("a part of that", trace(PTRACE_SETREGSET, pid, 0x202, (long)&set), EFAULT);
    OK("registers", trace(PTRACE_GETREGS, pid, 0, (long)&registers));
    changed = registers;
    changed.cs = 0;
    ERR("no code segment", trace(PTRACE_SETREGS, pid, 0, (long)&changed), EIO);
    changed = registers;
    changed.ss = 0x28;
    ERR("another's stack segment", trace(PTRACE_SETREGS, pid, 0, (long)&changed), EIO);
    changed = registers;
    changed.fs_base = 1UL << 63;
    ERR("a base far out", trace(PTRACE_SETREGS, pid, 0, (long)&changed), EIO);
    changed = registers;
    changed.r15 = 0x1234;
    changed.eflags |= 1 << 9 | 3 << 12;
    OK("change", trace(PTRACE_SETREGS, pid, 0, (long)&changed));
    trace(PTRACE_GETREGS, pid, 0, (long)&changed);
    EQ("changed", changed.r15, 0x1234);
    EQ("but not the flags", changed.eflags, registers.eflags);
    ERR("registers nowhere", trace(PTRACE_GETREGS, pid, 0, 8), EFAULT);
    long word = 0;
    ERR("between words", trace(PTRACE_PEEKUSR, pid, 4, (long)&word), EIO);
    ERR("behind all", trace(PTRACE_PEEKUSR, pid, 1 << 14, (long)&word), EIO);
    OK("the last word", trace(PTRACE_PEEKUSR, pid, sizeof(struct user) - 8, (long)&word));
    ERR("poke between words", trace(PTRACE_POKEUSR, pid, 4, 0), EIO);
    ERR("poke what is not there", trace(PTRACE_POKEUSR, pid, offsetof(struct user, u_comm), 0), EIO);
    OK("poke", trace(PTRACE_POKEUSR, pid, offsetof(struct user, regs.r15), 5));
    ERR("poke a segment", trace(PTRACE_POKEUSR, pid, offsetof(struct user, regs.cs), 0), EIO);
    OK("address of a breakpoint", trace(PTRACE_POKEUSR, pid, offsetof(struct user, u_debugreg[0]), 0x1000));
    OK("what it is", trace(PTRACE_PEEKUSR, pid, offsetof(struct user, u_debugreg[0]), (long)&word));
    EQ("the same", word, 0x1000);
    ERR("address of no program", trace(PTRACE_POKEUSR, pid, offsetof(struct user, u_debugreg[1]), 1UL << 63), EINVAL);
    ERR("a register that is not there", trace(PTRACE_POKEUSR, pid, offsetof(struct user, u_debugreg[4]), 0), EIO);
    OK("no breakpoints", trace(PTRACE_POKEUSR, pid, offsetof(struct user, u_debugreg[7]), 0));
    unsigned long base = 0;
    OK("a base", trace(30, pid, (long)&base, 0x1003));
    EQ("is the register", base, registers.fs_base);
    ERR("strange request", trace(0x4299, pid, 0, 0), EIO);
    ERR("strange options", trace(PTRACE_SETOPTIONS, pid, 0, 1UL << 40), EINVAL);
    finish(pid);
}

static void pending_signals(void) {
    pid_t pid = start(calls, 0);
    uint64_t mask = 0;
    ERR("mask of another size", trace(PTRACE_GETSIGMASK, pid, 16, (long)&mask), EINVAL);
    ERR("mask nowhere", trace(PTRACE_GETSIGMASK, pid, 8, 8), EFAULT);
    OK("mask", trace(PTRACE_GETSIGMASK, pid, 8, (long)&mask));
    EQ("is empty", mask, 0);
    mask = ~0ULL;
    ERR("set with another size", trace(PTRACE_SETSIGMASK, pid, 4, (long)&mask), EINVAL);
    OK("set", trace(PTRACE_SETSIGMASK, pid, 8, (long)&mask));
    OK("mask then", trace(PTRACE_GETSIGMASK, pid, 8, (long)&mask));
    EQ("has all but two", ~mask, 1ULL << (SIGKILL - 1) | 1ULL << (SIGSTOP - 1));
    struct __ptrace_peeksiginfo_args {
        uint64_t off;
        uint32_t flags;
        int32_t nr;
    } look = {0, 0, -1};
    siginfo_t infos[4];
    ERR("fewer than none", trace(PTRACE_PEEKSIGINFO, pid, (long)&look, (long)infos), EINVAL);
    look.nr = 4;
    ERR("nowhere to ask", trace(PTRACE_PEEKSIGINFO, pid, 8, (long)infos), EFAULT);
    EQ("nothing pending", trace(PTRACE_PEEKSIGINFO, pid, (long)&look, (long)infos), 0);
    kill(pid, SIGUSR1);
    union sigval value = {.sival_int = 7};
    sigqueue(pid, SIGRTMIN, value);
    EQ("none of its own", trace(PTRACE_PEEKSIGINFO, pid, (long)&look, (long)infos), 0);
    look.flags = PTRACE_PEEKSIGINFO_SHARED;
    EQ("two of all", trace(PTRACE_PEEKSIGINFO, pid, (long)&look, (long)infos), 2);
    EQ("the second", infos[1].si_value.sival_int, 7);
    look.off = 1;
    EQ("from the second on", trace(PTRACE_PEEKSIGINFO, pid, (long)&look, (long)infos), 1);
    look.off = ~0ULL;
    EQ("from far out", trace(PTRACE_PEEKSIGINFO, pid, (long)&look, (long)infos), 0);
    look.off = 0;
    ERR("to nowhere", trace(PTRACE_PEEKSIGINFO, pid, (long)&look, 8), EFAULT);
    char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(pages + 4096, 4096);
    EQ("the part that has room", trace(PTRACE_PEEKSIGINFO, pid, (long)&look, (long)(pages + 4096 - sizeof(siginfo_t))), 1);
    mask = 0;
    OK("open again", trace(PTRACE_SETSIGMASK, pid, 8, (long)&mask));
    EQ("the first comes", go(PTRACE_CONT, pid, 0), STOPPED(SIGUSR1));
    siginfo_t info;
    OK("its details", trace(PTRACE_GETSIGINFO, pid, 0, (long)&info));
    EQ("sender", info.si_pid, getpid());
    info.si_code = SI_KERNEL;
    ERR("details nowhere", trace(PTRACE_SETSIGINFO, pid, 0, 8), EFAULT);
    OK("other details", trace(PTRACE_SETSIGINFO, pid, 0, (long)&info));
    trace(PTRACE_CONT, pid, 0, 0);
    finish(pid);
}

static void group_stops(void) {
    pid_t pid = start(stops_itself, 0);
    int status = go(PTRACE_CONT, pid, 0);
    EQ("before the stop", status, STOPPED(SIGTSTP));
    siginfo_t info;
    OK("a signal's details", trace(PTRACE_GETSIGINFO, pid, 0, (long)&info));
    EQ("its state", state(pid), 't');
    EQ("without it", go(PTRACE_CONT, pid, 0), STOPPED(SIGSTOP));
    EQ("with it", go(PTRACE_CONT, pid, SIGSTOP), STOPPED(SIGSTOP));
    ERR("a group's stop has no details", trace(PTRACE_GETSIGINFO, pid, 0, (long)&info), EINVAL);
    ERR("nor can it have", trace(PTRACE_SETSIGINFO, pid, 0, (long)&info), EINVAL);
    EQ("its state again", state(pid), 't');
    EQ("goes on", go(PTRACE_CONT, pid, 0), 7 << 8);
    /* The state of a group outlives its tracing. */
    pid = start(stops_itself, 0);
    go(PTRACE_CONT, pid, 0);
    go(PTRACE_CONT, pid, 0);
    EQ("stopped", go(PTRACE_CONT, pid, SIGSTOP), STOPPED(SIGSTOP));
    OK("left", trace(PTRACE_DETACH, pid, 0, 0));
    UNTIL(state(pid) == 'T');
    EQ("still stopped", state(pid), 'T');
    kill(pid, SIGCONT);
    EQ("and continued", wait_for(pid), 7 << 8);
}

static void seized_stops(void) {
    pid_t pid = sleeper();
    kill(pid, SIGSTOP);
    UNTIL(state(pid) == 'T');
    OK("attach to what is stopped", trace(PTRACE_ATTACH, pid, 0, 0));
    OK("it is a tracee's stop at once", trace(PTRACE_SETOPTIONS, pid, 0, 0));
    EQ("it tells", wait_for(pid), STOPPED(SIGSTOP));
    EQ("and gets the signal", go(PTRACE_CONT, pid, 0), STOPPED(SIGSTOP));
    siginfo_t info;
    trace(PTRACE_GETSIGINFO, pid, 0, (long)&info);
    EQ("which the kernel sent", info.si_code, SI_KERNEL);
    finish(pid);
    pid = sleeper();
    kill(pid, SIGSTOP);
    UNTIL(state(pid) == 'T');
    OK("seize what is stopped", trace(PTRACE_SEIZE, pid, 0, 0));
    OK("that is one as well", trace(PTRACE_SETOPTIONS, pid, 0, 0));
    EQ("it tells, too", wait_for(pid), STOPPED(SIGSTOP) | PTRACE_EVENT_STOP << 16);
    OK("let it go on", trace(PTRACE_CONT, pid, 0, 0));
    OK("interrupt", trace(PTRACE_INTERRUPT, pid, 0, 0));
    EQ("its group is still stopped", wait_for(pid), STOPPED(SIGSTOP) | PTRACE_EVENT_STOP << 16);
    trace(PTRACE_CONT, pid, 0, 0);
    kill(pid, SIGCONT);
    EQ("the end of that", wait_for(pid), STOPPED(SIGTRAP) | PTRACE_EVENT_STOP << 16);
    EQ("and its signal", go(PTRACE_CONT, pid, 0), STOPPED(SIGCONT));
    trace(PTRACE_CONT, pid, 0, 0);
    kill(pid, SIGCONT);
    EQ("also without a stop", wait_for(pid), STOPPED(SIGTRAP) | PTRACE_EVENT_STOP << 16);
    EQ("and again its signal", go(PTRACE_CONT, pid, 0), STOPPED(SIGCONT));
    finish(pid);
}

static void vforks(void) {
    pid_t pid = vfork();
    if (pid == 0)
        _exit(0);
    waitpid(pid, NULL, 0);
    _exit(1);
}

static void events(void) {
    unsigned long message = 0, inner = 0;
    pid_t pid = start(vforks, PTRACE_O_TRACEVFORK | PTRACE_O_TRACEVFORKDONE);
    EQ("a vfork", go(PTRACE_CONT, pid, 0), EVENT(PTRACE_EVENT_VFORK));
    trace(PTRACE_GETEVENTMSG, pid, 0, (long)&inner);
    EQ("its child", wait_for(inner), STOPPED(SIGSTOP));
    trace(PTRACE_CONT, pid, 0, 0);
    EQ("which ends", go(PTRACE_CONT, inner, 0), 0);
    EQ("done", wait_for(pid), EVENT(PTRACE_EVENT_VFORK_DONE));
    trace(PTRACE_GETEVENTMSG, pid, 0, (long)&message);
    EQ("the same", message, inner);
    EQ("its end is heard", go(PTRACE_CONT, pid, 0), STOPPED(SIGCHLD));
    EQ("over", go(PTRACE_CONT, pid, SIGCHLD), 1 << 8);
}

static void states(void) {
    pid_t pid = start(rests, 0);
    ERR("traced already", trace(PTRACE_SEIZE, pid, 0, 0), EPERM);
    ERR("by attaching, too", trace(PTRACE_ATTACH, pid, 0, 0), EPERM);
    siginfo_t info = {0};
    trace(PTRACE_CONT, pid, 0, 0);
    UNTIL(state(pid) == 'S');
    kill(pid, SIGUSR1);
    EQ("waitid", waitid(P_PID, pid, &info, WEXITED | WNOWAIT), 0);
    EQ("trapped", info.si_code, CLD_TRAPPED);
    EQ("by this", info.si_status, SIGUSR1);
    EQ("still there", wait_for(pid), STOPPED(SIGUSR1));
    EQ("once", waitpid(pid, NULL, WNOHANG | __WALL), 0);
    OK("killed by request", trace(PTRACE_KILL, pid, 0, 0));
    EQ("it is", wait_for(pid), SIGKILL);
    ERR("no more", trace(PTRACE_KILL, pid, 0, 0), ESRCH);
    /* A zombie is nobody's tracee. */
    fflush(stdout);
    pid = fork();
    if (pid == 0)
        _exit(0);
    UNTIL(state(pid) == 'Z');
    ERR("a zombie", trace(PTRACE_ATTACH, pid, 0, 0), EPERM);
    ERR("a zombie to seize", trace(PTRACE_SEIZE, pid, 0, 0), EPERM);
    wait_for(pid);
    int status;
    CHILD(status, trace(PTRACE_TRACEME, 0, 0, 0); _exit(trace(PTRACE_TRACEME, 0, 0, 0) ? errno : 0));
    EQ("traced twice", status, EPERM << 8);
}

int main(void) {
    alarm(30);
    shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    call_stops();
    register_sets();
    pending_signals();
    group_stops();
    seized_stops();
    events();
    states();
    return 0;
}
