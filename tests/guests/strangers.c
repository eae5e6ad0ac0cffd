/* Users and groups as they show across user namespaces: in signals, waits, messages, peers, IPC objects, priorities and procfs. */
#include "case.h"
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>

static char buffer[1 << 14];

static volatile struct {
    int step;
    int object[3];
} *shared;

static void put_file(const char *name, const char *text) {
    int fd = open(name, O_WRONLY);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        printf("FAIL write %s\n", name);
    close(fd);
}

/* Four numbers of a line of a process's status. */
static int status_number(pid_t pid, const char *label, int index) {
    char name[64];
    int numbers[4] = {-1, -1, -1, -1};
    sprintf(name, "/proc/%d/status", pid);
    int fd = open(name, O_RDONLY);
    long count = read(fd, buffer, sizeof buffer - 1);
    close(fd);
    buffer[count < 0 ? 0 : count] = 0;
    const char *at = strstr(buffer, label);
    if (at)
        sscanf(at + strlen(label), "%d %d %d %d", numbers, numbers + 1, numbers + 2, numbers + 3);
    return numbers[index];
}

static struct ucred receive(int fd) {
    char byte, room[128];
    struct ucred who = {-1, -1, -1};
    struct iovec piece = {&byte, 1};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    if (recvmsg(fd, &message, 0) >= 0 && CMSG_FIRSTHDR(&message))
        memcpy(&who, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof who);
    return who;
}

static int claim(int fd, unsigned uid, unsigned gid) {
    char room[CMSG_SPACE(sizeof(struct ucred))] = "";
    struct iovec piece = {"x", 1};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    struct cmsghdr *control = CMSG_FIRSTHDR(&message);
    *control = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(struct ucred)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_CREDENTIALS};
    struct ucred who = {getpid(), uid, gid};
    memcpy(CMSG_DATA(control), &who, sizeof who);
    return sendmsg(fd, &message, 0) < 0 ? errno : 0;
}

static struct ucred peer(int fd) {
    struct ucred who = {-1, -1, -1};
    socklen_t size = sizeof who;
    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size);
    return who;
}

static int pair[2], pipes[2];

/* Runs in a namespace where 0 to 9 are 1000 to 1009 outside. */
static void inside(void) {
    sigset_t set;
    siginfo_t info;
    struct timespec patience = {20, 0};
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGRTMIN);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    shared->step = 1;
    EQ("a signal of a stranger", sigtimedwait(&set, &info, &patience), SIGUSR1);
    EQ("is nobody's", info.si_uid, 65534);
    shared->step = 2;
    EQ("a word of a stranger", sigtimedwait(&set, &info, &patience), SIGRTMIN);
    EQ("is nobody's, too", info.si_uid, 65534);
    kill(getpid(), SIGUSR1);
    sigtimedwait(&set, &info, &patience);
    EQ("one's own signal", info.si_uid, 0);
    pid_t child = fork();
    if (!child) {
        setgid(3);
        setuid(3);
        _exit(0);
    }
    EQ("a child's end", sigtimedwait(&set, &info, &patience), SIGCHLD);
    EQ("names its user", info.si_uid, 3);
    OK("waitid", waitid(P_PID, child, &info, WEXITED));
    EQ("names it, too", info.si_uid, 3);
    /* Messages. */
    EQ("a message of a stranger", receive(pair[1]).uid, 65534);
    EQ("own numbers", claim(pair[1], 0, 0), 0);
    EQ("another's number", claim(pair[1], 4, 5), 0);
    EQ("a number that is none inside", claim(pair[1], 1000, 0), EINVAL);
    EQ("a group that is none inside", claim(pair[1], 0, 1000), EINVAL);
    struct ucred who = peer(pair[1]);
    EQ("the peer is a stranger", who.uid, 65534);
    EQ("and its group", who.gid, 65534);
    int own[2];
    int on = 1;
    socketpair(AF_UNIX, SOCK_STREAM, 0, own);
    EQ("a peer inside", peer(own[0]).uid, 0);
    setsockopt(own[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
    EQ("claim inside", claim(own[0], 4, 5), 0);
    who = receive(own[1]);
    EQ("user", who.uid, 4);
    EQ("group", who.gid, 5);
    /* IPC. */
    struct msqid_ds queue;
    struct semid_ds set_of;
    struct shmid_ds segment;
    union {
        struct semid_ds *buf;
    } room = {&set_of};
    shared->object[0] = msgget(IPC_PRIVATE, 0600);
    shared->object[1] = semget(IPC_PRIVATE, 1, 0600);
    shared->object[2] = shmget(IPC_PRIVATE, 4096, 0600);
    OK("queue", msgctl(shared->object[0], IPC_STAT, &queue));
    EQ("queue's owner", queue.msg_perm.uid, 0);
    EQ("queue's maker", queue.msg_perm.cgid, 0);
    OK("semaphores", semctl(shared->object[1], 0, IPC_STAT, room));
    EQ("semaphores' owner", set_of.sem_perm.uid, 0);
    OK("segment", shmctl(shared->object[2], IPC_STAT, &segment));
    EQ("segment's owner", segment.shm_perm.uid, 0);
    queue.msg_perm.uid = 4;
    queue.msg_perm.gid = 5;
    OK("give away", msgctl(shared->object[0], IPC_SET, &queue));
    queue.msg_perm.uid = 1000;
    ERR("give to none", msgctl(shared->object[0], IPC_SET, &queue), EINVAL);
    msgctl(shared->object[0], IPC_STAT, &queue);
    EQ("owner now", queue.msg_perm.uid, 4);
    EQ("group now", queue.msg_perm.gid, 5);
    /* Priorities. */
    OK("priority of oneself", (errno = 0, getpriority(PRIO_USER, 0) == -1 && errno ? -1 : 0));
    ERR("priority of nobody", getpriority(PRIO_USER, 7), ESRCH);
    ERR("priority of none inside", getpriority(PRIO_USER, 1000), ESRCH);
    /* procfs. */
    EQ("own status", status_number(getpid(), "\nUid:\t", 0), 0);
    EQ("a stranger's status", status_number(getppid(), "\nUid:\t", 0), 65534);
    EQ("a stranger's group", status_number(getppid(), "\nGid:\t", 1), 65534);
    struct stat st;
    sprintf(buffer, "/proc/%d", getppid());
    stat(buffer, &st);
    EQ("a stranger's directory", st.st_uid, 65534);
    shared->step = 3;
    UNTIL(shared->step == 4);
    setgid(2);
    setuid(2);
    _exit(9);
}

int main(void) {
    alarm(60);
    setvbuf(stdout, NULL, _IOLBF, 0);
    shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int on = 1;
    socketpair(AF_UNIX, SOCK_DGRAM, 0, pair);
    setsockopt(pair[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
    setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
    write(pair[0], "x", 1);
    pipe(pipes);
    pid_t child = fork();
    if (!child) {
        char byte;
        unshare(CLONE_NEWUSER);
        close(pipes[1]);
        shared->step = -1;
        read(pipes[0], &byte, 1);
        setgid(0);
        setuid(0);
        inside();
    }
    UNTIL(shared->step == -1);
    sprintf(buffer, "/proc/%d/uid_map", child);
    put_file(buffer, "0 1000 10");
    sprintf(buffer, "/proc/%d/gid_map", child);
    put_file(buffer, "0 1000 10");
    close(pipes[0]);
    close(pipes[1]);
    UNTIL(shared->step == 1);
    kill(child, SIGUSR1);
    UNTIL(shared->step == 2);
    union sigval value = {.sival_int = 1};
    sigqueue(child, SIGRTMIN, value);
    UNTIL(shared->step == 3);
    struct ucred who = receive(pair[0]);
    EQ("from inside", who.uid, 1000);
    EQ("whose group", who.gid, 1000);
    who = receive(pair[0]);
    EQ("claimed inside", who.uid, 1004);
    EQ("claimed group", who.gid, 1005);
    EQ("status from outside", status_number(child, "\nUid:\t", 0), 1000);
    EQ("group from outside", status_number(child, "\nGid:\t", 2), 1000);
    struct msqid_ds queue;
    struct shmid_ds segment;
    msgctl(shared->object[0], IPC_STAT, &queue);
    EQ("owner from outside", queue.msg_perm.uid, 1004);
    EQ("maker from outside", queue.msg_perm.cuid, 1000);
    shmctl(shared->object[2], IPC_STAT, &segment);
    EQ("segment from outside", segment.shm_perm.uid, 1000);
    OK("priority by user", (errno = 0, getpriority(PRIO_USER, 1000) == -1 && errno ? -1 : 0));
    shared->step = 4;
    siginfo_t info;
    waitid(P_PID, child, &info, WEXITED);
    EQ("its end", info.si_uid, 1002);
    EQ("its status", info.si_status, 9);
    msgctl(shared->object[0], IPC_RMID, NULL);
    semctl(shared->object[1], 0, IPC_RMID);
    shmctl(shared->object[2], IPC_RMID, NULL);
    return 0;
}
