/* Processes: fork, exec, wait, groups, sessions, pidfds, names. */
#include "case.h"
#include <linux/sched.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

static void waiting(void) {
    int status;
    siginfo_t info;
    ERR("wait without children", wait(&status), ECHILD);
    ERR("waitpid not mine", waitpid(getppid(), &status, 0), ECHILD);
    ERR("waitpid flags", waitpid(-1, &status, 0x10), EINVAL);
    ERR("waitid without flags", waitid(P_ALL, 0, &info, 0), EINVAL);
    ERR("waitid strange", waitid(99, 0, &info, WEXITED), EINVAL);
    ERR("waitid zero pid", waitid(P_PID, 0, &info, WEXITED), EINVAL);
    CHILD(status, _exit(7));
    EQ("exit status", status, 7 << 8);
    CHILD(status, _exit(256 + 3));
    EQ("exit status cut", status, 3 << 8);
    CHILD(status, kill(getpid(), SIGKILL));
    EQ("killed", status, SIGKILL);
    CHILD(status, setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); abort());
    EQ("aborted", status & 0x7f, SIGABRT);
    pid_t child = fork();
    if (child == 0)
        _exit(5);
    memset(&info, 0, sizeof info);
    OK("waitid nowait", waitid(P_PID, child, &info, WEXITED | WNOWAIT));
    EQ("si_code", info.si_code, CLD_EXITED);
    EQ("si_status", info.si_status, 5);
    EQ("si_pid", info.si_pid, child);
    EQ("si_signo", info.si_signo, SIGCHLD);
    EQ("still there", kill(child, 0), 0);
    EQ("waited", waitpid(child, &status, WNOHANG), child);
    ERR("gone", kill(child, 0), ESRCH);
    child = fork();
    if (child == 0)
        for (;;)
            pause();
    EQ("nohang", waitpid(child, &status, WNOHANG), 0);
    memset(&info, 1, sizeof info);
    EQ("waitid nohang", waitid(P_PID, child, &info, WEXITED | WNOHANG), 0);
    EQ("waitid nohang pid", info.si_pid, 0);
    kill(child, SIGSTOP);
    EQ("stopped", waitpid(child, &status, WUNTRACED), child);
    EQ("stop status", status, SIGSTOP << 8 | 0x7f);
    EQ("reported once", waitpid(child, &status, WUNTRACED | WNOHANG), 0);
    kill(child, SIGCONT);
    EQ("continued", waitpid(child, &status, WCONTINUED), child);
    EQ("continue status", status, 0xffff);
    kill(child, SIGSTOP);
    EQ("waitid stopped", waitid(P_PID, child, &info, WSTOPPED), 0);
    EQ("waitid stop code", info.si_code, CLD_STOPPED);
    EQ("waitid stop signal", info.si_status, SIGSTOP);
    kill(child, SIGKILL);
    struct rusage usage;
    EQ("wait4", wait4(child, &status, 0, &usage), child);
    EQ("killed while stopped", status, SIGKILL);
    child = fork();
    if (child == 0) {
        setpgid(0, 0);
        _exit(0);
    }
    setpgid(child, child);
    EQ("wait for group", waitpid(-child, &status, 0), child);
    signal(SIGCHLD, SIG_IGN);
    child = fork();
    if (child == 0)
        _exit(0);
    ERR("ignored children", waitpid(child, &status, 0), ECHILD);
    signal(SIGCHLD, SIG_DFL);
    /* Orphans go to the nearest subreaper. */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    int pipes[2];
    pipe(pipes);
    child = fork();
    if (child == 0) {
        pid_t grandchild = fork();
        if (grandchild == 0) {
            pid_t middle = getppid();
            UNTIL(getppid() != middle);
            pid_t parent = getppid();
            write(pipes[1], &parent, sizeof parent);
            _exit(9);
        }
        _exit(0);
    }
    waitpid(child, &status, 0);
    pid_t parent = 0;
    read(pipes[0], &parent, sizeof parent);
    EQ("subreaper", parent, getpid());
    wait(&status);
    EQ("adopted", status, 9 << 8);
    prctl(PR_SET_CHILD_SUBREAPER, 0);
    /* The death of the parent is told. */
    child = fork();
    if (child == 0) {
        pid_t inner = fork();
        if (inner == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            close(pipes[0]);
            write(pipes[1], "x", 1);
            for (;;)
                pause();
        }
        char byte;
        read(pipes[0], &byte, 1);
        _exit(0);
    }
    close(pipes[1]);
    waitpid(child, &status, 0);
    struct pollfd poll_end = {pipes[0], POLLIN, 0};
    EQ("died with its parent", ({poll(&poll_end, 1, 2000); poll_end.revents; }), POLLHUP);
    close(pipes[0]);
}

static void *sleeper(void *unused) {
    for (;;)
        pause();
}

static void *leaver(void *milliseconds) {
    nap((long)milliseconds);
    exit(6);
}

static void *execer(void *name) {
    execl("/bin/sh", "sh", "-c", "exit 11", NULL);
    return NULL;
}

static void making(void) {
    int status;
    ERR("clone thread without sighand", syscall(SYS_clone, CLONE_THREAD, 0, 0, 0, 0), EINVAL);
    ERR("clone sighand without vm", syscall(SYS_clone, CLONE_SIGHAND, 0, 0, 0, 0), EINVAL);
    ERR("clone fs and newns", syscall(SYS_clone, CLONE_FS | CLONE_NEWNS, 0, 0, 0, 0), EINVAL);
    struct clone_args arguments = {.exit_signal = SIGCHLD};
    ERR("clone3 short", syscall(SYS_clone3, &arguments, 8), EINVAL);
    ERR("clone3 long", syscall(SYS_clone3, &arguments, 5000), E2BIG);
    arguments.exit_signal = 100;
    ERR("clone3 signal", syscall(SYS_clone3, &arguments, sizeof arguments), EINVAL);
    arguments.exit_signal = SIGCHLD;
    arguments.stack = 4096;
    ERR("clone3 stack", syscall(SYS_clone3, &arguments, sizeof arguments), EINVAL);
    arguments.stack = 0;
    int pidfd = -1;
    arguments.pidfd = (uintptr_t)&pidfd;
    arguments.flags = CLONE_PIDFD;
    pid_t child = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (child == 0)
        _exit(4);
    YES("clone3 pidfd", pidfd >= 0);
    EQ("pidfd cloexec", fcntl(pidfd, F_GETFD), FD_CLOEXEC);
    struct pollfd poll_end = {pidfd, POLLIN, 0};
    EQ("pidfd readable at the end", poll(&poll_end, 1, 2000), 1);
    siginfo_t info;
    EQ("waitid pidfd", waitid(P_PIDFD, pidfd, &info, WEXITED), 0);
    EQ("waitid pidfd status", info.si_status, 4);
    ERR("signal to the gone", syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0), ESRCH);
    close(pidfd);
    ERR("pidfd of none", syscall(SYS_pidfd_open, 999999, 0), ESRCH);
    ERR("pidfd zero", syscall(SYS_pidfd_open, 0, 0), EINVAL);
    ERR("pidfd negative", syscall(SYS_pidfd_open, -5, 0), EINVAL);
    ERR("pidfd flags", syscall(SYS_pidfd_open, getpid(), 1), EINVAL);
    pidfd = syscall(SYS_pidfd_open, getpid(), 0);
    OK("pidfd signal 0", syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0));
    ERR("pidfd bad signal", syscall(SYS_pidfd_send_signal, pidfd, 99, NULL, 0), EINVAL);
    ERR("pidfd signal bad fd", syscall(SYS_pidfd_send_signal, 0, 0, NULL, 0), EBADF);
    ERR("read of pidfd", read(pidfd, &info, 4), EINVAL);
    int proc = open("/proc/self", O_RDONLY | O_DIRECTORY);
    OK("directory of proc as pidfd", syscall(SYS_pidfd_send_signal, proc, 0, NULL, 0));
    int number = open("a-file", O_CREAT | O_RDWR, 0644);
    lseek(number, 0, SEEK_SET);
    int got = syscall(SYS_pidfd_getfd, pidfd, number, 0);
    YES("pidfd_getfd", got >= 0);
    EQ("pidfd_getfd cloexec", fcntl(got, F_GETFD), FD_CLOEXEC);
    EQ("same file", syscall(SYS_kcmp, getpid(), getpid(), 0, number, got), 0);
    ERR("pidfd_getfd bad", syscall(SYS_pidfd_getfd, pidfd, 200, 0), EBADF);
    ERR("pidfd_getfd flags", syscall(SYS_pidfd_getfd, pidfd, 0, 1), EINVAL);
    close(pidfd);
    CHILD(status, pthread_t t; pthread_create(&t, NULL, leaver, (void *)50L); sleeper(NULL));
    EQ("exit by a thread", status, 6 << 8);
    CHILD(status, pthread_t t; pthread_create(&t, NULL, execer, NULL); sleeper(NULL));
    EQ("exec by a thread", status, 11 << 8);
}

static void leader_leaves(void) {
    int status;
    pid_t child = fork();
    if (child == 0) {
        pthread_t thread;
        pthread_create(&thread, NULL, leaver, (void *)600L);
        syscall(SYS_exit, 3);
    }
    nap(10);
    EQ("a leader that left is not waited for", waitpid(child, &status, WNOHANG), 0);
    waitpid(child, &status, 0);
    EQ("status of the last thread", status, 6 << 8);
}

static volatile int shared_value;

static void vforking(void) {
    int status;
    pid_t child = vfork();
    if (child == 0) {
        shared_value = 42;
        _exit(0);
    }
    EQ("vfork shares memory", shared_value, 42);
    waitpid(child, &status, 0);
    child = fork();
    if (child == 0) {
        shared_value = 43;
        _exit(0);
    }
    waitpid(child, &status, 0);
    EQ("fork copies memory", shared_value, 42);
}

static void executing(void) {
    char *argv[] = {"x", NULL};
    ERR("exec missing", execv("none", argv), ENOENT);
    ERR("exec directory", execv("/", argv), EACCES);
    put("plain", "not a program");
    ERR("exec without permission", execv("plain", argv), EACCES);
    chmod("plain", 0755);
    ERR("exec of text", execv("plain", argv), ENOEXEC);
    put("empty", "");
    chmod("empty", 0755);
    ERR("exec of empty", execv("empty", argv), ENOEXEC);
    put("script", "#!/none/at/all\n");
    chmod("script", 0755);
    ERR("exec without interpreter", execv("script", argv), ENOENT);
    put("self", "#! ./self\n");
    chmod("self", 0755);
    ERR("exec of itself", execv("self", argv), ELOOP);
    ERR("exec below file", execv("plain/x", argv), ENOTDIR);
    ERR("exec bad pointer", syscall(SYS_execve, "/bin/true", 8, 0), EFAULT);
    char *huge = malloc(200000);
    memset(huge, 'x', 199999);
    huge[199999] = 0;
    ERR("exec long argument", execl("/bin/true", "x", huge, NULL), E2BIG);
    free(huge);
    int busy = open("busy", O_CREAT | O_RDWR, 0755);
    write(busy, "\177ELF", 4);
    close(busy);
    ERR("exec of cut program", execv("busy", argv), ENOEXEC);
    int status;
    put("ok", "#!/bin/sh -e\nexit 21\n");
    chmod("ok", 0755);
    CHILD(status, execl("./ok", "ok", NULL));
    EQ("script", status, 21 << 8);
    CHILD(status, int f = open("ok", O_RDONLY); syscall(SYS_execveat, f, "", argv, NULL, AT_EMPTY_PATH));
    EQ("execveat of descriptor", status, 21 << 8);
    symlink("ok", "oklink");
    ERR("execveat nofollow", syscall(SYS_execveat, AT_FDCWD, "oklink", argv, NULL, AT_SYMLINK_NOFOLLOW), ELOOP);
    CHILD(status, signal(SIGUSR1, SIG_IGN); execl("/bin/sh", "sh", "-c", "kill -USR1 $$; exit 3", NULL));
    EQ("ignored signals stay ignored", status, 3 << 8);
    CHILD(status, sigset_t s; sigemptyset(&s); sigaddset(&s, SIGTERM); sigprocmask(SIG_BLOCK, &s, NULL);
          execl("/bin/sh", "sh", "-c", "kill -TERM $$; exit 4", NULL));
    EQ("mask stays", status, 4 << 8);
    CHILD(status, fcntl(open("ok", O_RDONLY | O_CLOEXEC), F_DUPFD, 30);
          execl("/bin/sh", "sh", "-c", "test -e /proc/self/fd/30 || exit 1; exec ls /proc/self/fd | grep -c . > /dev/null", NULL));
    EQ("descriptors stay", status, 0);
}

static void groups(void) {
    int status;
    CHILD(status, {
        if (setsid() != getpid())
            _exit(1);
        if (setsid() != -1 || errno != EPERM)
            _exit(2);
        if (getpgid(0) != getpid() || getsid(0) != getpid())
            _exit(3);
        if (setpgid(0, 0) != -1 || errno != EPERM)
            _exit(4);
        pid_t c = fork();
        if (c == 0) {
            if (setpgid(0, 0) || getpgrp() != getpid())
                _exit(1);
            _exit(0);
        }
        int s;
        waitpid(c, &s, 0);
        if (s)
            _exit(5);
    });
    EQ("sessions", status, 0);
    ERR("setpgid negative", setpgid(0, -1), EINVAL);
    ERR("setpgid none", setpgid(999999, 0), ESRCH);
    ERR("setpgid other group", setpgid(0, 999999), EPERM);
    ERR("getpgid none", getpgid(999999), ESRCH);
    ERR("getsid none", getsid(999999), ESRCH);
    pid_t child = fork();
    if (child == 0) {
        execl("/bin/sleep", "sleep", "5", NULL);
        _exit(1);
    }
    UNTIL(setpgid(child, child) == -1);
    ERR("setpgid after exec", setpgid(child, child), EACCES);
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    ERR("setpgid of zombie gone", setpgid(child, child), ESRCH);
}

static void misc(void) {
    char name[17] = {0};
    OK("set name", prctl(PR_SET_NAME, "a-name-longer-than-15"));
    prctl(PR_GET_NAME, name);
    YES("name cut", strcmp(name, "a-name-longer-t") == 0);
    ERR("prctl strange", prctl(12345, 0, 0, 0, 0), EINVAL);
    ERR("dumpable strange", prctl(PR_SET_DUMPABLE, 5), EINVAL);
    EQ("dumpable", prctl(PR_GET_DUMPABLE), 1);
    ERR("pdeathsig strange", prctl(PR_SET_PDEATHSIG, 100), EINVAL);
    EQ("no_new_privs", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0);
    ERR("no_new_privs strange", prctl(PR_SET_NO_NEW_PRIVS, 2, 0, 0, 0), EINVAL);
    ERR("no_new_privs rest", prctl(PR_SET_NO_NEW_PRIVS, 1, 1, 0, 0), EINVAL);
    EQ("timerslack", prctl(PR_GET_TIMERSLACK) > 0, 1);
    EQ("keepcaps", prctl(PR_GET_KEEPCAPS), 0);
    EQ("thp", prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), 0);
    EQ("securebits", prctl(PR_GET_SECUREBITS), 0);
    ERR("capbset strange", prctl(PR_CAPBSET_READ, 100), EINVAL);
    EQ("tsc", ({int v = 0; prctl(PR_GET_TSC, &v); v; }), PR_TSC_ENABLE);
    EQ("seccomp", prctl(PR_GET_SECCOMP), 0);
    struct utsname uts;
    OK("uname", uname(&uts));
    YES("machine", strcmp(uts.machine, "x86_64") == 0 && strcmp(uts.sysname, "Linux") == 0);
    ERR("uname bad", uname((void *)8), EFAULT);
    struct sysinfo system;
    OK("sysinfo", sysinfo(&system));
    YES("sysinfo memory", system.totalram * system.mem_unit > 1 << 20 && system.procs > 0);
    struct rlimit limit;
    ERR("getrlimit strange", getrlimit(99, &limit), EINVAL);
    ERR("setrlimit backwards", setrlimit(RLIMIT_CORE, &(struct rlimit){10, 5}), EINVAL);
    ERR("prlimit none", prlimit(999999, RLIMIT_CORE, NULL, &limit), ESRCH);
    ERR("getpriority strange", getpriority(9, 0), EINVAL);
    ERR("getpriority none", getpriority(PRIO_PROCESS, 999999), ESRCH);
    ERR("getrusage strange", getrusage(9, NULL), EINVAL);
    cpu_set_t set;
    YES("affinity", sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0);
    ERR("affinity small", syscall(SYS_sched_getaffinity, 0, 4, &set), EINVAL);
    ERR("affinity none", sched_getaffinity(999999, sizeof set, &set), ESRCH);
    CPU_ZERO(&set);
    ERR("affinity empty", sched_setaffinity(0, sizeof set, &set), EINVAL);
    EQ("policy", sched_getscheduler(0), SCHED_OTHER);
    struct sched_param parameter = {5};
    ERR("priority for other", sched_setscheduler(0, SCHED_OTHER, &parameter), EINVAL);
    ERR("policy strange", sched_setscheduler(0, 77, &parameter), EINVAL);
    EQ("most priority", sched_get_priority_max(SCHED_FIFO), 99);
    ERR("most priority strange", sched_get_priority_max(99), EINVAL);
    unsigned cpu = 999;
    OK("getcpu", syscall(SYS_getcpu, &cpu, NULL, NULL));
    YES("cpu", cpu < 999);
    ERR("no such call", syscall(5000), ENOSYS);
    ERR("kcmp strange", syscall(SYS_kcmp, getpid(), getpid(), 99, 0, 0), EINVAL);
    ERR("kcmp none", syscall(SYS_kcmp, 999999, getpid(), 0, 0, 0), ESRCH);
    ERR("kcmp bad fd", syscall(SYS_kcmp, getpid(), getpid(), 0, 0, 99), EBADF);
    EQ("kcmp memory", syscall(SYS_kcmp, getpid(), getpid(), 1, 0, 0), 0);
    int status;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        nap(300);
        _exit(0);
    }
    YES("kcmp other memory", syscall(SYS_kcmp, getpid(), child, 1, 0, 0) > 0);
    long value = 0x1234;
    static long target = 1;
    struct iovec local = {&value, 8}, remote = {&target, 8};
    EQ("process_vm_writev", process_vm_writev(child, &local, 1, &remote, 1, 0), 8);
    value = 0;
    EQ("process_vm_readv", process_vm_readv(child, &local, 1, &remote, 1, 0), 8);
    EQ("read back", value, 0x1234);
    EQ("own memory untouched", target, 1);
    remote.iov_base = (void *)8;
    ERR("process_vm_readv bad", process_vm_readv(child, &local, 1, &remote, 1, 0), EFAULT);
    ERR("process_vm_readv flags", process_vm_readv(child, &local, 1, &remote, 1, 1), EINVAL);
    ERR("process_vm_readv none", process_vm_readv(999999, &local, 1, &remote, 1, 0), ESRCH);
    waitpid(child, &status, 0);
}

int main(void) {
    enter_directory();
    alarm(20);
    waiting();
    vforking();
    executing();
    groups();
    leader_leaves();
    misc();
    making();
    return 0;
}
