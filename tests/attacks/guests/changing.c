/* Arguments in shared memory that another thread changes while the kernel looks at them. Usage: changing MILLISECONDS for each. */
#include "case.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/socket.h>

static volatile int stop;
static volatile uint64_t *word;
static uint64_t one, two;
static int milliseconds;

static void *flip(void *unused) {
    while (!stop) {
        *word = one;
        *word = two;
    }
    return unused;
}

/* Runs `call` again and again while a word flips between two values; each call is to fail or do one of two things. */
#define WHILE_FLIPPING(place, first, second, call)              \
    do {                                                        \
        pthread_t thread_;                                      \
        word = (volatile uint64_t *)(place);                    \
        one = (uint64_t)(first), two = (uint64_t)(second);      \
        stop = 0;                                               \
        pthread_create(&thread_, 0, flip, 0);                   \
        for (long long end_ = now_ms() + milliseconds; now_ms() < end_;) \
            for (int i_ = 0; i_ < 20; i_++) { call; }           \
        stop = 1;                                               \
        pthread_join(thread_, 0);                               \
    } while (0)

/* A path that is allowed and one that is not, of which the last eight bytes differ. */
static void paths(void) {
    char path[64] __attribute__((aligned(8))) = "/tmp/dir/own-file";
    mkdir("/tmp/dir", 0777);
    put("/tmp/dir/own-file", "own");
    put("/tmp/dir/forbidde", "secret");
    chmod("/tmp/dir/forbidde", 0600);
    int status, seen;
    CHILD(status, {
        setgid(1000);
        setuid(1000);
        seen = 0;
        uint64_t own, other;
        memcpy(&own, "own-file", 8);
        memcpy(&other, "forbidde", 8);
        /* "/tmp/dir/" has nine bytes: the name starts at the second word's second byte, so it is moved to a word of its own. */
        memcpy(path, "/tmp///////dir//", 16);
        WHILE_FLIPPING(path + 16, own, other, {
            int fd = open(path, O_RDONLY);
            char text[8] = "";
            if (fd >= 0) {
                read(fd, text, 7);
                if (strcmp(text, "own")) seen = 1;
                close(fd);
            }
        });
        _exit(seen);
    });
    EQ("a path is read once", status, 0);
}

static void vectors(void) {
    int fd = open("/tmp/vector", O_RDWR | O_CREAT | O_TRUNC, 0600), fds[2];
    char buffer[64] = "x";
    struct iovec iov[2] = {{buffer, 8}, {buffer, 8}};
    WHILE_FLIPPING(&iov[0].iov_len, 8, 1UL << 63, { pwritev(fd, iov, 2, 0); preadv(fd, iov, 2, 0); });
    WHILE_FLIPPING(&iov[1].iov_base, (uint64_t)buffer, 0xffff800000000000, { pwritev(fd, iov, 2, 0); preadv(fd, iov, 2, 0); });
    struct stat found;
    fstat(fd, &found);
    YES("lengths of a vector are read once", found.st_size <= 16);
    socketpair(AF_UNIX, SOCK_DGRAM, 0, fds);
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    fcntl(fds[1], F_SETFL, O_NONBLOCK);
    char control[64] __attribute__((aligned(8))) = "";
    struct msghdr message = {0, 0, iov, 1, control, CMSG_SPACE(4), 0};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *header = (struct cmsghdr){CMSG_LEN(4), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(header), &fd, 4);
    iov[0] = (struct iovec){buffer, 8};
    char drain[64];
    WHILE_FLIPPING(&header->cmsg_len, CMSG_LEN(4), 1UL << 40, { sendmsg(fds[0], &message, 0); recv(fds[1], drain, 64, 0); });
    header->cmsg_len = CMSG_LEN(4);
    WHILE_FLIPPING(&message.msg_controllen, CMSG_SPACE(4), -1UL, { sendmsg(fds[0], &message, 0); recv(fds[1], drain, 64, 0); });
    WHILE_FLIPPING(&message.msg_iovlen, 1, 1UL << 40, { sendmsg(fds[0], &message, 0); recv(fds[1], drain, 64, 0); });
    int highest = open("/dev/null", O_RDONLY);
    YES("control messages leave no descriptors behind", highest < 20);
    puts("ok vectors");
}

static void programs(void) {
    char *arguments[4] = {"/bin/true", "x", 0, 0};
    int status;
    WHILE_FLIPPING(&arguments[1], (uint64_t)"x", 0xffff800000000000, {
        if (vfork() == 0) {
            execv("/bin/true", arguments);
            _exit(1);
        }
        waitpid(-1, &status, 0);
        i_ += 9;
    });
    struct sock_filter code[4] = {{6, 0, 0, 0x7fff0000}, {6, 0, 0, 0x7fff0000}, {6, 0, 0, 0x7fff0000}, {6, 0, 0, 0x7fff0000}};
    struct sock_fprog program = {1, code};
    CHILD(status, {
        alarm(10);
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        int count = 0;
        WHILE_FLIPPING(&program, 1, 65535, { if (count++ < 500) syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program); });
        WHILE_FLIPPING(code, *(uint64_t *)code, 0x7fff0000ffff0005, { if (count++ < 900) syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program); });
    });
    EQ("a filter is read once", WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM, 0);
    struct { uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup; } clone_arguments = {0};
    clone_arguments.exit_signal = SIGCHLD;
    WHILE_FLIPPING(&clone_arguments.flags, 0, 0x7e020000, {
        long pid = syscall(435, &clone_arguments, sizeof clone_arguments);
        if (pid == 0) _exit(0);
        if (pid > 0) waitpid(pid, 0, __WALL);
        i_ += 4;
    });
    puts("ok programs");
}

static void waits(void) {
    struct pollfd polled[2] = {{0, 1, 0}, {1, 4, 0}};
    WHILE_FLIPPING(polled, 0x0000000100000000, 0x7fff00017fffffff, poll(polled, 2, 0));
    struct timespec timeout = {0, 1000};
    WHILE_FLIPPING(&timeout.tv_nsec, 1000, -1UL, { nanosleep(&timeout, 0); i_ += 3; });
    WHILE_FLIPPING(&timeout.tv_sec, 0, -1UL, ppoll(polled, 2, &timeout, 0));
    uint64_t set[16] = {0};
    WHILE_FLIPPING(set, 0, -1UL, select(64, (fd_set *)set, 0, 0, &(struct timeval){0, 0}));
    uint32_t futex[2] __attribute__((aligned(8))) = {0};
    WHILE_FLIPPING(futex, 0, 0xffffffffffffffff, { syscall(SYS_futex, futex, 0, 0, &(struct timespec){0, 1000}); syscall(SYS_futex, futex, 13, 0, 0); syscall(SYS_futex, futex, 7); });
    struct epoll_event event = {EPOLLIN, {0}};
    int epoll = epoll_create1(0), fd = eventfd(0, 0);
    WHILE_FLIPPING(&event, 1, -1UL, { epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event); epoll_ctl(epoll, EPOLL_CTL_DEL, fd, &event); });
    puts("ok waits");
}

int main(int argc, char **argv) {
    milliseconds = atoi(argv[1]);
    paths();
    vectors();
    programs();
    waits();
    puts("done");
    return 0;
}
