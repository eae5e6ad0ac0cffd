/* Calls that a filter leaves to a supervisor, seccomp_unotify(2). */
#include "case.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif
#ifndef SECCOMP_ADDFD_FLAG_SEND
#define SECCOMP_ADDFD_FLAG_SEND 2
#endif

#define ANSWER(value) BPF_STMT(BPF_RET | BPF_K, value)
#define LISTEN SECCOMP_FILTER_FLAG_NEW_LISTENER

/* A filter with this answer for one call. */
static int install(int call, uint32_t answer, unsigned long flags) {
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
        ANSWER(answer),
        ANSWER(SECCOMP_RET_ALLOW),
    };
    struct sock_fprog given = {sizeof program / sizeof program[0], program};
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &given);
}

static struct seccomp_notif asked;
static int receive(int listener) {
    memset(&asked, 0, sizeof asked);
    return ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &asked);
}

static int respond(int listener, uint64_t id, long value, int error, uint32_t flags) {
    struct seccomp_notif_resp response = {id, value, error, flags};
    return ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response);
}

static int add_descriptor(int listener, uint64_t id, uint32_t flags, int source, int target, uint32_t new_flags) {
    struct seccomp_notif_addfd given = {id, flags, source, target, new_flags};
    return ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &given);
}

static int ready(int listener) {
    struct pollfd entry = {listener, POLLIN | POLLOUT, 0};
    return poll(&entry, 1, 0) < 0 ? -1 : entry.revents;
}

static char state(pid_t pid) {
    char name[64], text[512] = "";
    snprintf(name, sizeof name, "/proc/%d/stat", pid);
    int fd = open(name, O_RDONLY);
    if (fd < 0)
        return '?';
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    char *end = length > 0 ? strrchr(text, ')') : NULL;
    return end ? end[2] : '?';
}

static int ended(pid_t pid) {
    int status = -1;
    waitpid(pid, &status, 0);
    return status;
}

/* A child that makes the call and exits with 0 if it gives this value, else with its error number. */
static pid_t caller(long expected) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(15);
        errno = 0;
        long value = syscall(SYS_getppid, 1, 2, 3, 4, 5, 6);
        _exit(value == expected ? 0 : value == -1 ? errno : 255);
    }
    return pid;
}

static volatile int handled;
static void handle(int signal) {
    handled++;
}

/* A child that hears of signals while it waits; tells whether its call gave this value, and a signal came. */
static pid_t interrupted_caller(long expected, int flags) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(15);
        struct sigaction action = {.sa_handler = handle, .sa_flags = flags};
        sigaction(SIGUSR1, &action, NULL);
        errno = 0;
        long value = syscall(SYS_getppid);
        _exit(!handled ? 254 : value == expected ? 0 : value == -1 ? errno : 255);
    }
    return pid;
}

static void flags(void) {
    ERR("strange flag", install(SYS_getppid, SECCOMP_RET_USER_NOTIF, 1 << 20), EINVAL);
    ERR("listener with sync", install(SYS_getppid, SECCOMP_RET_USER_NOTIF, LISTEN | SECCOMP_FILTER_FLAG_TSYNC), EINVAL);
    ERR("killable without listener", install(SYS_getppid, SECCOMP_RET_USER_NOTIF, SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV), EINVAL);
    uint32_t action = SECCOMP_RET_USER_NOTIF;
    OK("action there", syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action));
    ERR("action with flags", syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 1, &action), EINVAL);
    ERR("action nowhere", syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, NULL), EFAULT);
    struct seccomp_notif_sizes sizes = {0};
    OK("sizes", syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes));
    EQ("of notifications", sizes.seccomp_notif, 80);
    EQ("of responses", sizes.seccomp_notif_resp, 24);
    EQ("of data", sizes.seccomp_data, 64);
    ERR("sizes with flags", syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 1, &sizes), EINVAL);
    ERR("sizes nowhere", syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, NULL), EFAULT);
    int status;
    CHILD(status, int listener = install(SYS_getppid, SECCOMP_RET_USER_NOTIF, LISTEN | SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH);
          _exit(listener >= 0 ? 0 : errno));
    EQ("listener with sync that tells", status, 0);
    CHILD(status, install(SYS_getppid, SECCOMP_RET_USER_NOTIF, 0); _exit(syscall(SYS_getppid) == -1 ? errno : 0));
    EQ("nobody listens", status, ENOSYS << 8);
    CHILD(status, {
        struct rlimit limit = {3, 3};
        setrlimit(RLIMIT_NOFILE, &limit);
        if (install(SYS_getppid, SECCOMP_RET_ERRNO | 5, LISTEN) != -1 || errno != EMFILE)
            _exit(1);
        _exit(syscall(SYS_getppid) == -1 ? 2 : 0);
    });
    EQ("no room for a listener", status, 0);
    CHILD(status, {
        int first = install(SYS_getppid, SECCOMP_RET_USER_NOTIF, LISTEN);
        if (first < 0 || fcntl(first, F_GETFD) != FD_CLOEXEC || (fcntl(first, F_GETFL) & O_ACCMODE) != O_RDWR)
            _exit(1);
        if (install(SYS_getpid, SECCOMP_RET_USER_NOTIF, LISTEN) != -1 || errno != EBUSY)
            _exit(2);
        close(first);
        if (syscall(SYS_getppid) != -1 || errno != ENOSYS)
            _exit(3);
        if (install(SYS_getpid, SECCOMP_RET_USER_NOTIF, LISTEN) != first)
            _exit(4);
    });
    EQ("one listener", status, 0);
    CHILD(status, {
        int listener = install(SYS_getppid, SECCOMP_RET_USER_NOTIF, LISTEN);
        char text[64] = "", name[32];
        snprintf(name, sizeof name, "/proc/self/fd/%d", listener);
        if (readlink(name, text, sizeof text - 1) < 0 || strcmp(text, "anon_inode:seccomp notify"))
            _exit(1);
        if (read(listener, text, 1) != -1 || errno != EINVAL)
            _exit(2);
        if (write(listener, text, 1) != -1 || errno != EINVAL)
            _exit(3);
        if (ioctl(listener, 0x2199, 0) != -1 || errno != EINVAL)
            _exit(4);
    });
    EQ("the file", status, 0);
}

static int answers(void) {
    int listener = install(SYS_getppid, SECCOMP_RET_USER_NOTIF, LISTEN);
    YES("listener", listener >= 0);
    EQ("nothing to do", ready(listener), 0);
    pid_t pid = caller(4711);
    UNTIL(ready(listener));
    EQ("something to receive", ready(listener), POLLIN);
    asked.pid = 1;
    ERR("not empty", ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &asked), EINVAL);
    ERR("nowhere", ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, NULL), EFAULT);
    OK("receive", receive(listener));
    EQ("who", asked.pid, pid);
    EQ("its flags", asked.flags, 0);
    EQ("number", asked.data.nr, SYS_getppid);
    EQ("architecture", asked.data.arch, 0xc000003e);
    YES("address", asked.data.instruction_pointer != 0);
    EQ("arguments", asked.data.args[0] * 10 + asked.data.args[5], 16);
    uint64_t id = asked.id, wrong = id + 1;
    EQ("something to answer", ready(listener), POLLOUT);
    OK("number of a call", ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &id));
    OK("the old request for it", ioctl(listener, 0x80082102, &id));
    ERR("of none", ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &wrong), ENOENT);
    ERR("from nowhere", ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, NULL), EFAULT);
    ERR("answer to nobody", respond(listener, wrong, 0, 0, 0), ENOENT);
    ERR("answer with strange flags", respond(listener, id, 0, 0, 2), EINVAL);
    ERR("to go on with a value", respond(listener, id, 1, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE), EINVAL);
    ERR("to go on with an error", respond(listener, id, 0, -1, SECCOMP_USER_NOTIF_FLAG_CONTINUE), EINVAL);
    ERR("answer from nowhere", ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, NULL), EFAULT);
    OK("answer", respond(listener, id, 4711, 0, 0));
    EQ("it came", ended(pid), 0);
    ERR("answer once more", respond(listener, id, 0, 0, 0), ENOENT);
    ERR("number of what is over", ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &id), ENOENT);
    pid = caller(0);
    OK("next", receive(listener));
    EQ("its number", asked.id, id + 1);
    OK("an error", respond(listener, asked.id, 0, -EXDEV, 0));
    EQ("it came, too", ended(pid), EXDEV << 8);
    pid = caller(7);
    OK("one more", receive(listener));
    OK("a positive error is a value", respond(listener, asked.id, 0, 7, 0));
    EQ("so it is", ended(pid), 0);
    pid = caller(getpid());
    OK("and one more", receive(listener));
    OK("go on", respond(listener, asked.id, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE));
    EQ("it went on", ended(pid), 0);
    /* Before it is received nothing can be said about it. */
    pid = caller(1);
    UNTIL(ready(listener) == POLLIN);
    uint64_t next = asked.id + 1;
    ERR("too early", respond(listener, next, 1, 0, 0), EINPROGRESS);
    ERR("not yet valid", ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &next), ENOENT);
    ERR("too early for a descriptor", add_descriptor(listener, next, 0, 0, 0, 0), EINPROGRESS);
    void *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ERR("to where nothing can be written", ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, page), EFAULT);
    EQ("it is still there", ready(listener), POLLIN);
    OK("and can be received", receive(listener));
    EQ("the same", asked.id, next);
    kill(pid, SIGKILL);
    EQ("killed", ended(pid), SIGKILL);
    ERR("too late", respond(listener, asked.id, 1, 0, 0), ENOENT);
    EQ("nothing more to do", ready(listener), 0);
    return listener;
}

static void signals(int listener) {
    pid_t pid = interrupted_caller(1, 0);
    OK("receive before a signal", receive(listener));
    kill(pid, SIGUSR1);
    EQ("EINTR", ended(pid), EINTR << 8);
    ERR("nobody waits", respond(listener, asked.id, 1, 0, 0), ENOENT);
    pid = interrupted_caller(1, SA_RESTART);
    OK("receive before one that restarts", receive(listener));
    uint64_t first = asked.id;
    kill(pid, SIGUSR1);
    UNTIL(ready(listener) == POLLIN);
    ERR("not this one", respond(listener, first, 1, 0, 0), ENOENT);
    OK("receive it anew", receive(listener));
    EQ("another number", asked.id, first + 1);
    OK("answer to it", respond(listener, asked.id, 1, 0, 0));
    EQ("came after all", ended(pid), 0);
    pid = interrupted_caller(1, 0);
    UNTIL(ready(listener) == POLLIN);
    UNTIL(state(pid) == 'S');
    kill(pid, SIGUSR1);
    EQ("before it is received", ended(pid), EINTR << 8);
    ERR("which leaves nothing behind", receive(listener), ENOENT);
    pid = caller(1);
    OK("receive one that ends", receive(listener));
    kill(pid, SIGKILL);
    EQ("ends", ended(pid), SIGKILL);
    ERR("with it the call", ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &asked.id), ENOENT);
}

static void *one_receives(void *listener) {
    return (void *)(long)(receive(*(int *)listener) == -1 ? errno : 0);
}

static void supervisor_signal(int listener) {
    struct sigaction action = {.sa_handler = handle}, old;
    sigaction(SIGUSR2, &action, &old);
    pthread_t thread;
    void *result;
    handled = 0;
    pthread_create(&thread, NULL, one_receives, &listener);
    for (int i = 0; i < 200 && !handled; i++) {
        nap(10);
        pthread_kill(thread, SIGUSR2);
    }
    pthread_join(thread, &result);
    EQ("a signal for the supervisor", (long)result, EINTR);
    sigaction(SIGUSR2, &old, NULL);
}

static void killable(void) {
    int status;
    CHILD(status, {
        int listener = install(SYS_getppid, SECCOMP_RET_USER_NOTIF, LISTEN | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV);
        if (listener < 0)
            _exit(1);
        pid_t pid = interrupted_caller(5, 0);
        if (receive(listener))
            _exit(2);
        kill(pid, SIGUSR1);
        UNTIL(state(pid) == 'D');
        if (state(pid) != 'D')
            _exit(3);
        if (respond(listener, asked.id, 5, 0, 0))
            _exit(4);
        if (ended(pid) != 0)
            _exit(5);
        pid = interrupted_caller(5, 0);
        UNTIL(ready(listener) == POLLIN);
        UNTIL(state(pid) == 'S');
        kill(pid, SIGUSR1);
        if (ended(pid) != EINTR << 8)
            _exit(6);
        if (receive(listener) != -1 || errno != ENOENT)
            _exit(7);
        pid = caller(5);
        if (receive(listener))
            _exit(8);
        kill(pid, SIGTERM);
        if (ended(pid) != SIGTERM)
            _exit(9);
    });
    EQ("what is received is killed only", status, 0);
}

static void descriptors(int listener) {
    int pair[2], status;
    if (pipe(pair))
        return;
    CHILD(status, {
        /* The child gets a descriptor as the result of its call, and writes into it. */
        pid_t pid = fork();
        if (pid == 0) {
            close(pair[1]);
            long fd = syscall(SYS_getppid);
            _exit(write(fd, "x", 1) == 1 && fcntl(fd, F_GETFD) == FD_CLOEXEC && fd == pair[1] && fcntl(77, F_GETFD) == 0 ? 0 : 1);
        }
        if (receive(listener))
            _exit(1);
        if (add_descriptor(listener, asked.id, 0, 999, 0, 0) != -1 || errno != EBADF)
            _exit(2);
        if (add_descriptor(listener, asked.id, 4, pair[1], 0, 0) != -1 || errno != EINVAL)
            _exit(3);
        if (add_descriptor(listener, asked.id, 0, pair[1], 5, 0) != -1 || errno != EINVAL)
            _exit(4);
        if (add_descriptor(listener, asked.id, 0, pair[1], 0, O_NONBLOCK) != -1 || errno != EINVAL)
            _exit(5);
        if (add_descriptor(listener, asked.id + 1, 0, pair[1], 0, 0) != -1 || errno != ENOENT)
            _exit(6);
        if (add_descriptor(listener, asked.id, SECCOMP_ADDFD_FLAG_SETFD, pair[1], 77, 0) != 77)
            _exit(7);
        if (add_descriptor(listener, asked.id, SECCOMP_ADDFD_FLAG_SETFD, pair[1], 1 << 30, 0) != -1 || errno != EBADF)
            _exit(8);
        if (add_descriptor(listener, asked.id, SECCOMP_ADDFD_FLAG_SEND, pair[1], 0, O_CLOEXEC) != pair[1])
            _exit(9);
        if (respond(listener, asked.id, 1, 0, 0) != -1 || (errno != EINPROGRESS && errno != ENOENT))
            _exit(10);
        if (ended(pid))
            _exit(11);
    });
    EQ("descriptors", status, 0);
    char byte = 0;
    EQ("were the supervisor's", read(pair[0], &byte, 1), 1);
    struct {
        struct seccomp_notif_addfd known;
        uint64_t more;
    } larger = {{~0ULL, 0, pair[1], 0, 0}, 0};
    int request = _IOC(_IOC_READ | _IOC_WRITE, SECCOMP_IOC_MAGIC, 3, sizeof larger);
    ERR("a larger structure", ioctl(listener, request, &larger), ENOENT);
    larger.more = 1;
    ERR("with something in it", ioctl(listener, request, &larger), E2BIG);
    ERR("a smaller one", ioctl(listener, _IOC(_IOC_WRITE, SECCOMP_IOC_MAGIC, 3, 16), &larger), EINVAL);
    ERR("a huge one", ioctl(listener, _IOC(_IOC_WRITE, SECCOMP_IOC_MAGIC, 3, 4096), &larger), EINVAL);
    ERR("none", ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, NULL), EFAULT);
    CHILD(status, {
        struct rlimit limit = {40, 40};
        pid_t pid = fork();
        if (pid == 0) {
            setrlimit(RLIMIT_NOFILE, &limit);
            while (dup(0) >= 0)
                ;
            _exit(syscall(SYS_getppid) == 3 ? 0 : 1);
        }
        if (receive(listener))
            _exit(1);
        if (add_descriptor(listener, asked.id, SECCOMP_ADDFD_FLAG_SEND, pair[1], 0, 0) != -1 || errno != EMFILE)
            _exit(2);
        if (respond(listener, asked.id, 3, 0, 0))
            _exit(3);
        if (ended(pid))
            _exit(4);
    });
    EQ("no room for a descriptor", status, 0);
    close(pair[0]);
    close(pair[1]);
}

static volatile int go;
static void *thread_calls(void *unused) {
    UNTIL(go);
    return (void *)syscall(SYS_getppid);
}

static void ends(void) {
    int status;
    CHILD(status, {
        /* The listener goes while a call waits. */
        int listener = install(SYS_getppid, SECCOMP_RET_USER_NOTIF, LISTEN);
        pid_t pid = fork();
        if (pid == 0) {
            close(listener);
            _exit(syscall(SYS_getppid) == -1 ? errno : 0);
        }
        if (receive(listener))
            _exit(2);
        close(listener);
        if (ended(pid) != ENOSYS << 8)
            _exit(3);
    });
    EQ("the supervisor goes", status, 0);
    int channel[2];
    if (pipe(channel))
        return;
    fflush(stdout);
    /* A filter that only the child has; its listener is taken from it. */
    pid_t pid = fork();
    if (pid == 0) {
        alarm(15);
        int listener = install(SYS_mount, SECCOMP_RET_USER_NOTIF, LISTEN);
        if (write(channel[1], &listener, sizeof listener) < 0)
            _exit(1);
        for (;;)
            pause();
    }
    int number = -1, listener = -1;
    if (read(channel[0], &number, sizeof number) > 0) {
        int pidfd = syscall(SYS_pidfd_open, pid, 0);
        listener = syscall(SYS_pidfd_getfd, pidfd, number, 0);
        close(pidfd);
    }
    YES("listener of another", listener >= 0);
    EQ("whose filter is in use", ready(listener), 0);
    kill(pid, SIGKILL);
    ended(pid);
    UNTIL(ready(listener));
    EQ("and then is not", ready(listener), POLLHUP);
    close(listener);
    CHILD(status, {
        pthread_t thread;
        void *result;
        pthread_create(&thread, NULL, thread_calls, NULL);
        int own = install(SYS_getppid, SECCOMP_RET_USER_NOTIF, LISTEN | SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH);
        if (own < 0)
            _exit(1);
        go = 1;
        if (receive(own) || asked.pid == (uint32_t)getpid())
            _exit(2);
        if (respond(own, asked.id, 12, 0, 0))
            _exit(3);
        pthread_join(thread, &result);
        _exit((long)result);
    });
    EQ("another thread asks", status, 12 << 8);
    CHILD(status, {
        /* The answer that is stricter counts; of equal ones the newest filter's. */
        int own = install(SYS_getppid, SECCOMP_RET_USER_NOTIF, LISTEN);
        install(SYS_getppid, SECCOMP_RET_USER_NOTIF, 0);
        if (syscall(SYS_getppid) != -1 || errno != ENOSYS)
            _exit(1);
        install(SYS_getppid, SECCOMP_RET_TRACE, 0);
        install(SYS_getppid, SECCOMP_RET_ERRNO | 9, 0);
        if (syscall(SYS_getppid) != -1 || errno != 9)
            _exit(2);
        if (ready(own) != 0)
            _exit(3);
    });
    EQ("precedence", status, 0);
}

int main(void) {
    alarm(30);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    flags();
    ends();
    killable();
    int listener = answers();
    signals(listener);
    supervisor_signal(listener);
    descriptors(listener);
    return 0;
}
