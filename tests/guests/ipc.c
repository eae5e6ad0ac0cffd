/* System V shared memory, semaphores and message queues; POSIX message queues. */
#include "case.h"
#include "pages.h"
#include <mqueue.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

static void segments(void) {
    int id = shmget(IPC_PRIVATE, 3 * PAGE, IPC_CREAT | 0600);
    YES("shmget", id >= 0);
    struct shmid_ds state;
    OK("stat", shmctl(id, IPC_STAT, &state));
    EQ("size", state.shm_segsz, 3 * PAGE);
    EQ("attached", state.shm_nattch, 0);
    EQ("mode", state.shm_perm.mode & 0777, 0600);
    EQ("creator", state.shm_cpid, getpid());
    char *at = shmat(id, NULL, 0);
    YES("shmat", at != (void *)-1);
    at[10] = 4;
    char *again = shmat(id, NULL, SHM_RDONLY);
    EQ("second view", again[10], 4);
    EQ("read-only view", touch(again, 1), SIGSEGV);
    shmctl(id, IPC_STAT, &state);
    EQ("two attached", state.shm_nattch, 2);
    int status;
    CHILD(status, at[11] = 6);
    EQ("shared with child", at[11], 6);
    shmctl(id, IPC_STAT, &state);
    EQ("child detached", state.shm_nattch, 2);
    OK("detach", shmdt(again));
    ERR("detach again", shmdt(again), EINVAL);
    OK("remove", shmctl(id, IPC_RMID, NULL));
    EQ("stays while attached", at[10], 4);
    OK("attach removed", ({char *p = shmat(id, NULL, 0); shmdt(p); (long)p; }));
    shmdt(at);
    ERR("gone", shmctl(id, IPC_STAT, &state), EINVAL);
    ERR("attach gone", (long)shmat(id, NULL, 0), EINVAL);
    key_t key = 0x5ca1ab1e;
    ERR("missing key", shmget(key, PAGE, 0), ENOENT);
    ERR("no size", shmget(key, 0, IPC_CREAT | 0600), EINVAL);
    id = shmget(key, PAGE, IPC_CREAT | IPC_EXCL | 0600);
    YES("by key", id >= 0);
    EQ("same key", shmget(key, PAGE, 0), id);
    ERR("exclusive", shmget(key, PAGE, IPC_CREAT | IPC_EXCL | 0600), EEXIST);
    ERR("larger", shmget(key, 2 * PAGE, 0), EINVAL);
    ERR("odd address", (long)shmat(id, (void *)0x10001, 0), EINVAL);
    char *room = map(1, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ERR("taken address", (long)shmat(id, room, 0), EINVAL);
    YES("remap", shmat(id, room, SHM_REMAP) == room);
    YES("rounded", shmat(id, room + 5 - 5, SHM_REMAP | SHM_RND) == room);
    shmdt(room);
    ERR("strange command", shmctl(id, 99, NULL), EINVAL);
    ERR("bad pointer", shmctl(id, IPC_STAT, (void *)8), EFAULT);
    state.shm_perm.mode = 0400;
    state.shm_perm.uid = getuid();
    state.shm_perm.gid = getgid();
    OK("set", shmctl(id, IPC_SET, &state));
    shmctl(id, IPC_STAT, &state);
    EQ("mode set", state.shm_perm.mode & 0777, 0400);
    struct shminfo info;
    YES("info", shmctl(0, IPC_INFO, (void *)&info) >= 0 && info.shmmin == 1);
    OK("remove at once", shmctl(id, IPC_RMID, NULL));
    ERR("key is free", shmget(key, PAGE, 0), ENOENT);
}

union semun { int val; struct semid_ds *buf; unsigned short *array; };

static int op(int id, int number, int change, int flags) {
    struct sembuf operation = {number, change, flags};
    return semop(id, &operation, 1);
}

static void semaphores(void) {
    union semun arg;
    struct semid_ds state;
    int status;
    ERR("semget none", semget(0x5ca1ab1f, 1, 0), ENOENT);
    ERR("semget no count", semget(IPC_PRIVATE, 0, 0600), EINVAL);
    ERR("semget many", semget(IPC_PRIVATE, 40000, 0600), EINVAL);
    int id = semget(IPC_PRIVATE, 3, 0600);
    YES("semget", id >= 0);
    arg.buf = &state;
    OK("stat", semctl(id, 0, IPC_STAT, arg));
    EQ("count", state.sem_nsems, 3);
    EQ("new value", semctl(id, 1, GETVAL), 0);
    ERR("value of none", semctl(id, 3, GETVAL), EINVAL);
    arg.val = 5;
    OK("set value", semctl(id, 0, SETVAL, arg));
    EQ("value", semctl(id, 0, GETVAL), 5);
    EQ("who", semctl(id, 0, GETPID), getpid());
    arg.val = 40000;
    ERR("too large", semctl(id, 0, SETVAL, arg), ERANGE);
    unsigned short values[3] = {1, 2, 3};
    arg.array = values;
    OK("set all", semctl(id, 0, SETALL, arg));
    memset(values, 0, sizeof values);
    semctl(id, 0, GETALL, arg);
    EQ("get all", values[0] * 100 + values[1] * 10 + values[2], 123);
    OK("take", op(id, 1, -2, 0));
    ERR("take more", op(id, 1, -1, IPC_NOWAIT), EAGAIN);
    OK("is zero", op(id, 1, 0, IPC_NOWAIT));
    ERR("is not zero", op(id, 0, 0, IPC_NOWAIT), EAGAIN);
    ERR("no such", op(id, 3, 1, 0), EFBIG);
    ERR("overflow", op(id, 0, 32767, 0), ERANGE);
    ERR("none at all", semop(id, NULL, 0), EINVAL);
    struct sembuf both[2] = {{0, -1, IPC_NOWAIT}, {1, -1, IPC_NOWAIT}};
    ERR("all or nothing", semop(id, both, 2), EAGAIN);
    EQ("nothing", semctl(id, 0, GETVAL), 1);
    struct timespec soon = {0, 30000000};
    struct sembuf one = {1, -1, 0};
    ERR("timed", semtimedop(id, &one, 1, &soon), EAGAIN);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0)
        _exit(op(id, 1, -1, 0) ? errno : 0);
    UNTIL(semctl(id, 1, GETNCNT) == 1);
    EQ("waiters", semctl(id, 1, GETNCNT), 1);
    OK("give", op(id, 1, 1, 0));
    waitpid(child, &status, 0);
    EQ("taken by the waiter", status, 0);
    EQ("no waiters", semctl(id, 1, GETNCNT), 0);
    fflush(stdout);
    child = fork();
    if (child == 0)
        _exit(op(id, 0, 0, 0) ? errno : 0);
    UNTIL(semctl(id, 0, GETZCNT) == 1);
    EQ("waiters for zero", semctl(id, 0, GETZCNT), 1);
    op(id, 0, -1, 0);
    waitpid(child, &status, 0);
    EQ("became zero", status, 0);
    arg.val = 4;
    semctl(id, 2, SETVAL, arg);
    CHILD(status, op(id, 2, -3, SEM_UNDO));
    EQ("undone", semctl(id, 2, GETVAL), 4);
    fflush(stdout);
    child = fork();
    if (child == 0)
        _exit(op(id, 1, -1, 0) ? errno : 0);
    UNTIL(semctl(id, 1, GETNCNT) == 1);
    OK("remove", semctl(id, 0, IPC_RMID));
    waitpid(child, &status, 0);
    EQ("waiter hears of it", status, EIDRM << 8);
    ERR("gone", op(id, 0, 1, 0), EINVAL);
}

struct message { long type; char text[64]; };

static void messages(void) {
    struct message m = {1, "one"}, got;
    struct msqid_ds state;
    int status;
    int id = msgget(IPC_PRIVATE, 0600);
    YES("msgget", id >= 0);
    ERR("msgget none", msgget(0x5ca1ab20, 0), ENOENT);
    ERR("type zero", ({m.type = 0; msgsnd(id, &m, 4, 0); }), EINVAL);
    m.type = 1;
    ERR("too long", msgsnd(id, &m, 9000, 0), EINVAL);
    OK("send", msgsnd(id, &m, 4, 0));
    m.type = 3;
    strcpy(m.text, "three");
    msgsnd(id, &m, 6, 0);
    m.type = 2;
    strcpy(m.text, "two");
    msgsnd(id, &m, 4, 0);
    msgctl(id, IPC_STAT, &state);
    EQ("count", state.msg_qnum, 3);
    EQ("bytes", state.__msg_cbytes, 14);
    EQ("capacity", state.msg_qbytes, 16384);
    EQ("sender", state.msg_lspid, getpid());
    EQ("by type", msgrcv(id, &got, 64, 2, 0), 4);
    EQ("its type", got.type, 2);
    ERR("no such type", msgrcv(id, &got, 64, 7, IPC_NOWAIT), ENOMSG);
    EQ("lowest", ({msgrcv(id, &got, 64, -3, 0); got.type; }), 1);
    ERR("no room", msgrcv(id, &got, 2, 0, 0), E2BIG);
    EQ("cut", msgrcv(id, &got, 2, 0, MSG_NOERROR), 2);
    ERR("empty", msgrcv(id, &got, 64, 0, IPC_NOWAIT), ENOMSG);
    m.type = 5;
    msgsnd(id, &m, 1, 0);
    ERR("all but", msgrcv(id, &got, 64, 5, IPC_NOWAIT | MSG_EXCEPT), ENOMSG);
    msgrcv(id, &got, 64, 0, 0);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        nap(50);
        msgsnd(id, &m, 3, 0);
        _exit(0);
    }
    EQ("waited", msgrcv(id, &got, 64, 0, 0), 3);
    waitpid(child, &status, 0);
    static struct { long type; char text[8192]; } large = {1};
    msgsnd(id, &large, 8192, 0);
    msgsnd(id, &large, 8192, 0);
    ERR("full", msgsnd(id, &large, 1, IPC_NOWAIT), EAGAIN);
    fflush(stdout);
    child = fork();
    if (child == 0)
        _exit(msgsnd(id, &large, 1, 0) ? errno : 0);
    nap(300);
    OK("remove", msgctl(id, IPC_RMID, NULL));
    waitpid(child, &status, 0);
    EQ("sender hears of it", status, EIDRM << 8);
    ERR("gone", msgsnd(id, &m, 1, 0), EINVAL);
}

static volatile int told, code;
static void tell(int number, siginfo_t *info, void *context) {
    told = info->si_value.sival_int;
    code = info->si_code;
}

static void queues(void) {
    struct mq_attr attr = {.mq_maxmsg = 3, .mq_msgsize = 16}, got;
    char text[32];
    unsigned priority;
    const char *name = "/conformance-case";
    mq_unlink(name);
    ERR("missing", mq_open(name, O_RDWR), ENOENT);
    ERR("no slash", mq_open("plain", O_RDWR), EINVAL);
    attr.mq_maxmsg = 0;
    ERR("no messages", mq_open(name, O_RDWR | O_CREAT, 0600, &attr), EINVAL);
    attr.mq_maxmsg = 3;
    mqd_t q = mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, &attr);
    YES("made", q >= 0);
    ERR("exclusive", mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, &attr), EEXIST);
    OK("attributes", mq_getattr(q, &got));
    EQ("most", got.mq_maxmsg * 100 + got.mq_msgsize, 316);
    OK("send", mq_send(q, "low", 3, 1));
    mq_send(q, "high", 4, 9);
    mq_send(q, "mid", 3, 5);
    struct timespec past = {1, 0};
    ERR("full", mq_timedsend(q, "x", 1, 0, &past), ETIMEDOUT);
    ERR("long", mq_send(q, text, 17, 0), EMSGSIZE);
    ERR("priority", mq_send(q, text, 1, 32768), EINVAL);
    ERR("small", mq_receive(q, text, 15, NULL), EMSGSIZE);
    EQ("highest first", mq_receive(q, text, 32, &priority), 4);
    EQ("its priority", priority, 9);
    EQ("then", ({mq_receive(q, text, 32, &priority); priority; }), 5);
    mq_getattr(q, &got);
    EQ("left", got.mq_curmsgs, 1);
    struct pollfd poll_fd = {q, POLLIN | POLLOUT, 0};
    poll(&poll_fd, 1, 0);
    EQ("ready", poll_fd.revents, POLLIN | POLLOUT);
    mq_receive(q, text, 32, NULL);
    ERR("empty", mq_timedreceive(q, text, 32, NULL, &past), ETIMEDOUT);
    attr.mq_flags = O_NONBLOCK;
    OK("nonblocking", mq_setattr(q, &attr, &got));
    ERR("would block", mq_receive(q, text, 32, NULL), EAGAIN);
    mqd_t reader = mq_open(name, O_RDONLY);
    ERR("send to reader", mq_send(reader, "x", 1, 0), EBADF);
    ERR("not a queue", mq_send(0, "x", 1, 0), EBADF);
    struct sigaction action = {.sa_sigaction = tell, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &action, NULL);
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 12};
    OK("notify", mq_notify(q, &event));
    ERR("notify twice", mq_notify(q, &event), EBUSY);
    mq_send(q, "x", 1, 0);
    EQ("told", told, 12);
    EQ("code", code, SI_MESGQ);
    mq_receive(q, text, 32, NULL);
    OK("notify anew", mq_notify(q, &event));
    OK("notify no more", mq_notify(q, NULL));
    OK("unlink", mq_unlink(name));
    ERR("unlink again", mq_unlink(name), ENOENT);
    OK("works on", mq_send(q, "x", 1, 0));
    mq_close(q);
}

/* Writes a limit of our own IPC namespace; tells whether it was taken. */
static int limit(const char *name, const char *value) {
    char path[64];
    sprintf(path, "/proc/sys/kernel/%s", name);
    int fd = open(path, O_WRONLY);
    int written = write(fd, value, strlen(value));
    close(fd);
    return written > 0;
}

static int limit_is(const char *name, const char *value) {
    char path[64], text[64] = {0};
    sprintf(path, "/proc/sys/kernel/%s", name);
    int fd = open(path, O_RDONLY);
    int got = read(fd, text, sizeof text - 1);
    close(fd);
    return got > 0 && !strcmp(text, value);
}

static void copies(void) {
    int queue = msgget(IPC_PRIVATE, 0600);
    struct { long type; char text[16]; } message = {1, "a"};
    for (message.type = 1; message.type < 4; message.type++)
        msgsnd(queue, &message, message.type, 0);
    EQ("copy the first", msgrcv(queue, &message, 16, 0, MSG_COPY | IPC_NOWAIT), 1);
    EQ("copy the third", msgrcv(queue, &message, 16, 2, MSG_COPY | IPC_NOWAIT), 3);
    EQ("its type", message.type, 3);
    ERR("copies do not wait", msgrcv(queue, &message, 16, 0, MSG_COPY), EINVAL);
    ERR("nor choose", msgrcv(queue, &message, 16, 0, MSG_COPY | IPC_NOWAIT | MSG_EXCEPT), EINVAL);
    ERR("past the last", msgrcv(queue, &message, 16, 9, MSG_COPY | IPC_NOWAIT), ENOMSG);
    ERR("before the first", msgrcv(queue, &message, 16, -1, MSG_COPY | IPC_NOWAIT), ENOMSG);
    ERR("no room", msgrcv(queue, &message, 1, 1, MSG_COPY | IPC_NOWAIT), E2BIG);
    ERR("copies are not cut", msgrcv(queue, &message, 1, 1, MSG_COPY | IPC_NOWAIT | MSG_NOERROR), EINVAL);
    struct msqid_ds state;
    msgctl(queue, IPC_STAT, &state);
    EQ("all are there still", state.msg_qnum, 3);
    msgctl(queue, IPC_RMID, NULL);
}

static void limits(void) {
    struct { long type; char text[64]; } message = {1, "a"};
    struct sembuf operations[8] = {{0}};
    YES("no number is chosen", limit_is("msg_next_id", "-1\n"));
    YES("choose one", limit("msg_next_id", "5"));
    EQ("the next has it", msgget(IPC_PRIVATE, 0600), 5);
    YES("which counts once", limit_is("msg_next_id", "-1\n"));
    YES("not a negative one", !limit("msg_next_id", "-1"));
    YES("shmmax", limit("shmmax", "8192"));
    ERR("larger", shmget(IPC_PRIVATE, 8193, 0600), EINVAL);
    YES("as large", shmget(IPC_PRIVATE, 8192, 0600) >= 0);
    YES("msgmax", limit("msgmax", "10"));
    ERR("longer", msgsnd(5, &message, 11, 0), EINVAL);
    OK("as long", msgsnd(5, &message, 10, 0));
    YES("msgmni", limit("msgmni", "1"));
    ERR("one queue more", msgget(IPC_PRIVATE, 0600), ENOSPC);
    YES("sem", limit("sem", "10 100 5 2"));
    ERR("a larger set", semget(IPC_PRIVATE, 11, 0600), EINVAL);
    int set = semget(IPC_PRIVATE, 10, 0600);
    YES("as large a set", set >= 0);
    ERR("more operations", semop(set, operations, 6), E2BIG);
    YES("a second set", semget(IPC_PRIVATE, 1, 0600) >= 0);
    ERR("a third", semget(IPC_PRIVATE, 1, 0600), ENOSPC);
    YES("a part of it", limit("sem", "20"));
    YES("the rest stays", limit_is("sem", "20\t100\t5\t2\n"));
    YES("shmmni", limit("shmmni", "1"));
    ERR("one segment more", shmget(IPC_PRIVATE, 1, 0600), ENOSPC);
    YES("no number", !limit("msgmax", "many"));
    YES("as it was", limit_is("msgmax", "10\n"));
}

int main(void) {
    alarm(20);
    signal(SIGSEGV, fault);
    signal(SIGBUS, fault);
    segments();
    semaphores();
    messages();
    queues();
    copies();
    /* Limits are a namespace's: the host's stay what they are. */
    int status;
    CHILD(status, {
        if (unshare(CLONE_NEWIPC))
            _exit(1);
        limits();
    });
    EQ("in a namespace", status, 0);
    return 0;
}
