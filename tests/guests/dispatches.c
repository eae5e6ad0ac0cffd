/* Calls that a thread serves itself, PR_SET_SYSCALL_USER_DISPATCH of prctl(2). */
#include "case.h"
#include <ucontext.h>

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#endif
#define ON 1
#define OFF 0
#define ALLOW 0
#define BLOCK 1
#define DISPATCH(mode, offset, length, selector) prctl(PR_SET_SYSCALL_USER_DISPATCH, mode, offset, length, selector)

static volatile char selector, allowed = ALLOW;
static volatile int caught, number, code, architecture, reason, answer;
static volatile unsigned long place;

static void serve(int signal, siginfo_t *info, void *context) {
    selector = ALLOW;
    caught++;
    number = info->si_syscall;
    code = info->si_code;
    reason = info->si_errno;
    architecture = info->si_arch;
    place = (unsigned long)info->si_call_addr - ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    answer = ((ucontext_t *)context)->uc_mcontext.gregs[REG_RAX];
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RAX] = 4711;
}

static long blocked_call(void) {
    selector = BLOCK;
    long value = syscall(SYS_getppid);
    selector = ALLOW;
    return value;
}

static void *in_thread(void *unused) {
    return (void *)(long)(blocked_call() == getppid());
}

int main(void) {
    int status;
    alarm(20);
    struct sigaction action = {.sa_sigaction = serve, .sa_flags = SA_SIGINFO};
    sigaction(SIGSYS, &action, NULL);
    ERR("off with a range", DISPATCH(OFF, 0, 1, 0), EINVAL);
    ERR("off with an offset", DISPATCH(OFF, 1, 0, 0), EINVAL);
    ERR("off with a selector", DISPATCH(OFF, 0, 0, &selector), EINVAL);
    OK("off", DISPATCH(OFF, 0, 0, 0));
    ERR("strange mode", DISPATCH(7, 0, 0, &selector), EINVAL);
    ERR("empty range", DISPATCH(ON, 1, 0, &selector), EINVAL);
    ERR("range that wraps", DISPATCH(ON, 1, -1L, &selector), EINVAL);
    ERR("selector of nobody", DISPATCH(ON, 0, 0, -1L), EFAULT);
    OK("on", DISPATCH(ON, 0, 0, &selector));
    EQ("served as ever", syscall(SYS_getppid), getppid());
    EQ("served by the program", blocked_call(), 4711);
    EQ("once", caught, 1);
    EQ("number", number, SYS_getppid);
    EQ("code", code, 2);
    EQ("no error", reason, 0);
    EQ("architecture", (unsigned)architecture, 0xc000003e);
    EQ("place", place, 0);
    EQ("registers as before", answer, SYS_getppid);
    selector = BLOCK;
    EQ("numbers without a call", ({ long value = syscall(0xbeef); selector = ALLOW; value; }), 4711);
    EQ("are told", number, 0xbeef);
    CHILD(status, _exit(blocked_call() == getppid() ? 3 : 4));
    EQ("not in children", status, 3 << 8);
    pthread_t thread;
    void *result;
    /* Our own calls must not depend on what the thread writes meanwhile. */
    OK("another selector", DISPATCH(ON, 0, 0, &allowed));
    pthread_create(&thread, NULL, in_thread, NULL);
    pthread_join(thread, &result);
    OK("the first one again", DISPATCH(ON, 0, 0, &selector));
    EQ("nor in threads", (long)result, 1);
    CHILD(status, DISPATCH(ON, 0, 0, 0); raise(SIGKILL));
    EQ("none at all", status & 0x7f, SIGSYS);
    CHILD(status, DISPATCH(ON, 0, 0, &selector); selector = 9; syscall(SYS_getppid));
    EQ("strange selector", status & 0x7f, SIGSYS);
    CHILD(status, char *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); DISPATCH(ON, 0, 0, page + 8);
          munmap(page, 4096); syscall(SYS_getppid));
    EQ("selector that went", status & 0x7f, SIGSEGV);
    CHILD(status, DISPATCH(ON, 1, -2L, &selector); _exit(blocked_call() == getppid() ? 5 : 6));
    EQ("from where all is served", status, 5 << 8);
    CHILD(status, DISPATCH(ON, 0, 0, &selector); selector = ALLOW; execl("/bin/sh", "sh", "-c", "exit 8", NULL));
    EQ("not after exec", status, 8 << 8);
    OK("off again", DISPATCH(OFF, 0, 0, 0));
    EQ("and so it is", blocked_call(), getppid());
    return 0;
}
