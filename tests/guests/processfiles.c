/* procfs about processes in every state of their lives: zombies, ended ones whose files are open still, undumpable ones; locks and names. */
#include "case.h"
#include <sys/eventfd.h>

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif

static char text[65536];

/* The beginning of a file; -errno if it cannot be read. */
static long contents(const char *path) {
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return -errno;
    long got = 0, more;
    while (got < (long)sizeof text - 1 && (more = read(fd, text + got, sizeof text - 1 - got)) > 0)
        got += more;
    if (more < 0)
        got = -errno;
    text[got > 0 ? got : 0] = 0;
    close(fd);
    return got;
}

static const char *of(pid_t pid, const char *name) {
    static char path[4][100];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "/proc/%d/%s", pid, name);
    return path[turn];
}

static int entries(const char *path) {
    int count = 0;
    DIR *directory = opendir(path);
    while (directory && readdir(directory))
        count++;
    if (directory)
        closedir(directory);
    return count;
}

static void zombies(void) {
    char link[100];
    fflush(stdout);
    pid_t child = fork();
    if (!child)
        _exit(3);
    siginfo_t info;
    OK("it ended", waitid(P_PID, child, &info, WEXITED | WNOWAIT));
    EQ("maps of a zombie", contents(of(child, "maps")), 0);
    EQ("smaps", contents(of(child, "smaps")), 0);
    EQ("cmdline", contents(of(child, "cmdline")), 0);
    YES("io", contents(of(child, "io")) > 0);
    YES("limits", contents(of(child, "limits")) > 0);
    YES("uid_map", contents(of(child, "uid_map")) > 0);
    YES("status", contents(of(child, "status")) > 0);
    YES("says so", strstr(text, "State:\tZ (zombie)") != NULL);
    YES("and counts one thread", strstr(text, "\nThreads:\t1\n") != NULL);
    EQ("which is listed", entries(of(child, "task")), 3);
    EQ("no files", entries(of(child, "fd")), 2);
    ERR("exe", readlink(of(child, "exe"), link, sizeof link), ENOENT);
    ERR("cwd", readlink(of(child, "cwd"), link, sizeof link), ENOENT);
    int map = open(of(child, "uid_map"), O_RDONLY), comm = open(of(child, "comm"), O_RDONLY), group = open(of(child, "cgroup"), O_RDONLY);
    int directory = open(of(child, "."), O_RDONLY);
    waitpid(child, NULL, 0);
    YES("its map outlives it", pread(map, text, 10, 0) > 0);
    ERR("its name does not", pread(comm, text, 10, 0), ESRCH);
    ERR("nor its group", pread(group, text, 10, 0), ESRCH);
    ERR("nothing more is found", openat(directory, "stat", O_RDONLY), ESRCH);
    EQ("nor listed", syscall(SYS_getdents64, directory, text, sizeof text) > 0, 0);
    close(map), close(comm), close(group), close(directory);
}

static void owners(void) {
    int status;
    struct stat one, other;
    CHILD(status, {
        if (setgid(1000) || setuid(1000) || prctl(PR_SET_DUMPABLE, 1))
            _exit(1);
        stat("/proc/self", &one), stat("/proc/self/stat", &other);
        if (one.st_uid != 1000 || other.st_uid != 1000)
            _exit(2);
        prctl(PR_SET_DUMPABLE, 0);
        stat("/proc/self", &one), stat("/proc/self/stat", &other);
        if (one.st_uid != 1000 || other.st_uid != 0)
            _exit(3);
        if (entries("/proc/self/fd") < 3)
            _exit(4);
        if (open("/proc/self/environ", O_RDONLY) >= 0)
            _exit(5);
    });
    EQ("files about the undumpable are root's", status, 0);
    int fd = open("/proc/cpuinfo", O_WRONLY);
    YES("root may open what takes nothing", fd >= 0);
    ERR("but not write to it", write(fd, "x", 1), EIO);
    close(fd);
    ERR("nor open a fixed setting", open("/proc/sys/kernel/ostype", O_WRONLY), EACCES);
    OK("directories have an end", lseek(fd = open("/proc/self/task", O_RDONLY), 0, SEEK_END));
    close(fd);
}

static void locks(void) {
    char path[50], line[80];
    int fd = open("locked", O_RDWR | O_CREAT, 0600);
    struct flock record = {.l_type = F_RDLCK, .l_start = 5, .l_len = 10};
    OK("flock", flock(fd, LOCK_EX));
    OK("record", fcntl(fd, F_SETLK, &record));
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    YES("fdinfo", contents(path) > 0);
    snprintf(line, sizeof line, "FLOCK  ADVISORY  WRITE %d ", getpid());
    YES("tells of the one", strstr(text, line) != NULL);
    snprintf(line, sizeof line, "POSIX  ADVISORY  READ %d ", getpid());
    YES("and the other", strstr(text, line) != NULL);
    YES("with its bytes", strstr(text, " 5 14\n") != NULL);
    struct stat status;
    fstat(fd, &status);
    snprintf(line, sizeof line, ":%lu 5 14\n", (unsigned long)status.st_ino);
    contents("/proc/locks");
    YES("as the list of all does", strstr(text, line) != NULL);
    close(fd);
    contents("/proc/locks");
    YES("until it is closed", strstr(text, line) == NULL);
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd = eventfd(7, EFD_SEMAPHORE));
    YES("counters", contents(path) > 0 && strstr(text, "eventfd-count:                7\n") && strstr(text, "eventfd-semaphore: 1\n"));
    close(fd);
}

/* The name of the mapping at an address. */
static const char *mapping(void *address) {
    static char name[200];
    char start[40];
    snprintf(start, sizeof start, "%08lx-", (unsigned long)address);
    contents("/proc/self/maps");
    char *line = strstr(text, start);
    name[0] = 0;
    if (line && sscanf(line, "%*s %*s %*s %*s %*s %199[^\n]", name) < 1)
        name[0] = 0;
    return name;
}

static void names(void) {
    char *shared = mmap(NULL, 4096, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    YES("shared memory", !strcmp(mapping(shared), "/dev/zero (deleted)"));
    int named = prctl(PR_SET_VMA, 0, shared, 4096, "mine");
    YES("can have a name", !strcmp(mapping(shared), named ? "/dev/zero (deleted)" : "[anon_shmem:mine]"));
    munmap(shared, 4096);
    int fd = open("file", O_RDWR | O_CREAT, 0600);
    ftruncate(fd, 4096);
    char *file = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
    YES("files have theirs", prctl(PR_SET_VMA, 0, file, 4096, "mine") == -1 && (errno == EBADF || errno == EINVAL));
    munmap(file, 4096);
    close(fd);
}

static void settings(void) {
    int status;
    long before = 0, after = 0, unused;
    YES("open files", contents("/proc/sys/fs/file-nr") > 0 && sscanf(text, "%ld", &before) == 1);
    int files[300];
    for (int i = 0; i < 300; i++)
        files[i] = open("/dev/null", O_RDONLY);
    contents("/proc/sys/fs/file-nr");
    YES("are counted", sscanf(text, "%ld %ld", &after, &unused) == 2 && after >= before + 150);
    for (int i = 0; i < 300; i++)
        close(files[i]);
    CHILD(status, {
        if (unshare(CLONE_NEWUSER))
            _exit(1);
        int map = open("/proc/self/uid_map", O_WRONLY);
        if (write(map, "0 0 1", 5) != 5)
            _exit(2);
        write(open("/proc/self/setgroups", O_WRONLY), "deny", 4);
        map = open("/proc/self/gid_map", O_WRONLY);
        if (write(map, "0 0 1", 5) != 5)
            _exit(3);
        int most = open("/proc/sys/user/max_user_namespaces", O_RDWR);
        if (write(most, "-1", 2) != -1 || errno != EINVAL)
            _exit(4);
        if (pwrite(most, "1", 1, 0) != 1)
            _exit(5);
        if (unshare(CLONE_NEWUSER))
            _exit(6);
        if (!unshare(CLONE_NEWUSER) || errno != ENOSPC)
            _exit(7);
    });
    EQ("namespaces have limits", status, 0);
}

int main(void) {
    alarm(60);
    enter_directory();
    zombies();
    owners();
    locks();
    names();
    settings();
    return 0;
}
