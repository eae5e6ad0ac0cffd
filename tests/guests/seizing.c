/* Tracing without stops of its own: PTRACE_SEIZE, INTERRUPT, LISTEN; calls left to the tracer; signals that wait. */
#include "case.h"
#include <linux/ptrace.h>
#include <sys/user.h>

static long trace(long request, pid_t pid, unsigned long address, unsigned long data) {
    return syscall(SYS_ptrace, request, pid, address, data);
}

/* Waits for the next stop; answers signal and event. */
static int next(pid_t pid) {
    int status = 0;
    if (waitpid(pid, &status, __WALL) != pid)
        return -1;
    return WIFSTOPPED(status) ? status >> 8 : -2;
}

#define STOP(signal) ((signal) | PTRACE_EVENT_STOP << 8)

static volatile int *shared;

static pid_t runner(void) {
    fflush(stdout);
    *shared = 0;
    pid_t child = fork();
    if (child == 0) {
        *shared = 1;
        for (;;)
            ++shared[1];
    }
    UNTIL(*shared);
    return child;
}

static void running(void) {
    int status;
    siginfo_t info;
    pid_t child = runner();
    ERR("address", trace(PTRACE_SEIZE, child, 8, 0), EIO);
    ERR("options", trace(PTRACE_SEIZE, child, 0, 1 << 30), EIO);
    ERR("not mine yet", trace(PTRACE_INTERRUPT, child, 0, 0), ESRCH);
    OK("seize", trace(PTRACE_SEIZE, child, 0, PTRACE_O_TRACESYSGOOD));
    EQ("no stop", waitpid(child, &status, WNOHANG | __WALL), 0);
    ERR("runs", trace(PTRACE_CONT, child, 0, 0), ESRCH);
    OK("interrupt", trace(PTRACE_INTERRUPT, child, 0, 0));
    EQ("stops", next(child), STOP(SIGTRAP));
    OK("info", trace(PTRACE_GETSIGINFO, child, 0, (long)&info));
    EQ("info signal", info.si_signo, SIGTRAP);
    EQ("info code", info.si_code, STOP(SIGTRAP));
    OK("listen", trace(PTRACE_LISTEN, child, 0, 0));
    ERR("it does not go on", trace(PTRACE_CONT, child, 0, 0), ESRCH);
    OK("interrupt a listener", trace(PTRACE_INTERRUPT, child, 0, 0));
    EQ("it stops anew", next(child), STOP(SIGTRAP));
    OK("on", trace(PTRACE_CONT, child, 0, 0));
    kill(child, SIGUSR1);
    EQ("before a signal", next(child), SIGUSR1);
    OK("without it", trace(PTRACE_CONT, child, 0, 0));
    OK("interrupt again", trace(PTRACE_INTERRUPT, child, 0, 0));
    EQ("stops again", next(child), STOP(SIGTRAP));
    OK("detach", trace(PTRACE_DETACH, child, 0, 0));
    int before = shared[1];
    UNTIL(shared[1] != before);
    YES("runs on", shared[1] != before);
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    EQ("killed", status, SIGKILL);
}

static void groups(void) {
    int status;
    siginfo_t info;
    pid_t child = runner();
    OK("seize it", trace(PTRACE_SEIZE, child, 0, 0));
    kill(child, SIGSTOP);
    EQ("before the stop", next(child), SIGSTOP);
    OK("deliver", trace(PTRACE_CONT, child, 0, SIGSTOP));
    EQ("stopped with its group", next(child), STOP(SIGSTOP));
    OK("info of it", trace(PTRACE_GETSIGINFO, child, 0, (long)&info));
    EQ("its code", info.si_code, STOP(SIGSTOP));
    OK("listen", trace(PTRACE_LISTEN, child, 0, 0));
    ERR("stays stopped", trace(PTRACE_CONT, child, 0, 0), ESRCH);
    EQ("quietly", waitpid(child, &status, WNOHANG | __WALL), 0);
    kill(child, SIGCONT);
    EQ("the end of the stop", next(child), STOP(SIGTRAP));
    OK("go on", trace(PTRACE_CONT, child, 0, 0));
    EQ("before the signal", next(child), SIGCONT);
    OK("let through", trace(PTRACE_CONT, child, 0, SIGCONT));
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    EQ("killed too", status, SIGKILL);
}

static void waiting(void) {
    int status, pipes[2];
    pipe(pipes);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        char byte;
        close(pipes[1]);
        *shared = 2;
        _exit(read(pipes[0], &byte, 1) == 1 ? byte : errno);
    }
    UNTIL(*shared == 2);
    OK("seize a sleeper", trace(PTRACE_SEIZE, child, 0, 0));
    OK("wake it", trace(PTRACE_INTERRUPT, child, 0, 0));
    EQ("it stops", next(child), STOP(SIGTRAP));
    OK("sleep on", trace(PTRACE_CONT, child, 0, 0));
    write(pipes[1], "\7", 1);
    waitpid(child, &status, 0);
    EQ("its call went on", status, 7 << 8);
}

static void children(void) {
    int status;
    fflush(stdout);
    *shared = 0;
    pid_t child = fork();
    if (child == 0) {
        while (*shared != 3)
            ;
        pid_t inner = fork();
        if (inner == 0)
            _exit(5);
        waitpid(inner, &status, 0);
        execl("/bin/true", "true", NULL);
    }
    OK("seize a parent", trace(PTRACE_SEIZE, child, 0, PTRACE_O_TRACEFORK));
    *shared = 3;
    EQ("it forks", next(child), SIGTRAP | PTRACE_EVENT_FORK << 8);
    unsigned long inner;
    trace(PTRACE_GETEVENTMSG, child, 0, (long)&inner);
    EQ("its child stops", next(inner), STOP(SIGTRAP));
    OK("the child goes on", trace(PTRACE_CONT, inner, 0, 0));
    OK("the parent goes on", trace(PTRACE_CONT, child, 0, 0));
    waitpid(inner, &status, __WALL);
    EQ("the child's end", status, 5 << 8);
    EQ("the parent hears", next(child), SIGCHLD);
    OK("and goes on", trace(PTRACE_CONT, child, 0, SIGCHLD));
    waitpid(child, &status, 0);
    EQ("exec is no stop", status, 0);
}

static void emulation(void) {
    int status;
    struct user_regs_struct registers;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        trace(PTRACE_TRACEME, 0, 0, 0);
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGUSR2);
        sigprocmask(SIG_BLOCK, &set, NULL);
        raise(SIGUSR2);
        raise(SIGSTOP);
        _exit(syscall(SYS_getppid) == 77 ? 1 : 2);
    }
    EQ("first stop", next(child), SIGSTOP);
    ERR("not seized", trace(PTRACE_INTERRUPT, child, 0, 0), EIO);
    ERR("no listening", trace(PTRACE_LISTEN, child, 0, 0), EIO);
    struct ptrace_peeksiginfo_args look = {0, 0, 4};
    siginfo_t infos[4];
    EQ("a signal waits", trace(PTRACE_PEEKSIGINFO, child, (long)&look, (long)infos), 1);
    EQ("which", infos[0].si_signo, SIGUSR2);
    look.off = 1;
    EQ("no other", trace(PTRACE_PEEKSIGINFO, child, (long)&look, (long)infos), 0);
    look.flags = 2;
    ERR("strange flags", trace(PTRACE_PEEKSIGINFO, child, (long)&look, (long)infos), EINVAL);
    /* raise(3) ends with calls of its own. */
    do {
        OK("to the next call", trace(PTRACE_SYSCALL, child, 0, 0));
        next(child);
        trace(PTRACE_GETREGS, child, 0, (long)&registers);
        if (registers.orig_rax == SYS_getppid)
            break;
        trace(PTRACE_SYSCALL, child, 0, 0);
        next(child);
    } while (1);
    registers.orig_rax = -1;
    registers.rax = 77;
    OK("in its stead", trace(PTRACE_SETREGS, child, 0, (long)&registers));
    OK("emulate what follows", trace(PTRACE_SYSEMU, child, 0, 0));
    EQ("the next call", next(child), SIGTRAP);
    trace(PTRACE_GETREGS, child, 0, (long)&registers);
    EQ("ends it", registers.orig_rax, SYS_exit_group);
    EQ("with the result", registers.rdi, 1);
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    EQ("it never ended itself", status, SIGKILL);
}

int main(void) {
    alarm(30);
    shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    running();
    groups();
    waiting();
    children();
    emulation();
    return 0;
}
