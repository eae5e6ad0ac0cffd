/* Things that hold each other, deep or in a ring: what walks or drops them must neither run out of stack nor keep them for ever. */
#include "case.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/inotify.h>
#include <sys/socket.h>

#define DEPTH 20000

static int send_descriptor(int over, int fd) {
    char control[CMSG_SPACE(4)] = "";
    struct iovec iov = {"x", 1};
    struct msghdr message = {0, 0, &iov, 1, control, sizeof control, 0};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *header = (struct cmsghdr){CMSG_LEN(4), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(header), &fd, 4);
    return sendmsg(over, &message, MSG_DONTWAIT) == 1 ? 0 : -1;
}

/* Each pair of sockets is under way over the next. */
static void sockets_in_sockets(int type) {
    int inner[2], outer[2], depth = 0;
    socketpair(AF_UNIX, type, 0, inner);
    for (; depth < DEPTH; depth++) {
        if (socketpair(AF_UNIX, type, 0, outer)) break;
        int failed = send_descriptor(outer[0], inner[0]) || send_descriptor(outer[0], inner[1]);
        close(inner[0]);
        close(inner[1]);
        memcpy(inner, outer, sizeof inner);
        if (failed) break;
    }
    close(inner[0]);
    close(inner[1]);
    puts("ok sockets within sockets");
}

/* A socket that is under way over itself, and rings of two: nobody can receive them any more. */
static void rings(void) {
    for (int i = 0; i < 20000; i++) {
        int a[2], b[2];
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, a)) {
            printf("FAIL ring %d: %s\n", i, strerror(errno));
            return;
        }
        socketpair(AF_UNIX, SOCK_STREAM, 0, b);
        write(a[0], "0123456789", 10);
        send_descriptor(a[0], b[1]);
        send_descriptor(b[0], a[1]);
        send_descriptor(a[1], a[1]);
        close(a[0]), close(a[1]), close(b[0]), close(b[1]);
    }
    puts("ok rings of sockets");
}

static void descriptors_of_descriptors(void) {
    int previous = epoll_create1(0), error = 0, depth = 0;
    for (; depth < 100; depth++) {
        int next = epoll_create1(0);
        struct epoll_event event = {EPOLLIN, {0}};
        if (epoll_ctl(next, EPOLL_CTL_ADD, previous, &event)) {
            error = errno;
            close(next);
            break;
        }
        previous = next;
    }
    YES("epolls within epolls end", depth < 100 && (error == ELOOP || error == EINVAL));
    int a = epoll_create1(0), b = epoll_create1(0);
    struct epoll_event event = {EPOLLIN, {0}};
    epoll_ctl(a, EPOLL_CTL_ADD, b, &event);
    ERR("nor form a ring", epoll_ctl(b, EPOLL_CTL_ADD, a, &event), ELOOP);
    int fds[2], pidfd = syscall(434, getpid(), 0);
    pipe(fds);
    for (int i = 3; i < 200; i++) close(i);
}

static void directories(void) {
    mkdir("/tmp/deep", 0777);
    chdir("/tmp/deep");
    int depth = 0;
    while (depth < DEPTH && mkdir("d", 0777) == 0 && chdir("d") == 0) depth++;
    char buffer[PATH_MAX];
    getcwd(buffer, sizeof buffer);
    struct stat found;
    stat("../../d/.", &found);
    DIR *directory = opendir(".");
    if (directory) closedir(directory);
    int moved = open("/tmp/deep", O_RDONLY | O_DIRECTORY);
    chdir("/");
    ERR("a directory does not move below itself", rename("/tmp/deep", "/tmp/deep/d/d/d/x"), EINVAL);
    fchdir(moved);
    /* All of it loses its last name at once, and is dropped. */
    for (int i = 0; i < depth; i++) {
        if (chdir("d")) break;
        rename("d", "/tmp/next");
        chdir("/tmp");
        rmdir("/tmp/deep");
        rename("/tmp/next", "/tmp/deep");
        chdir("/tmp/deep");
        if (i > 200) break;
    }
    chdir("/");
    close(moved);
    printf("ok directories\n");
}

static void mounts_and_links(void) {
    mkdir("/tmp/m", 0777);
    for (int i = 0; i < 3000; i++)
        if (mount("none", "/tmp/m", "tmpfs", 0, 0)) break;
    struct stat found;
    stat("/tmp/m/..", &found);
    for (int i = 0; i < 3000; i++)
        if (umount2("/tmp/m", MNT_DETACH)) break;
    char name[40], target[40];
    for (int i = 0; i < 60; i++) {
        snprintf(name, sizeof name, "/tmp/link%d", i);
        snprintf(target, sizeof target, "/tmp/link%d", i + 1);
        symlink(target, name);
    }
    ERR("a chain of links ends", open("/tmp/link0", O_RDONLY), ELOOP);
    put("/tmp/script", "#!/tmp/script\n");
    chmod("/tmp/script", 0755);
    char *none[] = {0};
    ERR("a script that is its own interpreter", execv("/tmp/script", none), ELOOP);
    puts("ok mounts and links");
}

/* Processes that are each other's parents, and a robust list that never ends. */
static void processes(void) {
    int status;
    CHILD(status, {
        alarm(20);
        for (int depth = 0; depth < 150; depth++) {
            pid_t pid = fork();
            if (pid != 0) {
                if (pid > 0) waitpid(pid, 0, 0);
                _exit(0);
            }
        }
    });
    EQ("processes within processes", status, 0);
    CHILD(status, {
        static struct { void *next; long offset; void *pending; } list;
        list.next = &list.pending, list.pending = &list.pending;
        *(void **)&list.pending = &list.pending;
        syscall(SYS_set_robust_list, &list, 24);
        *(void **)list.pending = list.pending;
    });
    EQ("a robust list without an end", status, 0);
    CHILD(status, {
        struct sock_filter code[] = {{6, 0, 0, 0x7fff0000}};
        struct sock_fprog program = {1, code};
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        int count = 0;
        while (count < 20000 && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0) count++;
        printf(count < 20000 ? "ok filters end\n" : "FAIL filters without end\n");
        fflush(stdout);
    });
}

int main(void) {
    setvbuf(stdout, 0, _IOLBF, 0);
    sockets_in_sockets(SOCK_STREAM);
    sockets_in_sockets(SOCK_DGRAM);
    rings();
    descriptors_of_descriptors();
    directories();
    mounts_and_links();
    processes();
    puts("done");
    return 0;
}
