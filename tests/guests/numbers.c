/* PID namespaces: numbers in each, the first process's shield, ends, unshare and setns, and every place where a number shows. */
#include "case.h"
#include <linux/futex.h>
#include <linux/kcmp.h>
#include <linux/nsfs.h>
#include <linux/sched.h>
#include <mqueue.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/ptrace.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <termios.h>

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

static const char *read_file(const char *name) {
    int fd = open(name, O_RDONLY);
    long count = fd < 0 ? -1 : read(fd, buffer, sizeof buffer - 1);
    close(fd);
    buffer[count < 0 ? 0 : count] = 0;
    return buffer;
}

/* A line of a file by its label, without the label. */
static const char *line(const char *name, const char *label) {
    static char found[256];
    const char *at = strstr(read_file(name), label);
    found[0] = 0;
    if (at)
        sscanf(at + strlen(label), "%255[^\n]", found);
    return found;
}

static int write_file(const char *name, const char *text) {
    int fd = open(name, O_WRONLY);
    int result = fd < 0 || write(fd, text, strlen(text)) < 0 ? -1 : 0, number = errno;
    close(fd);
    errno = number;
    return result;
}

static int await(pid_t pid) {
    int status = -1;
    return waitpid(pid, &status, 0) == pid ? status : -1;
}

static long raw_clone(unsigned long flags) {
    return syscall(SYS_clone, flags, 0, 0, 0, 0);
}

static void *nothing(void *unused) {
    return unused;
}

static void *own_number(void *place) {
    *(int *)place = syscall(SYS_gettid);
    return NULL;
}

static void identity(void) {
    pid_t outside = getpid();
    EQ("inside", INSIDE({
        EQ("first process", getpid(), 1);
        EQ("first thread", syscall(SYS_gettid), 1);
        EQ("parent outside", getppid(), 0);
        EQ("group outside", getpgrp(), 0);
        EQ("group of itself", getpgid(0), 0);
        EQ("session outside", getsid(0), 0);
        EQ("set_tid_address", syscall(SYS_set_tid_address, &shared->step), 1);
        pid_t child = fork();
        if (!child) {
            shared->pids[0] = getpid();
            shared->pids[1] = getppid();
            shared->pids[2] = setsid();
            shared->pids[3] = getpgrp();
            shared->pids[4] = getsid(0);
            _exit(7);
        }
        EQ("second process", child, 2);
        int status;
        EQ("wait", wait(&status), 2);
        EQ("status", status, 7 << 8);
        EQ("its number", shared->pids[0], 2);
        EQ("its parent", shared->pids[1], 1);
        EQ("its session", shared->pids[2], 2);
        EQ("its group", shared->pids[3], 2);
        EQ("its session again", shared->pids[4], 2);
        int tid = 0;
        pthread_t thread;
        pthread_create(&thread, NULL, own_number, &tid);
        pthread_join(thread, NULL);
        EQ("a thread's number", tid, 3);
        ERR("kill the outside", kill(outside, 0), ESRCH);
        ERR("tgkill the outside", syscall(SYS_tgkill, outside, outside, 0), ESRCH);
        ERR("tkill the outside", syscall(SYS_tkill, outside, 0), ESRCH);
        ERR("getpgid outside", getpgid(outside), ESRCH);
        ERR("getsid outside", getsid(outside), ESRCH);
        ERR("setpgid outside", setpgid(outside, 0), ESRCH);
        ERR("setpgid to a group outside", setpgid(0, outside), EPERM);
        ERR("wait for the outside", waitpid(outside, NULL, WNOHANG), ECHILD);
        ERR("pidfd of the outside", syscall(SYS_pidfd_open, outside, 0), ESRCH);
        ERR("scheduling of the outside", sched_getscheduler(outside), ESRCH);
        ERR("priority of the outside", getpriority(PRIO_PROCESS, outside), ESRCH);
        ERR("limits of the outside", prlimit(outside, RLIMIT_CORE, NULL, NULL), ESRCH);
        ERR("kill -1 alone", kill(-1, 0), ESRCH);
        ERR("kill its own number as a group", kill(-1000, 0), ESRCH);
        OK("kill itself with nothing", kill(1, 0));
        EQ("setpgid", setpgid(0, 0), 0);
        EQ("own group", getpgrp(), 1);
        EQ("getpgid by number", getpgid(1), 1);
        EQ("setsid of a leader", (errno = 0, setsid() == -1 ? errno : 0), EPERM);
    }), 0);
    int status;
    fflush(stdout);
    pid_t child = raw_clone(CLONE_NEWPID | SIGCHLD);
    if (!child)
        _exit(getpid() == 1 && getppid() == 0 ? 5 : 6);
    YES("clone answers the number outside", child > 1);
    EQ("wait outside", waitpid(child, &status, 0), child);
    EQ("clone inside", status, 5 << 8);
    siginfo_t info;
    child = raw_clone(CLONE_NEWPID | SIGCHLD);
    if (!child)
        _exit(3);
    OK("waitid outside", waitid(P_PID, child, &info, WEXITED));
    EQ("si_pid outside", info.si_pid, child);
    EQ("clone and back", ({
        int tid = 0;
        pid_t made = syscall(SYS_clone, CLONE_NEWPID | CLONE_PARENT_SETTID | SIGCHLD, 0, &tid, 0, 0);
        if (!made)
            _exit(0);
        await(made);
        made == tid;
    }), 1);
    int tid = 0;
    child = syscall(SYS_clone, CLONE_NEWPID | CLONE_CHILD_SETTID | SIGCHLD, 0, 0, &tid, 0);
    if (!child)
        _exit(tid);
    EQ("CLONE_CHILD_SETTID", await(child), 1 << 8);
    ERR("new namespace for a thread", raw_clone(CLONE_NEWPID | CLONE_THREAD | CLONE_SIGHAND | CLONE_VM), EINVAL);
    CHILD(status, {
        setgid(1000);
        setuid(1000);
        _exit(raw_clone(CLONE_NEWPID | SIGCHLD) == -1 ? errno : 0);
    });
    EQ("without a capability", status, EPERM << 8);
    CHILD(status, {
        setgid(1000);
        setuid(1000);
        pid_t made = raw_clone(CLONE_NEWPID | CLONE_NEWUSER | SIGCHLD);
        if (!made)
            _exit(getpid());
        _exit(made < 0 ? 200 : WEXITSTATUS(await(made)));
    });
    EQ("with a user namespace", status, 1 << 8);
    child = raw_clone(CLONE_NEWPID | CLONE_PARENT | SIGCHLD);
    if (!child)
        _exit(0);
    YES("CLONE_PARENT", child > 0);
}

static long choose(const pid_t *numbers, size_t count, unsigned long flags) {
    struct clone_args arguments = {.flags = flags, .exit_signal = SIGCHLD, .set_tid = (uintptr_t)numbers, .set_tid_size = count};
    long made = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (!made)
        _exit(getpid() & 0x7f);
    return made;
}

static void chosen_numbers(void) {
    pid_t two[] = {1, 31999};
    pid_t wrong[] = {2, 31999};
    pid_t child = choose(two, 2, CLONE_NEWPID);
    EQ("two numbers", child, 31999);
    EQ("the inner one", await(child), 1 << 8);
    ERR("the first must be 1", choose(wrong, 2, CLONE_NEWPID), EINVAL);
    ERR("too many numbers", choose((pid_t[]){1, 2, 31999}, 3, CLONE_NEWPID), EINVAL);
    ERR("one more than levels", choose((pid_t[]){31999, 31998}, 2, 0), EINVAL);
    ERR("number 0", choose((pid_t[]){0}, 1, CLONE_NEWPID), EINVAL);
    ERR("negative number", choose((pid_t[]){-3}, 1, 0), EINVAL);
    ERR("far too many", choose(two, 33, CLONE_NEWPID), EINVAL);
    ERR("numbers nowhere", choose((pid_t *)8, 2, CLONE_NEWPID), EFAULT);
    EQ("chosen inside", INSIDE({
        pid_t made = choose((pid_t[]){77}, 1, 0);
        EQ("chosen", made, 77);
        EQ("its view", await(77), 77 << 8);
        ERR("taken", choose((pid_t[]){1}, 1, 0), EEXIST);
        pid_t next = fork();
        if (!next)
            _exit(0);
        EQ("a choice does not count", next, 2);
        await(next);
        ERR("outer ones are not ours", choose((pid_t[]){80, 31997, 31996}, 3, 0), EINVAL);
    }), 0);
    int status;
    CHILD(status, {
        setgid(1000);
        setuid(1000);
        _exit(choose((pid_t[]){31999}, 1, 0) == -1 ? errno : 0);
    });
    EQ("choice without a capability", status, EPERM << 8);
}

static volatile int seen, sender;

static void note(int number, siginfo_t *info, void *context) {
    seen = number;
    sender = info->si_pid;
}

static void handle(int number) {
    struct sigaction action = {.sa_sigaction = note, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigaction(number, &action, NULL);
}

static void shield(void) {
    EQ("a shielded process", INSIDE({
        OK("SIGTERM by itself", kill(1, SIGTERM));
        OK("SIGKILL by itself", kill(1, SIGKILL));
        OK("SIGSTOP by itself", kill(1, SIGSTOP));
        OK("tgkill by itself", syscall(SYS_tgkill, 1, 1, SIGKILL));
        OK("abort signal by itself", syscall(SYS_tkill, 1, SIGABRT));
        pid_t child = fork();
        if (!child) {
            _exit(kill(1, SIGKILL) || kill(1, SIGTERM) || kill(1, SIGSTOP) || kill(1, SIGSEGV) ? errno : 0);
        }
        EQ("signals by a child", await(child), 0);
        handle(SIGUSR1);
        child = fork();
        if (!child)
            _exit(kill(1, SIGUSR1) ? errno : 0);
        EQ("a handled one is sent", await(child), 0);
        UNTIL(seen);
        EQ("and comes", seen, SIGUSR1);
        EQ("from the child", sender, child);
        signal(SIGUSR2, SIG_DFL);
        sigset_t set;
        sigset_t pending;
        sigemptyset(&set);
        sigaddset(&set, SIGUSR2);
        sigprocmask(SIG_BLOCK, &set, NULL);
        kill(1, SIGUSR2);
        sigpending(&pending);
        EQ("a blocked one pends", sigismember(&pending, SIGUSR2), 1);
        sigprocmask(SIG_UNBLOCK, &set, NULL);
        sigpending(&pending);
        EQ("and does nothing", sigismember(&pending, SIGUSR2), 0);
        int fd = syscall(SYS_pidfd_open, 1, 0);
        OK("SIGKILL by pidfd", syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0));
        union sigval value = {.sival_int = 1};
        OK("sigqueue", sigqueue(1, SIGTERM, value));
        OK("SIGKILL to all", (kill(-1, SIGKILL), 0));
    }), 0);
    /* From outside. */
    pid_t child = fork();
    if (!child) {
        unshare(CLONE_NEWPID);
        pid_t init = fork();
        if (!init) {
            handle(SIGUSR1);
            shared->step = 1;
            UNTIL(seen);
            shared->pids[1] = sender;
            shared->step = 2;
            for (;;)
                pause();
        }
        shared->pids[0] = init;
        _exit(await(init) & 0x7f);
    }
    UNTIL(shared->step == 1 && shared->pids[0]);
    OK("an unhandled signal from outside", kill(shared->pids[0], SIGTERM));
    OK("a handled one", kill(shared->pids[0], SIGUSR1));
    UNTIL(shared->step == 2);
    EQ("comes", shared->step, 2);
    EQ("from nobody", shared->pids[1], 0);
    OK("SIGSTOP from outside", kill(shared->pids[0], SIGSTOP));
    sprintf(buffer, "/proc/%d/stat", shared->pids[0]);
    char name[64];
    strcpy(name, buffer);
    UNTIL(strstr(read_file(name), ") T "));
    YES("stops it", strstr(read_file(name), ") T "));
    OK("SIGCONT from outside", kill(shared->pids[0], SIGCONT));
    OK("SIGKILL from outside", kill(shared->pids[0], SIGKILL));
    EQ("ends it", await(child), SIGKILL << 8);
    /* Its own faults. */
    EQ("a fault of its own", INSIDE({
        *(volatile int *)8 = 0;
    }), 100 + SIGSEGV);
    EQ("abort", INSIDE({ abort(); }), 100 + SIGSEGV);
    EQ("a handler is not for the default", INSIDE({
        signal(SIGTERM, SIG_IGN);
        EQ("ignored", kill(1, SIGTERM), 0);
        raise(SIGTERM);
        alarm(1);
        sigset_t none;
        sigemptyset(&none);
        struct timespec time = {1, 500000000};
        EQ("SIGALRM does nothing", nanosleep(&time, NULL), 0);
    }), 0);
    /* Signals with a word from outside. */
    shared->step = 0;
    shared->pids[0] = 0;
    child = fork();
    if (!child) {
        unshare(CLONE_NEWPID);
        pid_t init = fork();
        if (!init) {
            sigset_t set;
            siginfo_t info;
            sigemptyset(&set);
            sigaddset(&set, SIGRTMIN);
            sigprocmask(SIG_BLOCK, &set, NULL);
            shared->step = 1;
            struct timespec time = {20, 0};
            int got = sigtimedwait(&set, &info, &time);
            _exit(got == SIGRTMIN && info.si_pid == 0 && info.si_value.sival_int == 42 ? 9 : 8);
        }
        shared->pids[0] = init;
        _exit(WEXITSTATUS(await(init)));
    }
    UNTIL(shared->step == 1 && shared->pids[0]);
    union sigval value = {.sival_int = 42};
    OK("sigqueue from outside", sigqueue(shared->pids[0], SIGRTMIN, value));
    EQ("names nobody", await(child), 9 << 8);
}

static void orphans(void) {
    EQ("orphans inside", INSIDE({
        int pipes[2];
        pipe(pipes);
        pid_t child = fork();
        if (!child) {
            if (!fork()) {
                UNTIL(getppid() == 1);
                int parent = getppid();
                write(pipes[1], &parent, sizeof parent);
                _exit(4);
            }
            _exit(0);
        }
        await(child);
        int parent = 0;
        int status;
        read(pipes[0], &parent, sizeof parent);
        EQ("come to the first process", parent, 1);
        EQ("who waits for them", wait(&status), 3);
        EQ("and hears how", status, 4 << 8);
    }), 0);
    /* A subreaper outside does not take those inside. */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    EQ("subreaper outside", INSIDE({
        pid_t child = fork();
        if (!child) {
            if (!fork()) {
                UNTIL(getppid() == 1);
                _exit(getppid());
            }
            _exit(0);
        }
        await(child);
        int status;
        wait(&status);
        EQ("has no part in it", status, 1 << 8);
    }), 0);
    prctl(PR_SET_CHILD_SUBREAPER, 0);
}

static void ends(void) {
    int pipes[2];
    pipe(pipes);
    EQ("a first process ends", INSIDE({
        for (int i = 0; i < 3; i++) {
            pid_t child = fork();
            if (!child) {
                if (i == 2)
                    fork();
                signal(SIGTERM, SIG_IGN);
                for (;;)
                    pause();
            }
        }
        _exit(12);
    }), 12);
    close(pipes[1]);
    struct pollfd end = {pipes[0], POLLIN, 0};
    poll(&end, 1, 20000);
    EQ("and all with it", end.revents & POLLHUP, POLLHUP);
    close(pipes[0]);
    int status;
    CHILD(status, {
        unshare(CLONE_NEWPID);
        pid_t init = fork();
        if (!init)
            _exit(0);
        await(init);
        errno = 0;
        _exit(fork() == -1 ? errno : 0);
    });
    EQ("fork after the end", status, ENOMEM << 8);
    CHILD(status, {
        unshare(CLONE_NEWPID);
        pid_t init = fork();
        if (!init)
            for (;;)
                pause();
        pid_t second = fork();
        if (!second)
            for (;;)
                pause();
        kill(init, SIGKILL);
        int number = await(second);
        await(init);
        _exit(number);
    });
    EQ("a second child is killed", status, SIGKILL << 8);
    CHILD(status, {
        unshare(CLONE_NEWPID);
        pid_t init = fork();
        if (!init)
            for (;;)
                pause();
        pid_t second = fork();
        if (!second)
            for (;;)
                pause();
        kill(init, SIGKILL);
        siginfo_t info;
        /* The first process is not done before the second was waited for. */
        waitid(P_PID, second, &info, WEXITED | WNOWAIT);
        nap(50);
        int early = waitpid(init, NULL, WNOHANG);
        await(second);
        _exit(early ? 1 : await(init) == SIGKILL ? 2 : 3);
    });
    EQ("the first is the last", status, 2 << 8);
    EQ("nested", INSIDE({
        unshare(CLONE_NEWPID);
        pid_t inner = fork();
        if (!inner) {
            for (;;)
                pause();
        }
        _exit(13);
    }), 13);
}

static void unsharing(void) {
    int status;
    CHILD(status, {
        pid_t before = getpid();
        OK("unshare", unshare(CLONE_NEWPID));
        EQ("keeps the number", getpid(), before);
        char text[64];
        ERR("no namespace for children yet", readlink("/proc/self/ns/pid_for_children", text, sizeof text), ENOENT);
        ERR("unshare again", unshare(CLONE_NEWPID), EINVAL);
        ERR("clone into another", raw_clone(CLONE_NEWPID | SIGCHLD), EINVAL);
        pthread_t thread;
        EQ("no more threads", pthread_create(&thread, NULL, nothing, NULL), EINVAL);
        pid_t init = fork();
        if (!init) {
            int fd = open("/proc/sys/kernel/ns_last_pid", O_RDONLY);
            char last[16] = "";
            read(fd, last, 15);
            pid_t child = fork();
            if (!child)
                _exit(0);
            await(child);
            pause();
            _exit(atoi(last) == 1 ? child : 99);
        }
        struct stat own, children, theirs;
        stat("/proc/self/ns/pid", &own);
        stat("/proc/self/ns/pid_for_children", &children);
        sprintf(buffer, "/proc/%d/ns/pid", init);
        stat(buffer, &theirs);
        YES("another one for children", own.st_ino != children.st_ino);
        EQ("which is the child's", theirs.st_ino, children.st_ino);
        ERR("a thread is still refused", (errno = pthread_create(&thread, NULL, nothing, NULL)) ? -1 : 0, EINVAL);
        ERR("unshare a third time", unshare(CLONE_NEWPID), EINVAL);
        kill(init, SIGKILL);
        EQ("killed", await(init), SIGKILL);
    });
    EQ("unsharing", status, 0);
    ERR("with CLONE_THREAD it is the caller's", raw_clone(CLONE_THREAD | CLONE_NEWPID), EINVAL);
    CHILD(status, {
        pthread_t thread;
        pthread_create(&thread, NULL, (void *(*)(void *))(uintptr_t)pause, NULL);
        _exit(unshare(CLONE_NEWPID) == -1 ? errno : 0);
    });
    EQ("with threads", status, 0);
    CHILD(status, {
        setgid(1000);
        setuid(1000);
        _exit(unshare(CLONE_NEWPID) == -1 ? errno : 0);
    });
    EQ("unshare without a capability", status, EPERM << 8);
    CHILD(status, {
        unshare(CLONE_NEWPID);
        pid_t child = vfork();
        if (!child)
            _exit(syscall(SYS_getpid));
        _exit(WEXITSTATUS(await(child)));
    });
    EQ("vfork goes there, too", status, 1 << 8);
}

static void entering(void) {
    int status;
    int own = open("/proc/self/ns/pid", O_RDONLY);
    EQ("kind", ioctl(own, NS_GET_NSTYPE), CLONE_NEWPID);
    CHILD(status, {
        unshare(CLONE_NEWPID);
        int pipes[2];
        pipe(pipes);
        pid_t init = fork();
        if (!init) {
            char byte;
            close(pipes[1]);
            read(pipes[0], &byte, 1);
            ERR("back to the parent's", setns(own, CLONE_NEWPID), EINVAL);
            ERR("parent from inside", ioctl(open("/proc/self/ns/pid", O_RDONLY), NS_GET_PARENT), EPERM);
            _exit(0);
        }
        sprintf(buffer, "/proc/%d/ns/pid", init);
        int inner = open(buffer, O_RDONLY);
        struct stat one, other;
        int parent = ioctl(inner, NS_GET_PARENT);
        YES("parent", parent >= 0);
        fstat(parent, &one);
        fstat(own, &other);
        EQ("is ours", one.st_ino, other.st_ino);
        int user = ioctl(inner, NS_GET_USERNS);
        YES("owner", user >= 0);
        EQ("owner's kind", ioctl(user, NS_GET_NSTYPE), CLONE_NEWUSER);
        ERR("wrong kind", setns(inner, CLONE_NEWUTS), EINVAL);
        OK("back to our own", setns(own, CLONE_NEWPID));
        struct stat children;
        stat("/proc/self/ns/pid_for_children", &children);
        EQ("for children again", children.st_ino, other.st_ino);
        pid_t child = fork();
        if (!child)
            _exit(getpid() > 2 ? 1 : 2);
        EQ("a child out here", await(child), 1 << 8);
        OK("enter", setns(inner, CLONE_NEWPID));
        child = fork();
        if (!child)
            _exit(getpid() == 2 && getppid() == 0 ? 3 : 4);
        EQ("a child in there", await(child), 3 << 8);
        setns(own, 0);
        int fd = syscall(SYS_pidfd_open, init, 0);
        OK("enter by pidfd", setns(fd, CLONE_NEWPID));
        child = fork();
        if (!child)
            _exit(getpid());
        EQ("another child in there", await(child), 3 << 8);
        /* An orphan of ours in there comes to its first process. */
        close(pipes[1]);
        EQ("first process", await(init), 0);
        ERR("enter what has ended", fork(), ENOMEM);
        OK("setns still works", setns(inner, CLONE_NEWPID));
        setns(own, 0);
        pid_t again = fork();
        if (!again)
            _exit(0);
        YES("and back", again > 0);
        await(again);
    });
    EQ("entering", status, 0);
    CHILD(status, {
        setgid(1000);
        setuid(1000);
        _exit(setns(own, CLONE_NEWPID) == -1 ? errno : 0);
    });
    EQ("setns without a capability", status, EPERM << 8);
    ERR("parent of the outermost", ioctl(own, NS_GET_PARENT), EPERM);
    close(own);
}

/* How deep namespaces go; answers the error number at the end, and the depth. */
static int descend(int depth) {
    pid_t child = raw_clone(CLONE_NEWPID | SIGCHLD);
    if (!child)
        _exit(descend(depth + 1));
    if (child < 0) {
        shared->pids[0] = depth;
        return errno;
    }
    return WEXITSTATUS(await(child));
}

static void depth(void) {
    shared->pids[0] = 0;
    EQ("too deep", descend(0), ENOSPC);
    YES("how deep", shared->pids[0] <= 32 && shared->pids[0] > 25);
    EQ("three levels", INSIDE({
        unshare(CLONE_NEWPID);
        pid_t child = fork();
        if (!child) {
            nap(1);
            _exit(getpid());
        }
        EQ("seen from the middle", child, 2);
        EQ("seen from within", await(child), 1 << 8);
    }), 0);
}

static void processes_shown(void) {
    int status;
    EQ("a new procfs", INSIDE({
        unshare(CLONE_NEWNS);
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
        struct stat before, after;
        char text[64] = "";
        stat("/proc", &before);
        UNTIL(shared->pids[7]);
        EQ("self in the old one", (readlink("/proc/self", text, sizeof text), atoi(text)), shared->pids[7]);
        memset(text, 0, sizeof text);
        mkdir("/tmp/numbers.proc", 0755);
        OK("mount", mount("proc", "/tmp/numbers.proc", "proc", 0, NULL));
        chdir("/tmp/numbers.proc");
        stat(".", &after);
        YES("a device of its own", before.st_dev != after.st_dev);
        EQ("self", readlink("self", text, sizeof text), 1);
        EQ("is 1", text[0], '1');
        EQ("thread-self", readlink("thread-self", text, sizeof text), 8);
        EQ("is 1's", strncmp(text, "1/task/1", 8), 0);
        pid_t child = fork();
        if (!child)
            for (;;)
                pause();
        DIR *directory = opendir(".");
        int count = 0;
        for (struct dirent *entry; (entry = readdir(directory));)
            count += entry->d_name[0] >= '0' && entry->d_name[0] <= '9';
        closedir(directory);
        EQ("two processes", count, 2);
        EQ("Pid", atoi(line("2/status", "\nPid:\t")), 2);
        EQ("PPid", atoi(line("2/status", "\nPPid:\t")), 1);
        EQ("PPid of the first", atoi(line("1/status", "\nPPid:\t")), 0);
        EQ("NSpid", strcmp(line("2/status", "\nNSpid:\t"), "2"), 0);
        EQ("NStgid", strcmp(line("2/status", "\nNStgid:\t"), "2"), 0);
        EQ("NSpgid", strcmp(line("2/status", "\nNSpgid:\t"), "0"), 0);
        int pid = 0;
        int parent = -1;
        int group = -1;
        int session = -1;
        sscanf(read_file("2/stat"), "%d %*s %*c %d %d %d", &pid, &parent, &group, &session);
        EQ("stat", pid, 2);
        EQ("stat's parent", parent, 1);
        EQ("stat's group", group, 0);
        EQ("stat's session", session, 0);
        EQ("threads", access("2/task/2", F_OK), 0);
        ERR("no such process", access("99", F_OK), ENOENT);
        EQ("children", atoi(read_file("1/task/1/children")), 2);
        int last = 0;
        sscanf(read_file("loadavg"), "%*s %*s %*s %*s %d", &last);
        EQ("loadavg", last, 2);
        EQ("ns_last_pid", atoi(read_file("sys/kernel/ns_last_pid")), 2);
        OK("is written", write_file("sys/kernel/ns_last_pid", "400"));
        pid_t next = fork();
        if (!next)
            _exit(0);
        EQ("and counts", next, 401);
        await(next);
        int fd = syscall(SYS_pidfd_open, child, 0);
        sprintf(text, "self/fdinfo/%d", fd);
        EQ("fdinfo's Pid", atoi(line(text, "Pid:\t")), 2);
        EQ("fdinfo's NSpid", strcmp(line(text, "NSpid:\t"), "2"), 0);
        kill(child, SIGKILL);
        await(child);
        EQ("fdinfo of the dead", atoi(line(text, "Pid:\t")), -1);
        chdir("/");
        OK("umount", umount("/tmp/numbers.proc"));
        rmdir("/tmp/numbers.proc");
    }), 0);
    /* From above. */
    CHILD(status, {
        unshare(CLONE_NEWPID);
        pid_t init = fork();
        if (!init)
            for (;;)
                pause();
        sprintf(buffer, "/proc/%d/status", init);
        char name[64], want[64];
        strcpy(name, buffer);
        sprintf(want, "%d\t1", init);
        EQ("NSpid from above", strcmp(line(name, "\nNSpid:\t"), want), 0);
        EQ("NStgid from above", strcmp(line(name, "\nNStgid:\t"), want), 0);
        sprintf(want, "%d\t0", getpgrp());
        EQ("NSpgid from above", strcmp(line(name, "\nNSpgid:\t"), want), 0);
        int fd = syscall(SYS_pidfd_open, init, 0);
        sprintf(name, "/proc/self/fdinfo/%d", fd);
        sprintf(want, "%d\t1", init);
        EQ("fdinfo from above", strcmp(line(name, "\nNSpid:\t"), want), 0);
        kill(init, SIGKILL);
        await(init);
        _exit(0);
    });
    EQ("from above", status, 0);
}

static int receive_credentials(int fd) {
    char byte, room[128];
    struct iovec piece = {&byte, 1};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    if (recvmsg(fd, &message, 0) < 0)
        return -errno;
    struct cmsghdr *control = CMSG_FIRSTHDR(&message);
    return control ? ((struct ucred *)CMSG_DATA(control))->pid : -1;
}

static int send_credentials(int fd, pid_t pid) {
    char room[CMSG_SPACE(sizeof(struct ucred))] = "";
    struct iovec piece = {"x", 1};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    struct cmsghdr *control = CMSG_FIRSTHDR(&message);
    control->cmsg_len = CMSG_LEN(sizeof(struct ucred));
    control->cmsg_level = SOL_SOCKET;
    control->cmsg_type = SCM_CREDENTIALS;
    struct ucred who = {pid, getuid(), getgid()};
    memcpy(CMSG_DATA(control), &who, sizeof who);
    return sendmsg(fd, &message, 0) < 0 ? -errno : 0;
}

static int peer(int fd) {
    struct ucred who = {-1, 0, 0};
    socklen_t size = sizeof who;
    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size);
    return who.pid;
}

static void sockets(void) {
    int pair[2], on = 1, status;
    pid_t outside = getpid();
    socketpair(AF_UNIX, SOCK_DGRAM, 0, pair);
    setsockopt(pair[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
    setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
    write(pair[0], "x", 1);
    EQ("messages", INSIDE({
        EQ("from outside", receive_credentials(pair[1]), 0);
        EQ("the peer outside", peer(pair[1]), 0);
        int own[2];
        socketpair(AF_UNIX, SOCK_STREAM, 0, own);
        EQ("a peer inside", peer(own[0]), 1);
        setsockopt(own[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
        EQ("own number", send_credentials(own[0], 1), 0);
        EQ("comes", receive_credentials(own[1]), 1);
        EQ("a number outside", send_credentials(own[0], outside), -ESRCH);
        pid_t child = fork();
        if (!child) {
            write(own[0], "x", 1);
            _exit(0);
        }
        await(child);
        EQ("of one who is gone", receive_credentials(own[1]), child);
        write(pair[1], "x", 1);
    }), 0);
    EQ("of a first process that is gone", receive_credentials(pair[0]), shared->pids[7]);
    close(pair[0]);
    close(pair[1]);
}

static void files(void) {
    int fd = open("/tmp", O_TMPFILE | O_RDWR, 0600);
    struct flock lock = {.l_type = F_WRLCK, .l_len = 1};
    fcntl(fd, F_SETLK, &lock);
    int pipes[2];
    pipe(pipes);
    pid_t outside = getpid();
    fcntl(pipes[0], F_SETOWN, outside);
    EQ("locks and owners", INSIDE({
        struct flock asked = {.l_type = F_WRLCK, .l_len = 1};
        fcntl(fd, F_GETLK, &asked);
        EQ("a lock of the outside", asked.l_type, F_WRLCK);
        EQ("whose holder is nobody", asked.l_pid, 0);
        EQ("an owner outside", fcntl(pipes[0], F_GETOWN), 0);
        ERR("owner by a number outside", fcntl(pipes[0], F_SETOWN, outside), ESRCH);
        OK("owner", fcntl(pipes[0], F_SETOWN, 1));
        EQ("owner inside", fcntl(pipes[0], F_GETOWN), 1);
        struct f_owner_ex owner = {F_OWNER_PID, 1};
        OK("F_SETOWN_EX", fcntl(pipes[0], F_SETOWN_EX, &owner));
        OK("F_GETOWN_EX", fcntl(pipes[0], F_GETOWN_EX, &owner));
        EQ("the same", owner.pid, 1);
        asked = (struct flock){.l_type = F_WRLCK, .l_start = 5, .l_len = 1};
        fcntl(fd, F_SETLK, &asked);
        pid_t child = fork();
        if (!child) {
            struct flock theirs = {.l_type = F_WRLCK, .l_start = 5, .l_len = 1};
            fcntl(fd, F_GETLK, &theirs);
            _exit(theirs.l_pid);
        }
        EQ("a holder inside", await(child), 1 << 8);
    }), 0);
    close(fd);
    close(pipes[0]);
    close(pipes[1]);
}

static void objects(void) {
    int queue = msgget(IPC_PRIVATE, 0600), set = semget(IPC_PRIVATE, 1, 0600), segment = shmget(IPC_PRIVATE, 4096, 0600);
    struct {
        long type;
        char text[1];
    } message = {1, "x"};
    struct msqid_ds about_queue;
    struct shmid_ds about_segment;
    struct sembuf raise_it = {0, 1, 0};
    msgsnd(queue, &message, 1, 0);
    semop(set, &raise_it, 1);
    EQ("IPC", INSIDE({
        msgctl(queue, IPC_STAT, &about_queue);
        EQ("a sender outside", about_queue.msg_lspid, 0);
        EQ("a semaphore of the outside", semctl(set, 0, GETPID), 0);
        shmctl(segment, IPC_STAT, &about_segment);
        EQ("a maker outside", about_segment.shm_cpid, 0);
        msgrcv(queue, &message, 1, 0, IPC_NOWAIT);
        msgsnd(queue, &message, 1, 0);
        semop(set, &raise_it, 1);
        shmdt(shmat(segment, NULL, 0));
        msgctl(queue, IPC_STAT, &about_queue);
        EQ("a sender inside", about_queue.msg_lspid, 1);
        EQ("a receiver inside", about_queue.msg_lrpid, 1);
        EQ("a semaphore of the inside", semctl(set, 0, GETPID), 1);
        shmctl(segment, IPC_STAT, &about_segment);
        EQ("the last user inside", about_segment.shm_lpid, 1);
        pid_t child = fork();
        if (!child) {
            semop(set, &raise_it, 1);
            _exit(0);
        }
        await(child);
        EQ("of one who is gone", semctl(set, 0, GETPID), child);
    }), 0);
    msgctl(queue, IPC_STAT, &about_queue);
    EQ("a sender from outside", about_queue.msg_lspid, shared->pids[7]);
    shmctl(segment, IPC_STAT, &about_segment);
    EQ("a user from outside", about_segment.shm_lpid, shared->pids[7]);
    EQ("a maker from outside", about_segment.shm_cpid, getpid());
    msgctl(queue, IPC_RMID, NULL);
    semctl(set, 0, IPC_RMID);
    shmctl(segment, IPC_RMID, NULL);
    EQ("message queues", INSIDE({
        struct mq_attr shape = {.mq_maxmsg = 2, .mq_msgsize = 8};
        mqd_t posix = mq_open("/numbers", O_RDWR | O_CREAT, 0600, &shape);
        mq_unlink("/numbers");
        handle(SIGUSR1);
        struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
        OK("mq_notify", mq_notify(posix, &event));
        pid_t child = fork();
        if (!child) {
            mq_send(posix, "x", 1, 0);
            _exit(0);
        }
        await(child);
        UNTIL(seen);
        EQ("names the sender", sender, child);
    }), 0);
}

static void *lock_holder(void *word) {
    syscall(SYS_futex, word, FUTEX_LOCK_PI, 0, NULL, NULL, 0);
    shared->step = syscall(SYS_gettid);
    return NULL;
}

static void others(void) {
    EQ("calls by number", INSIDE({
        pid_t child = fork();
        if (!child)
            for (;;)
                pause();
        OK("sched_getscheduler", sched_getscheduler(child));
        cpu_set_t cpus;
        OK("sched_getaffinity", sched_getaffinity(child, sizeof cpus, &cpus));
        struct sched_param parameters;
        OK("sched_getparam", sched_getparam(child, &parameters));
        OK("getpriority", (errno = 0, getpriority(PRIO_PROCESS, child) == -1 && errno ? -1 : 0));
        OK("setpriority", setpriority(PRIO_PROCESS, child, 3));
        EQ("is kept", getpriority(PRIO_PROCESS, child), 3);
        OK("setpgid", setpgid(child, child));
        EQ("getpgid", getpgid(child), child);
        OK("priority of a group", (errno = 0, getpriority(PRIO_PGRP, child) == -1 && errno ? -1 : 0));
        struct rlimit limit;
        OK("prlimit", prlimit(child, RLIMIT_CORE, NULL, &limit));
        void *head;
        size_t length;
        OK("get_robust_list", syscall(SYS_get_robust_list, child, &head, &length));
        int value = 5;
        int copy = 0;
        struct iovec local = {&copy, sizeof copy};
        struct iovec remote = {&value, sizeof value};
        EQ("process_vm_readv", syscall(SYS_process_vm_readv, child, &local, 1, &remote, 1, 0), sizeof value);
        EQ("kcmp", syscall(SYS_kcmp, 1, child, KCMP_FILE, 0, 0), 0);
        EQ("ioprio_get", syscall(SYS_ioprio_get, 1, child) >= 0, 1);
        clockid_t clock;
        struct timespec time;
        EQ("clock of another", clock_getcpuclockid(child, &clock), 0);
        OK("reads", clock_gettime(clock, &time));
        EQ("wait for a group", waitpid(-child, NULL, WNOHANG), 0);
        siginfo_t info = {0};
        int fd = syscall(SYS_pidfd_open, child, 0);
        OK("pidfd_send_signal", syscall(SYS_pidfd_send_signal, fd, SIGSTOP, NULL, 0));
        OK("waitid for a stop", waitid(P_PIDFD, fd, &info, WSTOPPED));
        EQ("names it", info.si_pid, child);
        OK("kill a group", kill(-child, SIGKILL));
        OK("waitid for a group", waitid(P_PGID, child, &info, WEXITED));
        EQ("names it as well", info.si_pid, child);
        /* Tracing. */
        child = fork();
        if (!child) {
            ptrace(PTRACE_TRACEME, 0, 0, 0);
            kill(getpid(), SIGSTOP);
            pid_t inner = fork();
            if (!inner)
                _exit(0);
            await(inner);
            _exit(0);
        }
        int status;
        EQ("a tracee stops", waitpid(child, &status, 0), child);
        OK("options", ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACEFORK));
        ptrace(PTRACE_CONT, child, 0, 0);
        EQ("at a fork", waitpid(child, &status, 0), child);
        unsigned long made = 0;
        ptrace(PTRACE_GETEVENTMSG, child, 0, &made);
        EQ("of the next", made, child + 1);
        kill(child, SIGKILL);
        kill(made, SIGKILL);
        while (waitpid(-1, &status, __WALL) > 0)
            ;
        /* Owner words. */
        int word = 0;
        OK("FUTEX_LOCK_PI", syscall(SYS_futex, &word, FUTEX_LOCK_PI, 0, NULL, NULL, 0));
        EQ("owner word", word & FUTEX_TID_MASK, 1);
        OK("FUTEX_UNLOCK_PI", syscall(SYS_futex, &word, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0));
        pthread_t thread;
        shared->step = 0;
        pthread_create(&thread, NULL, lock_holder, (void *)&shared->futex);
        pthread_join(thread, NULL);
        EQ("owner word of a thread", shared->futex & FUTEX_TID_MASK, shared->step);
        shared->futex = 0;
        pthread_mutex_t mutex;
        pthread_mutexattr_t robust;
        pthread_mutexattr_init(&robust);
        pthread_mutexattr_setrobust(&robust, PTHREAD_MUTEX_ROBUST);
        pthread_mutex_init(&mutex, &robust);
        pthread_create(&thread, NULL, (void *(*)(void *))(uintptr_t)pthread_mutex_lock, &mutex);
        pthread_join(thread, NULL);
        EQ("robust mutex of a thread that is gone", pthread_mutex_lock(&mutex), EOWNERDEAD);
        /* A timer for a thread. */
        handle(SIGUSR1);
        seen = 0;
        struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1};
        event._sigev_un._tid = 1;
        timer_t timer;
        OK("timer for a thread", timer_create(CLOCK_MONOTONIC, &event, &timer));
        struct itimerspec soon = {.it_value = {0, 1000000}};
        timer_settime(timer, 0, &soon, NULL);
        UNTIL(seen);
        EQ("comes", seen, SIGUSR1);
        event._sigev_un._tid = 999;
        ERR("timer for nobody", timer_create(CLOCK_MONOTONIC, &event, &timer), EINVAL);
        struct __user_cap_header_struct {
            unsigned version;
            int pid;
        } header = {0x20080522, 1};
        unsigned data[6];
        OK("capget", syscall(SYS_capget, &header, data));
        OK("capset by number", syscall(SYS_capset, &header, data));
    }), 0);
    EQ("signals of children", INSIDE({
        handle(SIGCHLD);
        seen = 0;
        pid_t child = fork();
        if (!child)
            _exit(0);
        UNTIL(seen);
        EQ("name them", sender, child);
        await(child);
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGUSR2);
        sigprocmask(SIG_BLOCK, &set, NULL);
        int fd = signalfd(-1, &set, 0);
        child = fork();
        if (!child) {
            kill(1, SIGUSR2);
            _exit(0);
        }
        await(child);
        struct signalfd_siginfo got;
        read(fd, &got, sizeof got);
        EQ("signalfd", got.ssi_pid, child);
    }), 0);
    /* A child of another namespace ends. */
    handle(SIGCHLD);
    seen = 0;
    sender = 0;
    pid_t child = raw_clone(CLONE_NEWPID | SIGCHLD);
    if (!child)
        _exit(0);
    UNTIL(seen);
    EQ("SIGCHLD across", sender, child);
    await(child);
    signal(SIGCHLD, SIG_DFL);
}

static void terminals(void) {
    int status;
    CHILD(status, {
        unshare(CLONE_NEWPID);
        pid_t init = fork();
        if (!init) {
            EQ("session", setsid(), 1);
            int master = posix_openpt(O_RDWR | O_NOCTTY);
            grantpt(master);
            unlockpt(master);
            int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
            OK("TIOCSCTTY", ioctl(slave, TIOCSCTTY, 0));
            EQ("foreground", tcgetpgrp(slave), 1);
            EQ("session of the terminal", tcgetsid(slave), 1);
            pid_t child = fork();
            if (!child)
                for (;;)
                    pause();
            setpgid(child, child);
            signal(SIGTTOU, SIG_IGN);
            OK("tcsetpgrp", tcsetpgrp(slave, child));
            EQ("foreground now", tcgetpgrp(slave), child);
            ERR("no such group", tcsetpgrp(slave, 999), ESRCH);
            kill(child, SIGKILL);
            await(child);
            tcsetpgrp(slave, 1);
            _exit(0);
        }
        _exit(WEXITSTATUS(await(init)));
    });
    EQ("terminals", status, 0);
}

int main(void) {
    alarm(60);
    setvbuf(stdout, NULL, _IOLBF, 0);
    shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    identity();
    chosen_numbers();
    shield();
    orphans();
    ends();
    unsharing();
    entering();
    depth();
    processes_shown();
    sockets();
    files();
    objects();
    others();
    terminals();
    return 0;
}
