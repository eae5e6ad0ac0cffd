/* Tracing, ptrace(2): stops, registers, memory, steps, system calls, events. */
#include "case.h"
#include <linux/ptrace.h>
#include <stddef.h>
#include <sys/user.h>

static long trace(long request, pid_t pid, unsigned long address, unsigned long data) {
    return syscall(SYS_ptrace, request, pid, address, data);
}

static volatile long word = 0x1122334455667788;
static volatile int counter;

__attribute__((noinline)) static void work(void) {
    counter++;
}

static volatile int caught;
static void count(int number) {
    caught++;
}

/* Waits for the next stop; answers signal and event. */
static int next(pid_t pid) {
    int status = 0;
    if (waitpid(pid, &status, __WALL) != pid)
        return -1;
    return WIFSTOPPED(status) ? status >> 8 : -2;
}

int main(void) {
    int status;
    struct user_regs_struct registers;
    alarm(20);
    ERR("not mine", trace(PTRACE_CONT, getppid(), 0, 0), ESRCH);
    ERR("none", trace(PTRACE_ATTACH, 999999, 0, 0), ESRCH);
    ERR("itself", trace(PTRACE_ATTACH, getpid(), 0, 0), EPERM);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        trace(PTRACE_TRACEME, 0, 0, 0);
        signal(SIGUSR1, count);
        raise(SIGSTOP);
        work();
        syscall(SYS_getppid);
        syscall(SYS_getuid);
        raise(SIGUSR1);
        raise(SIGUSR1);
        asm volatile("int3");
        pid_t inner = fork();
        if (inner == 0)
            _exit(4);
        waitpid(inner, &status, 0);
        _exit(caught * 16 + counter);
    }
    EQ("first stop", next(child), SIGSTOP);
    siginfo_t info;
    OK("info", trace(PTRACE_GETSIGINFO, child, 0, (long)&info));
    EQ("info signal", info.si_signo, SIGSTOP);
    long value = 0;
    OK("peek", trace(PTRACE_PEEKDATA, child, (long)&word, (long)&value));
    EQ("peeked", value, 0x1122334455667788);
    ERR("peek nowhere", trace(PTRACE_PEEKDATA, child, 8, (long)&value), EIO);
    OK("poke", trace(PTRACE_POKEDATA, child, (long)&counter, 6));
    EQ("own memory untouched", counter, 0);
    OK("poke code", ({trace(PTRACE_PEEKTEXT, child, (long)work, (long)&value); trace(PTRACE_POKETEXT, child, (long)work, value & ~0xffl | 0xcc); }));
    OK("options", trace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEEXIT | PTRACE_O_EXITKILL));
    ERR("strange options", trace(PTRACE_SETOPTIONS, child, 0, 1 << 30), EINVAL);
    ERR("strange signal", trace(PTRACE_CONT, child, 0, 99), EIO);
    OK("go on", trace(PTRACE_CONT, child, 0, 0));
    EQ("breakpoint", next(child), SIGTRAP);
    OK("registers", trace(PTRACE_GETREGS, child, 0, (long)&registers));
    EQ("behind the breakpoint", registers.rip - (long)work, 1);
    EQ("no call", registers.orig_rax, -1);
    EQ("user code", registers.cs, 0x33);
    trace(PTRACE_POKETEXT, child, (long)work, value);
    registers.rip--;
    OK("set registers", trace(PTRACE_SETREGS, child, 0, (long)&registers));
    OK("step", trace(PTRACE_SINGLESTEP, child, 0, 0));
    EQ("stepped", next(child), SIGTRAP);
    trace(PTRACE_GETSIGINFO, child, 0, (long)&info);
    EQ("step code", info.si_code, TRAP_TRACE);
    trace(PTRACE_PEEKUSR, child, offsetof(struct user, regs.rip), (long)&value);
    YES("one instruction", value > (long)work && value < (long)work + 16);
    struct iovec set = {&registers, sizeof registers};
    OK("register set", trace(PTRACE_GETREGSET, child, 1, (long)&set));
    EQ("its size", set.iov_len, sizeof registers);
    YES("the same", registers.rip == value);
    char vector[4096];
    set = (struct iovec){vector, sizeof vector};
    OK("vector state", trace(PTRACE_GETREGSET, child, 0x202, (long)&set));
    YES("its size too", set.iov_len >= 576);
    do {
        trace(PTRACE_SYSCALL, child, 0, 0);
        status = next(child);
        trace(PTRACE_GETREGS, child, 0, (long)&registers);
    } while (status == (SIGTRAP | 0x80) && registers.orig_rax != SYS_getppid);
    EQ("call", status, SIGTRAP | 0x80);
    EQ("not done yet", registers.rax, -ENOSYS);
    struct ptrace_syscall_info call;
    YES("call info", trace(PTRACE_GET_SYSCALL_INFO, child, sizeof call, (long)&call) > 0);
    EQ("entry", call.op, PTRACE_SYSCALL_INFO_ENTRY);
    EQ("number", call.entry.nr, SYS_getppid);
    trace(PTRACE_SYSCALL, child, 0, 0);
    next(child);
    trace(PTRACE_GETREGS, child, 0, (long)&registers);
    EQ("result", registers.rax, getpid());
    trace(PTRACE_GET_SYSCALL_INFO, child, sizeof call, (long)&call);
    EQ("exit", call.op, PTRACE_SYSCALL_INFO_EXIT);
    trace(PTRACE_SYSCALL, child, 0, 0);
    next(child);
    trace(PTRACE_GETREGS, child, 0, (long)&registers);
    registers.orig_rax = -1;
    registers.rax = 1234;
    trace(PTRACE_SETREGS, child, 0, (long)&registers);
    trace(PTRACE_SYSCALL, child, 0, 0);
    next(child);
    trace(PTRACE_GETREGS, child, 0, (long)&registers);
    EQ("called off", registers.rax, 1234);
    trace(PTRACE_CONT, child, 0, 0);
    EQ("before the signal", next(child), SIGUSR1);
    trace(PTRACE_CONT, child, 0, 0);
    EQ("before the second", next(child), SIGUSR1);
    trace(PTRACE_CONT, child, 0, SIGUSR1);
    EQ("own breakpoint", next(child), SIGTRAP);
    trace(PTRACE_CONT, child, 0, 0);
    EQ("fork", next(child), SIGTRAP | PTRACE_EVENT_FORK << 8);
    unsigned long message;
    OK("message", trace(PTRACE_GETEVENTMSG, child, 0, (long)&message));
    EQ("grandchild stops", next(message), SIGSTOP);
    trace(PTRACE_CONT, child, 0, 0);
    trace(PTRACE_CONT, message, 0, 0);
    EQ("grandchild is about to end", next(message), SIGTRAP | PTRACE_EVENT_EXIT << 8);
    unsigned long ending;
    trace(PTRACE_GETEVENTMSG, message, 0, (long)&ending);
    EQ("how", ending, 4 << 8);
    trace(PTRACE_CONT, message, 0, 0);
    EQ("grandchild's end", ({waitpid(message, &status, __WALL); status; }), 4 << 8);
    EQ("child hears of it", next(child), SIGCHLD);
    trace(PTRACE_CONT, child, 0, SIGCHLD);
    EQ("about to end", next(child), SIGTRAP | PTRACE_EVENT_EXIT << 8);
    trace(PTRACE_CONT, child, 0, 0);
    waitpid(child, &status, 0);
    EQ("end", status, (16 + 7) << 8);
    volatile int *is_ready = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    fflush(stdout);
    child = fork();
    if (child == 0) {
        signal(SIGUSR1, count);
        *is_ready = 1;
        while (!caught)
            ;
        _exit(9);
    }
    UNTIL(*is_ready);
    OK("attach", trace(PTRACE_ATTACH, child, 0, 0));
    ERR("attach twice", trace(PTRACE_ATTACH, child, 0, 0), EPERM);
    EQ("stops", next(child), SIGSTOP);
    OK("detach", trace(PTRACE_DETACH, child, 0, SIGUSR1));
    ERR("no more", trace(PTRACE_CONT, child, 0, 0), ESRCH);
    waitpid(child, &status, 0);
    EQ("went on", status, 9 << 8);
    fflush(stdout);
    child = fork();
    if (child == 0) {
        trace(PTRACE_TRACEME, 0, 0, 0);
        execl("/bin/true", "true", NULL);
    }
    EQ("exec", next(child), SIGTRAP);
    trace(PTRACE_CONT, child, 0, 0);
    waitpid(child, &status, 0);
    EQ("ran", status, 0);
    return 0;
}
