/* Makes the system calls that it is told, inside: programs come on standard input, and a byte goes to standard output after each. A program runs in
 * a child that is killed when its time is up, with everything that it left behind. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SCRATCH 0x20000000UL
#define SCRATCH_SIZE 0x20000UL
#define DATA 0x8000
#define MOST_OPERATIONS 64
#define THREADS 3
#define PATIENCE_MS 250

/* As `Operation` in the generator. */
struct argument {
    uint64_t kind, value;
};
struct operation {
    uint16_t number, thread;
    uint32_t unused;
    struct argument arguments[6];
};
struct program {
    uint32_t count, data_length, as_user, unused;
    struct operation operations[MOST_OPERATIONS];
    uint8_t data[2048];
};
enum { CONSTANT, RESULT, MEMORY, OWN_PID, SLOT, PATH };
#define POKE 0xffff

static struct program program;
static volatile long results[MOST_OPERATIONS];

static const char *paths[] = {"a", "b", "a/b", "a/../b", ".", "..", "/", "", "/proc/self/fd/3", "/proc/self/mem", "/dev/null", "/dev/zero", "/dev/ptmx",
                              "/proc/self/maps", "/proc/thread-self/status", "link", "link/a", "/proc/self/exe", "/dev/shm/s", "/proc/mounts",
                              "/proc/self/root/tmp/w/a", "sock", "/sys/kernel", "/dev/fd/4", "/proc/self/ns/mnt", "a/", "//a//b//", "/proc/1/stat",
                              "/proc/sys/kernel/hostname", "/dev/tty", "/proc/self/cwd/b", "./b/./c"};

static uint64_t value_of(const struct argument *argument) {
    uint64_t slot;
    switch (argument->kind) {
    case RESULT: return results[argument->value % MOST_OPERATIONS];
    case MEMORY: return SCRATCH + argument->value % SCRATCH_SIZE;
    case OWN_PID: return getpid() + argument->value;
    case SLOT: asm volatile("rdgsbase %0" : "=r"(slot)); return slot + argument->value % 0x8000;
    case PATH: return (uint64_t)paths[argument->value % (sizeof paths / sizeof *paths)];
    default: return argument->value;
    }
}

static void *run_thread(void *given) {
    for (uint32_t i = 0; i < program.count; i++) {
        struct operation *operation = &program.operations[i];
        if (operation->thread % THREADS != (uintptr_t)given) continue;
        uint64_t a[6];
        for (int j = 0; j < 6; j++) a[j] = value_of(&operation->arguments[j]);
        if (operation->number == POKE)
            *(volatile uint64_t *)(operation->arguments[0].kind == SLOT ? a[0] : SCRATCH + a[0] % (SCRATCH_SIZE - 8)) = a[1];
        else
            results[i] = syscall(operation->number, a[0], a[1], a[2], a[3], a[4], a[5]);
    }
    return 0;
}

#define PUT(offset, ...) memcpy((char *)SCRATCH + (offset), &__VA_ARGS__, sizeof __VA_ARGS__)

/* Structures that calls take, at places that the generator knows, each 256 bytes. */
static void prepare(void) {
    char *at = mmap((void *)SCRATCH, SCRATCH_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    for (int i = 0; i < 4; i++) PUT(0x000 + i * 16, (struct iovec){at + DATA + i * 64, 48});
    PUT(0x100, (struct msghdr){at + 0x300, 0, at, 2, at + 0x200, 24, 0});
    PUT(0x200, (struct cmsghdr){20, SOL_SOCKET, SCM_RIGHTS});
    PUT(0x210, (int[1]){3});
    PUT(0x300, (struct sockaddr_un){AF_UNIX, "sock"});
    PUT(0x400, (struct sockaddr_in){AF_INET, 0x8913, {0x0100007f}});
    PUT(0x500, (struct sockaddr_in6){AF_INET6, 0x8913, 0, {{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}}}, 0});
    PUT(0x600, (struct timespec){0, 1000000});
    PUT(0x700, (struct itimerspec){{0, 1000000}, {0, 1000000}});
    PUT(0x800, (struct epoll_event){EPOLLIN | EPOLLOUT | EPOLLET, {0}});
    PUT(0x900, (struct pollfd){3, POLLIN | POLLOUT, 0});
    PUT(0xa00, (uint64_t[4]){0, 0x04000000, 0, 0}); /* SIG_DFL, SA_RESTORER */
    PUT(0xb00, (uint64_t[1]){0x200});                   /* a set of signals */
    PUT(0xc00, (uint64_t[11]){0, 0, 0, 0, SIGCHLD, 0, 0, 0, 0, 0, 0});
    PUT(0xd00, (uint64_t[2]){64, 64});
    PUT(0xe00, (uint64_t[3]){SCRATCH + 0x10000, 0, 0x8000});
    PUT(0xf00, (struct nlmsghdr){36, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 1, 0});
    memcpy(at + DATA, program.data, program.data_length < sizeof program.data ? program.data_length : sizeof program.data);
}

static void child(void) {
    mkdir("/tmp/w", 0777);
    mount("none", "/tmp/w", "tmpfs", 0, 0);
    chdir("/tmp/w");
    chmod(".", 0777);
    mkdir("a", 0777);
    symlink("a", "link");
    close(open("b", O_CREAT | O_RDWR, 0666));
    prepare();
    for (int fd = 0; fd < 3; fd++) dup2(open("/dev/null", O_RDWR), fd);
    syscall(SYS_close_range, 3, ~0U, 0);
    if (program.as_user) setgid(1000), setuid(1000);
    alarm(2);
    pthread_t threads[THREADS];
    for (uintptr_t i = 1; i < THREADS; i++) pthread_create(&threads[i], 0, run_thread, (void *)i);
    run_thread(0);
    for (int i = 1; i < THREADS; i++) pthread_join(threads[i], 0);
    _exit(0);
}

/* Removes what outlives processes. */
static void clean(void) {
    struct shmid_ds shm;
    struct msqid_ds msg;
    struct semid_ds sem;
    for (int i = 0; i < 16; i++) {
        int id = shmctl(i, 13, &shm);
        if (id >= 0) shmctl(id, IPC_RMID, 0);
        if ((id = msgctl(i, 11, &msg)) >= 0) msgctl(id, IPC_RMID, 0);
        if ((id = semctl(i, 0, 18, &sem)) >= 0) semctl(id, 0, IPC_RMID);
    }
    for (unsigned i = 0; i < sizeof paths / sizeof *paths; i++) syscall(SYS_mq_unlink, paths[i]);
    unlink("/dev/shm/s");
    while (umount2("/tmp/w", MNT_DETACH) == 0);
}

static int read_all(void *to, size_t length) {
    for (size_t done = 0; done < length;) {
        ssize_t count = read(0, (char *)to + done, length - done);
        if (count <= 0) return 0;
        done += count;
    }
    return 1;
}

int main(void) {
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    signal(SIGHUP, SIG_IGN);
    while (read_all(&program, sizeof program)) {
        if (program.count > MOST_OPERATIONS) program.count = MOST_OPERATIONS;
        pid_t pid = fork();
        if (pid == 0) child();
        for (int i = 0; i < PATIENCE_MS && pid > 0; i++) {
            if (waitpid(pid, 0, WNOHANG) != 0) break;
            usleep(i < 20 ? 100 : 1000);
        }
        do kill(-1, SIGKILL);
        while (waitpid(-1, 0, __WALL) > 0);
        clean();
        if (write(1, "", 1) != 1) return 1;
    }
    return 0;
}
