/* PID namespaces at their edges: numbers by descriptor, reboot, the largest number, families and handles across. */
#include "numbers.h"
#include <linux/nsfs.h>

#ifndef NS_GET_PID_FROM_PIDNS
#define NS_GET_PID_FROM_PIDNS _IOR(0xb7, 0x6, int)
#define NS_GET_TGID_FROM_PIDNS _IOR(0xb7, 0x7, int)
#define NS_GET_PID_IN_PIDNS _IOR(0xb7, 0x8, int)
#define NS_GET_TGID_IN_PIDNS _IOR(0xb7, 0x9, int)
#endif

/* Numbers by a namespace's descriptor. */
static void translated(void) {
    int status;
    CHILD(status, {
        unshare(CLONE_NEWPID);
        pid_t init = fork();
        if (!init)
            for (;;)
                pause();
        sprintf(buffer, "/proc/%d/ns/pid", init);
        int inner = open(buffer, O_RDONLY), own = open("/proc/self/ns/pid", O_RDONLY), other = open("/proc/self/ns/uts", O_RDONLY);
        EQ("from a namespace", ioctl(inner, NS_GET_PID_FROM_PIDNS, 1), init);
        EQ("a process from a namespace", ioctl(inner, NS_GET_TGID_FROM_PIDNS, 1), init);
        EQ("in a namespace", ioctl(inner, NS_GET_PID_IN_PIDNS, init), 1);
        EQ("a process in a namespace", ioctl(inner, NS_GET_TGID_IN_PIDNS, init), 1);
        EQ("in one's own", ioctl(own, NS_GET_PID_IN_PIDNS, getpid()), getpid());
        ERR("not in there", ioctl(inner, NS_GET_PID_IN_PIDNS, getpid()), ESRCH);
        ERR("nobody in there", ioctl(inner, NS_GET_PID_FROM_PIDNS, 77), ESRCH);
        ERR("nobody at all", ioctl(inner, NS_GET_TGID_IN_PIDNS, 4000000), ESRCH);
        ERR("another kind", ioctl(other, NS_GET_PID_FROM_PIDNS, 1), EINVAL);
        kill(init, SIGKILL);
        await(init);
        _exit(0);
    });
    EQ("translated", status, 0);
}

#define RESTART 0x01234567
#define HALT 0xcdef0123
#define POWER_OFF 0x4321fedc
#define NO_KEYS 0

static long boot(unsigned how) {
    return syscall(SYS_reboot, 0xfee1dead, 672274793, how, NULL);
}

/* A namespace's own end by reboot(2), which the machine does not notice. */
static void booting(void) {
    EQ("restart", INSIDE({
        boot(RESTART);
        _exit(1);
    }), 100 + SIGHUP);
    EQ("halt", INSIDE({
        boot(HALT);
        _exit(1);
    }), 100 + SIGINT);
    EQ("by a child", INSIDE({
        if (!fork()) {
            boot(POWER_OFF);
            _exit(1);
        }
        for (;;)
            pause();
    }), 100 + SIGINT);
    EQ("not that", INSIDE({
        ERR("keys", boot(NO_KEYS), EINVAL);
        ERR("nonsense", boot(1), EINVAL);
        ERR("wrong magic", syscall(SYS_reboot, 1, 672274793, RESTART, NULL), EINVAL);
        setgid(1000);
        setuid(1000);
        ERR("without a capability", boot(RESTART), EPERM);
    }), 0);
}

/* The largest number of a namespace. */
static void largest(void) {
    EQ("a limit", INSIDE({
        unshare(CLONE_NEWNS);
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
        mount("proc", "/proc", "proc", 0, NULL);
        const char *limit = "/proc/sys/kernel/pid_max";
        EQ("largest", atoi(read_file(limit)), 4194304);
        ERR("too small", write_file(limit, "200"), EINVAL);
        ERR("too large", write_file(limit, "4194305"), EINVAL);
        OK("smaller", write_file(limit, "400"));
        EQ("reads so", atoi(read_file(limit)), 400);
        OK("last", write_file("/proc/sys/kernel/ns_last_pid", "398"));
        pid_t one = fork();
        if (!one)
            _exit(0);
        EQ("the last one", one, 399);
        pid_t other = fork();
        if (!other)
            _exit(0);
        EQ("starts again", other, 300);
        await(one);
        await(other);
        ERR("chosen beyond it", choose((pid_t[]){400}, 1, 0), EINVAL);
        one = choose((pid_t[]){399}, 1, 0);
        EQ("chosen below it", one, 399);
        await(one);
        int count = 0;
        while (count < 500) {
            pid_t child = fork();
            if (!child)
                _exit(0);
            if (child < 0)
                break;
            count++;
        }
        EQ("why it ends", errno, EAGAIN);
        EQ("how many there are", count, 100);
        while (wait(NULL) > 0)
            ;
        pid_t again = fork();
        if (!again)
            _exit(0);
        YES("there is room again", again > 0);
        await(again);
    }), 0);
}

static void *outlives(void *unused) {
    UNTIL(strstr(read_file("/proc/self/stat"), ") Z "));
    shared->step = 1;
    pid_t child = fork();
    if (!child)
        _exit(getppid());
    int status = await(child);
    shared->pids[0] = WEXITSTATUS(status);
    exit(7);
}

static void more(void) {
    int status;
    EQ("a leader ends before its thread", INSIDE({
        pthread_t thread;
        pthread_create(&thread, NULL, outlives, NULL);
        pthread_exit(NULL);
    }), 7);
    EQ("whose children are the first's", shared->pids[0], 1);
    EQ("exec", INSIDE({
        execl("/bin/sh", "sh", "-c", "exit $$", NULL);
    }), 1);
    EQ("exec by a thread", INSIDE({
        pthread_t thread;
        pthread_create(&thread, NULL, (void *(*)(void *))(uintptr_t)system, "exit 3");
        pthread_join(thread, NULL);
        pid_t child = fork();
        if (!child)
            _exit(getpid());
        _exit(WEXITSTATUS(await(child)));
    }), 4);
    EQ("a sibling of the first", INSIDE({
        ERR("cannot be", raw_clone(CLONE_PARENT | SIGCHLD), EINVAL);
        pid_t child = fork();
        if (!child) {
            pid_t sibling = raw_clone(CLONE_PARENT | SIGCHLD);
            if (!sibling)
                _exit(0);
            _exit(sibling > 0 ? sibling : 99);
        }
        EQ("but of others", await(child), 3 << 8);
        EQ("which the first waits for", await(3), 0);
    }), 0);
    EQ("children are ignored", INSIDE({
        signal(SIGCHLD, SIG_IGN);
        pid_t child = fork();
        if (!child) {
            if (!fork())
                _exit(0);
            _exit(0);
        }
        UNTIL(kill(child, 0));
        ERR("none to wait for", waitpid(-1, NULL, 0), ECHILD);
    }), 0);
    EQ("a group across", INSIDE({
        setpgid(0, 0);
        handle(SIGUSR1);
        unshare(CLONE_NEWPID);
        pid_t child = fork();
        if (!child) {
            EQ("is no number", getpgrp(), 0);
            OK("but hears", kill(0, SIGUSR1));
            _exit(0);
        }
        UNTIL(seen);
        EQ("a signal", seen, SIGUSR1);
        await(child);
    }), 0);
    CHILD(status, {
        int own = syscall(SYS_pidfd_open, getpid(), 0);
        unshare(CLONE_NEWPID);
        pid_t child = fork();
        if (!child) {
            ERR("pidfd of the outside", syscall(SYS_pidfd_send_signal, own, 0, NULL, 0), EINVAL);
            siginfo_t info;
            ERR("wait for it", waitid(P_PIDFD, own, &info, WEXITED), ECHILD);
            struct pollfd end = {own, POLLIN, 0};
            EQ("poll it", poll(&end, 1, 0), 0);
            _exit(0);
        }
        await(child);
        _exit(0);
    });
    EQ("pidfds", status, 0);
    CHILD(status, {
        int fd = -1;
        struct clone_args arguments = {.flags = CLONE_PIDFD | CLONE_NEWPID, .pidfd = (uintptr_t)&fd, .exit_signal = SIGCHLD};
        pid_t child = syscall(SYS_clone3, &arguments, sizeof arguments);
        if (!child)
            for (;;)
                pause();
        OK("CLONE_PIDFD", syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0));
        siginfo_t info;
        waitid(P_PIDFD, fd, &info, WEXITED);
        EQ("the same", info.si_pid, child);
        EQ("killed", info.si_status, SIGKILL);
        _exit(0);
    });
    EQ("by descriptor", status, 0);
    CHILD(status, {
        unshare(CLONE_NEWPID | CLONE_NEWNS);
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
        errno = 0;
        _exit(mount("proc", "/proc", "proc", 0, NULL) ? errno : access("/proc/self", F_OK) ? 200 : 0);
    });
    EQ("procfs is one's own", status, 0);
    CHILD(status, {
        unshare(CLONE_NEWUSER | CLONE_NEWNS);
        errno = 0;
        _exit(mount("proc", "/proc", "proc", 0, NULL) ? errno : 0);
    });
    EQ("procfs of a namespace that is another's", status, EPERM << 8);
    CHILD(status, {
        unshare(CLONE_NEWPID);
        pid_t child = fork();
        if (!child) {
            unshare(CLONE_NEWUSER);
            _exit(unshare(CLONE_NEWPID) ? errno : 0);
        }
        _exit(WEXITSTATUS(await(child)));
    });
    EQ("a namespace in a user namespace", status, 0);
    CHILD(status, {
        prctl(PR_SET_CHILD_SUBREAPER, 1);
        unshare(CLONE_NEWPID);
        pid_t init = fork();
        if (!init) {
            pid_t middle = fork();
            if (!middle) {
                prctl(PR_SET_CHILD_SUBREAPER, 1);
                pid_t child = fork();
                if (!child) {
                    if (!fork()) {
                        UNTIL(getppid() == 2);
                        _exit(getppid());
                    }
                    _exit(0);
                }
                await(child);
                int result;
                wait(&result);
                _exit(WEXITSTATUS(result));
            }
            _exit(WEXITSTATUS(await(middle)));
        }
        _exit(WEXITSTATUS(await(init)));
    });
    EQ("a subreaper inside", status, 2 << 8);
    CHILD(status, {
        unshare(CLONE_NEWPID);
        pid_t init = fork();
        if (!init) {
            if (!fork()) {
                prctl(PR_SET_PDEATHSIG, SIGUSR2);
                handle(SIGUSR2);
                UNTIL(seen);
                _exit(seen);
            }
            sigset_t set;
            sigemptyset(&set);
            nap(20);
            _exit(3);
        }
        EQ("all end with the first", WEXITSTATUS(await(init)), 3);
        _exit(0);
    });
    EQ("death", status, 0);
}

int main(void) {
    begin();
    translated();
    booting();
    largest();
    more();
    return 0;
}
