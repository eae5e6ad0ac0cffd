/* Signals: sending, masks, handlers, queues, alternate stacks, restarts, signalfd. */
#include "case.h"
#include <setjmp.h>
#include <ucontext.h>

static volatile sig_atomic_t caught, last, code, value;
static siginfo_t last_info;

static void count(int number) {
    caught++;
    last = number;
}

static void inform(int number, siginfo_t *info, void *context) {
    caught++;
    last = number;
    code = info->si_code;
    value = info->si_value.sival_int;
    last_info = *info;
}

static void handle(int number, void *handler, int flags) {
    struct sigaction action = {0};
    action.sa_handler = handler;
    action.sa_flags = flags;
    sigaction(number, &action, NULL);
}

static void sending(void) {
    ERR("kill bad signal", kill(getpid(), 65), EINVAL);
    ERR("kill negative signal", kill(getpid(), -1), EINVAL);
    ERR("kill none", kill(999999, 0), ESRCH);
    ERR("kill no group", kill(-999999, 0), ESRCH);
    ERR("kill least", kill(INT_MIN, 0), ESRCH);
    ERR("tkill zero", syscall(SYS_tkill, 0, 0), EINVAL);
    ERR("tgkill zero", syscall(SYS_tgkill, 0, gettid(), 0), EINVAL);
    ERR("tgkill other group", syscall(SYS_tgkill, getppid(), gettid(), 0), ESRCH);
    ERR("sigaction kill", sigaction(SIGKILL, &(struct sigaction){.sa_handler = SIG_IGN}, NULL), EINVAL);
    ERR("sigaction stop", sigaction(SIGSTOP, &(struct sigaction){.sa_handler = SIG_IGN}, NULL), EINVAL);
    OK("sigaction kill asked", syscall(SYS_rt_sigaction, SIGKILL, NULL, NULL, 8));
    ERR("sigaction zero", syscall(SYS_rt_sigaction, 0, NULL, NULL, 8), EINVAL);
    ERR("sigaction 65", syscall(SYS_rt_sigaction, 65, NULL, NULL, 8), EINVAL);
    ERR("sigaction size", syscall(SYS_rt_sigaction, SIGUSR1, NULL, NULL, 4), EINVAL);
    ERR("sigprocmask size", syscall(SYS_rt_sigprocmask, 0, NULL, NULL, 4), EINVAL);
    ERR("sigprocmask how", sigprocmask(9, &(sigset_t){0}, NULL), EINVAL);
    handle(SIGUSR1, inform, SA_SIGINFO);
    kill(getpid(), SIGUSR1);
    EQ("caught", caught, 1);
    EQ("SI_USER", code, SI_USER);
    EQ("si_pid", last_info.si_pid, getpid());
    syscall(SYS_tgkill, getpid(), gettid(), SIGUSR1);
    EQ("SI_TKILL", code, SI_TKILL);
    sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 77});
    EQ("SI_QUEUE", code, SI_QUEUE);
    EQ("si_value", value, 77);
    siginfo_t forged = {.si_signo = SIGUSR1, .si_code = SI_USER};
    OK("forged to self", syscall(SYS_rt_sigqueueinfo, getpid(), SIGUSR1, &forged));
    ERR("forged to other", syscall(SYS_rt_sigqueueinfo, getppid(), SIGUSR1, &forged), EPERM);
    raise(SIGUSR1);
    struct sigaction old;
    sigaction(SIGUSR1, NULL, &old);
    YES("sigaction kept", old.sa_sigaction == inform && old.sa_flags & SA_SIGINFO);
}

static void masking(void) {
    sigset_t set, old;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGRTMIN);
    sigprocmask(SIG_BLOCK, &set, &old);
    caught = 0;
    handle(SIGRTMIN, inform, SA_SIGINFO);
    kill(getpid(), SIGUSR1);
    kill(getpid(), SIGUSR1);
    sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 1});
    sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 2});
    sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 3});
    EQ("held back", caught, 0);
    sigset_t pending;
    sigpending(&pending);
    YES("pending", sigismember(&pending, SIGUSR1) && sigismember(&pending, SIGRTMIN) && !sigismember(&pending, SIGUSR2));
    struct timespec soon = {0, 1000000};
    siginfo_t info;
    sigset_t real_time;
    sigemptyset(&real_time);
    sigaddset(&real_time, SIGRTMIN);
    EQ("sigtimedwait", sigtimedwait(&real_time, &info, &soon), SIGRTMIN);
    EQ("first of queue", info.si_value.sival_int, 1);
    EQ("sigwaitinfo", sigwaitinfo(&real_time, &info), SIGRTMIN);
    EQ("second of queue", info.si_value.sival_int, 2);
    sigset_t other;
    sigemptyset(&other);
    sigaddset(&other, SIGUSR2);
    ERR("sigtimedwait in vain", sigtimedwait(&other, &info, &soon), EAGAIN);
    ERR("sigtimedwait bad time", sigtimedwait(&other, &info, &(struct timespec){0, -1}), EINVAL);
    sigprocmask(SIG_SETMASK, &old, NULL);
    EQ("delivered once", caught, 2);
    kill(getpid(), SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    kill(getpid(), SIGUSR1);
    caught = 0;
    sigset_t none;
    sigemptyset(&none);
    ERR("sigsuspend", sigsuspend(&none), EINTR);
    EQ("sigsuspend caught", caught, 1);
    sigprocmask(SIG_BLOCK, NULL, &pending);
    YES("mask back", sigismember(&pending, SIGUSR1));
    handle(SIGUSR1, SIG_IGN, 0);
    kill(getpid(), SIGUSR1);
    sigpending(&pending);
    YES("ignored but blocked is pending", 1);
    handle(SIGUSR1, SIG_IGN, 0);
    sigpending(&pending);
    EQ("ignoring drops", sigismember(&pending, SIGUSR1), 0);
    sigfillset(&set);
    sigprocmask(SIG_SETMASK, &set, NULL);
    sigprocmask(SIG_BLOCK, NULL, &pending);
    EQ("kill cannot be blocked", sigismember(&pending, SIGKILL) + sigismember(&pending, SIGSTOP), 0);
    sigprocmask(SIG_SETMASK, &none, NULL);
    caught = 0;
    struct sigaction action = {.sa_handler = count, .sa_flags = SA_RESETHAND};
    sigaction(SIGUSR2, &action, NULL);
    kill(getpid(), SIGUSR2);
    sigaction(SIGUSR2, NULL, &action);
    YES("reset", caught == 1 && action.sa_handler == SIG_DFL);
}

static volatile sig_atomic_t depth, deepest, runs;
static void nest(int number) {
    depth++;
    if (depth > deepest)
        deepest = depth;
    if (++runs < 3)
        raise(number);
    depth--;
}

static void nesting(void) {
    handle(SIGUSR1, nest, 0);
    raise(SIGUSR1);
    EQ("not nested", deepest, 1);
    depth = deepest = runs = 0;
    handle(SIGUSR1, nest, SA_NODEFER);
    raise(SIGUSR1);
    EQ("nested", deepest, 3);
}

static char *where;
static void note_stack(int number) {
    char here;
    where = &here;
    stack_t stack;
    sigaltstack(NULL, &stack);
    caught = stack.ss_flags;
    errno = 0;
    int result = sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, NULL);
    last = result == -1 ? errno : 0;
}

static void stacks(void) {
    char *memory = malloc(65536);
    stack_t stack = {.ss_sp = memory, .ss_size = 65536}, old;
    OK("sigaltstack", sigaltstack(&stack, &old));
    EQ("none before", old.ss_flags, SS_DISABLE);
    handle(SIGUSR1, note_stack, SA_ONSTACK);
    raise(SIGUSR1);
    YES("on the stack", where > memory && where < memory + 65536);
    EQ("flag inside", caught, SS_ONSTACK);
    EQ("no change inside", last, EPERM);
    handle(SIGUSR1, note_stack, 0);
    raise(SIGUSR1);
    YES("not on the stack", where < memory || where > memory + 65536);
    stack.ss_size = 100;
    stack.ss_flags = 0;
    ERR("small", sigaltstack(&stack, NULL), ENOMEM);
    stack.ss_flags = 7;
    ERR("strange flags", sigaltstack(&stack, NULL), EINVAL);
}

static sigjmp_buf back;
static void *fault_address;
static int fault_code, fault_error, fault_trap;
static void fault(int number, siginfo_t *info, void *raw) {
    ucontext_t *context = raw;
    last = number;
    fault_address = info->si_addr;
    fault_code = info->si_code;
    fault_error = context->uc_mcontext.gregs[REG_ERR];
    fault_trap = context->uc_mcontext.gregs[REG_TRAPNO];
    siglongjmp(back, 1);
}

static void faults(void) {
    for (int number = 1; number < 32; number++)
        if (number == SIGSEGV || number == SIGBUS || number == SIGFPE || number == SIGILL || number == SIGTRAP)
            handle(number, fault, SA_SIGINFO);
    if (!sigsetjmp(back, 1))
        *(volatile int *)16 = 1;
    EQ("SIGSEGV", last, SIGSEGV);
    EQ("address", (long)fault_address, 16);
    EQ("not mapped", fault_code, SEGV_MAPERR);
    EQ("page fault", fault_trap, 14);
    EQ("write by user", fault_error & 6, 6);
    char *page = mmap(NULL, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!sigsetjmp(back, 1))
        page[5] = 1;
    EQ("read-only", fault_code, SEGV_ACCERR);
    EQ("address in page", (char *)fault_address - page, 5);
    mprotect(page, 4096, PROT_NONE);
    if (!sigsetjmp(back, 1))
        caught = page[7];
    EQ("no access", fault_code, SEGV_ACCERR);
    if (!sigsetjmp(back, 1))
        ((void (*)(void))(page + 4096))();
    EQ("not executable", last, SIGSEGV);
    int file = memfd_create("x", 0);
    char *past = mmap(NULL, 4096, PROT_READ, MAP_SHARED, file, 0);
    if (!sigsetjmp(back, 1))
        caught = past[100];
    EQ("past the end", last, SIGBUS);
    EQ("past the end code", fault_code, BUS_ADRERR);
    if (!sigsetjmp(back, 1)) {
        volatile int zero = 0;
        caught = 10 / zero;
    }
    EQ("division", last, SIGFPE);
    EQ("division code", fault_code, FPE_INTDIV);
    if (!sigsetjmp(back, 1))
        asm volatile("ud2");
    EQ("illegal", last, SIGILL);
    EQ("illegal code", fault_code, ILL_ILLOPN);
    if (!sigsetjmp(back, 1))
        asm volatile("int3");
    EQ("breakpoint", last, SIGTRAP);
    EQ("breakpoint code", fault_code, SI_KERNEL);
    if (!sigsetjmp(back, 1))
        asm volatile("hlt");
    EQ("privileged", last, SIGSEGV);
    EQ("privileged code", fault_code, SI_KERNEL);
    if (!sigsetjmp(back, 1))
        caught = *(volatile char *)0x8000000000000000ull;
    EQ("not canonical", last, SIGSEGV);
    EQ("not canonical code", fault_code, SI_KERNEL);
    EQ("not canonical address", (long)fault_address, 0);
    if (!sigsetjmp(back, 1))
        caught = *(volatile char *)0xffffffff81000000ull;
    EQ("kernel half", last, SIGSEGV);
    EQ("kernel half code", fault_code, SEGV_MAPERR);
    int status;
    CHILD(status, handle(SIGSEGV, SIG_IGN, 0); *(volatile int *)16 = 1);
    EQ("ignored fault kills", status & 0x7f, SIGSEGV);
    CHILD(status, sigset_t all; sigfillset(&all); sigprocmask(SIG_SETMASK, &all, NULL); *(volatile int *)16 = 1);
    EQ("blocked fault kills", status & 0x7f, SIGSEGV);
}

static volatile int stop_killing;
static void *kill_later(void *target) {
    /* Again and again: the first may come before the call. */
    do {
        nap(60);
        pthread_kill(*(pthread_t *)target, SIGUSR1);
    } while (!stop_killing);
    return NULL;
}

static void *write_later(void *fd) {
    nap(150);
    write(*(int *)fd, "x", 1);
    return NULL;
}

static void restarts(void) {
    int pipes[2];
    char byte;
    pipe(pipes);
    pthread_t self = pthread_self(), killer, writer;
    handle(SIGUSR1, count, 0);
    pthread_create(&killer, NULL, kill_later, &self);
    ERR("read interrupted", read(pipes[0], &byte, 1), EINTR);
    stop_killing = 1;
    pthread_join(killer, NULL);
    stop_killing = 0;
    handle(SIGUSR1, count, SA_RESTART);
    caught = 0;
    pthread_create(&killer, NULL, kill_later, &self);
    pthread_create(&writer, NULL, write_later, &pipes[1]);
    EQ("read restarted", read(pipes[0], &byte, 1), 1);
    YES("handler ran", caught >= 1);
    stop_killing = 1;
    pthread_join(killer, NULL);
    stop_killing = 0;
    pthread_join(writer, NULL);
    pthread_create(&killer, NULL, kill_later, &self);
    ERR("poll never restarts", poll(NULL, 0, 10000), EINTR);
    stop_killing = 1;
    pthread_join(killer, NULL);
    stop_killing = 0;
    pthread_create(&killer, NULL, kill_later, &self);
    struct timespec left = {0}, time = {5, 0};
    ERR("nanosleep never restarts", nanosleep(&time, &left), EINTR);
    YES("time left", left.tv_sec >= 0 && left.tv_sec < 5 && left.tv_sec + left.tv_nsec > 0);
    stop_killing = 1;
    pthread_join(killer, NULL);
    stop_killing = 0;
    pthread_create(&killer, NULL, kill_later, &self);
    ERR("pause", pause(), EINTR);
    stop_killing = 1;
    pthread_join(killer, NULL);
    stop_killing = 0;
    pthread_create(&killer, NULL, kill_later, &self);
    int epoll = epoll_create1(0);
    struct epoll_event event;
    ERR("epoll_wait never restarts", epoll_wait(epoll, &event, 1, 10000), EINTR);
    stop_killing = 1;
    pthread_join(killer, NULL);
    stop_killing = 0;
    int status;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        nap(200);
        _exit(3);
    }
    pthread_create(&killer, NULL, kill_later, &self);
    EQ("wait restarted", waitpid(child, &status, 0), child);
    stop_killing = 1;
    pthread_join(killer, NULL);
    stop_killing = 0;
    /* A stop alone interrupts nothing that can go on. */
    fflush(stdout);
    child = fork();
    if (child == 0) {
        struct timespec time = {0, 300000000};
        _exit(nanosleep(&time, NULL) ? 1 : 0);
    }
    nap(50);
    kill(child, SIGSTOP);
    nap(50);
    kill(child, SIGCONT);
    waitpid(child, &status, 0);
    EQ("sleep goes on after a stop", status, 0);
}

static void descriptor(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    ERR("signalfd flags", signalfd(-1, &set, 1), EINVAL);
    ERR("signalfd of a file", signalfd(0, &set, 0), EINVAL);
    ERR("signalfd bad", signalfd(99, &set, 0), EBADF);
    int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    struct signalfd_siginfo info[2];
    ERR("empty", read(fd, info, sizeof info), EAGAIN);
    ERR("small", read(fd, info, 10), EINVAL);
    struct pollfd poll_fd = {fd, POLLIN, 0};
    EQ("not ready", poll(&poll_fd, 1, 0), 0);
    sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 5});
    EQ("ready", poll(&poll_fd, 1, 0), 1);
    EQ("read", read(fd, info, sizeof info), sizeof info[0]);
    EQ("signal", info[0].ssi_signo, SIGUSR1);
    EQ("value", info[0].ssi_int, 5);
    EQ("code", info[0].ssi_code, SI_QUEUE);
    int status;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0)
        _exit(8);
    poll(&poll_fd, 1, 2000);
    read(fd, info, sizeof info);
    EQ("child", info[0].ssi_pid, child);
    EQ("child status", info[0].ssi_status, 8);
    EQ("child code", info[0].ssi_code, CLD_EXITED);
    waitpid(child, &status, 0);
    ERR("write", write(fd, info, sizeof info), EINVAL);
    close(fd);
}

static void escape(int number) {
    _exit(1);
}

static void no_stack(void) {
    int status;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        alarm(10);
        handle(SIGSEGV, escape, 0);
        __asm__ volatile("xorl %%esp, %%esp\n\tmovl $0, (%%rsp)" ::: "memory");
        _exit(2);
    }
    waitpid(child, &status, 0);
    EQ("no stack for the handler", WIFSIGNALED(status) ? WTERMSIG(status) : -1, SIGSEGV);
}

int main(void) {
    alarm(20);
    sending();
    masking();
    nesting();
    stacks();
    faults();
    no_stack();
    restarts();
    descriptor();
    return 0;
}
