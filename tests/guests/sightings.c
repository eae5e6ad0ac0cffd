/* Where numbers of processes show, seen from within PID namespaces and from above: procfs, sockets, locks, IPC, calls by number, terminals. */
#include "numbers.h"
#include <linux/futex.h>
#include <linux/kcmp.h>
#include <mqueue.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/ptrace.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <termios.h>

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
    begin();
    processes_shown();
    sockets();
    files();
    objects();
    others();
    terminals();
    return 0;
}
