/* PID namespaces: numbers in each, the first process's shield, ends, unshare and setns. */
#include "numbers.h"
#include <linux/nsfs.h>

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

int main(void) {
    begin();
    identity();
    chosen_numbers();
    shield();
    orphans();
    ends();
    unsharing();
    entering();
    depth();
    return 0;
}
