/* Files in memory and their seals: what each seal refuses, and what stands in a seal's way. */
#include "case.h"
#include "pages.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U
#define MFD_EXEC 16U
#endif
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x20
#endif

enum { SIZE = 2 * PAGE };

static int make(unsigned flags) {
    int fd = memfd_create("case", flags);
    if (ftruncate(fd, SIZE))
        printf("FAIL memfd\n");
    return fd;
}

static int sealed(int seals) {
    int fd = make(MFD_ALLOW_SEALING);
    if (fcntl(fd, F_ADD_SEALS, seals))
        printf("FAIL seal\n");
    return fd;
}

static int reopen(int fd, int flags) {
    char name[64];
    sprintf(name, "/proc/self/fd/%d", fd);
    return open(name, flags);
}

static void adding(void) {
    int fd = make(MFD_ALLOW_SEALING);
    EQ("no seals", fcntl(fd, F_GET_SEALS), 0);
    OK("a seal", fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
    OK("the same again", fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
    OK("no seal at all", fcntl(fd, F_ADD_SEALS, 0));
    EQ("is kept", fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK);
    ERR("unknown seal", fcntl(fd, F_ADD_SEALS, 0x40), EINVAL);
    int reader = reopen(fd, O_RDONLY);
    ERR("by a reader", fcntl(reader, F_ADD_SEALS, F_SEAL_GROW), EPERM);
    EQ("a reader sees them", fcntl(reader, F_GET_SEALS), F_SEAL_SHRINK);
    close(reader);
    OK("the last", fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL));
    ERR("no more", fcntl(fd, F_ADD_SEALS, F_SEAL_GROW), EPERM);
    ERR("not even none", fcntl(fd, F_ADD_SEALS, 0), EPERM);
    close(fd);
    fd = make(0);
    EQ("without sealing", fcntl(fd, F_GET_SEALS), F_SEAL_SEAL);
    ERR("nothing to add", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EPERM);
    struct stat st;
    fstat(fd, &st);
    EQ("mode", st.st_mode, S_IFREG | 0777);
    EQ("flags", fcntl(fd, F_GETFL), O_RDWR | 0100000);
    EQ("no close on exec", fcntl(fd, F_GETFD), 0);
    close(fd);
    fd = make(MFD_CLOEXEC);
    EQ("close on exec", fcntl(fd, F_GETFD), FD_CLOEXEC);
    close(fd);
    fd = open("/dev/shm", O_TMPFILE | O_RDWR, 0600);
    EQ("seals of a file in memory", fcntl(fd, F_GET_SEALS), F_SEAL_SEAL);
    ERR("cannot be added to", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EPERM);
    close(fd);
    int ends[2];
    if (pipe(ends) == 0) {
        ERR("seals of a pipe", fcntl(ends[1], F_GET_SEALS), EINVAL);
        ERR("sealing a pipe", fcntl(ends[1], F_ADD_SEALS, F_SEAL_WRITE), EINVAL);
        ERR("from its reading end", fcntl(ends[0], F_ADD_SEALS, F_SEAL_WRITE), EPERM);
        close(ends[0]), close(ends[1]);
    }
    ERR("bad name", memfd_create((char *)8, 0), EFAULT);
    ERR("both kinds", memfd_create("m", MFD_EXEC | MFD_NOEXEC_SEAL), EINVAL);
    char name[256];
    memset(name, 'x', sizeof name);
    name[249] = 0;
    OK("longest name", close(memfd_create(name, 0)));
    OK("no name", close(memfd_create("", 0)));
}

static void sizes(void) {
    int fd = sealed(F_SEAL_SHRINK);
    ERR("shrink", ftruncate(fd, PAGE), EPERM);
    OK("same size", ftruncate(fd, SIZE));
    OK("grow", ftruncate(fd, 2 * SIZE));
    ERR("opening that truncates", reopen(fd, O_RDWR | O_TRUNC), EPERM);
    EQ("write", pwrite(fd, "x", 1, 0), 1);
    OK("punch", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE));
    close(fd);
    fd = sealed(F_SEAL_GROW);
    ERR("grow sealed", ftruncate(fd, 2 * SIZE), EPERM);
    OK("shrink within", ftruncate(fd, PAGE));
    ERR("allocate past the end", fallocate(fd, 0, 0, SIZE), EPERM);
    ERR("allocate past the end, size kept", fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, SIZE), EPERM);
    OK("allocate within", fallocate(fd, 0, 0, PAGE));
    ERR("write at the end", pwrite(fd, "x", 1, PAGE), EPERM);
    EQ("write across the end is cut", pwrite(fd, "xy", 2, PAGE - 1), 1);
    EQ("write up to it", pwrite(fd, "x", 1, PAGE - 1), 1);
    lseek(fd, 0, SEEK_END);
    ERR("write there", write(fd, "x", 1), EPERM);
    ERR("other modes", fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, PAGE), EOPNOTSUPP);
    close(fd);
}

static void writing(void) {
    int fd = make(MFD_ALLOW_SEALING);
    pwrite(fd, "hello", 5, 0);
    char *map = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ERR("a writable mapping", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EBUSY);
    EQ("nothing was added", fcntl(fd, F_GET_SEALS), 0);
    ERR("nor with others", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW), EBUSY);
    mprotect(map, PAGE, PROT_READ);
    ERR("could become one", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EBUSY);
    munmap(map, PAGE);
    map = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    ERR("could be made one", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EBUSY);
    munmap(map, PAGE);
    map = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    int status;
    CHILD(status, nap(1));
    int go[2];
    pipe(go);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        char byte;
        close(go[1]);
        read(go[0], &byte, 1);
        _exit(0);
    }
    close(go[0]);
    munmap(map, PAGE);
    ERR("a child's mapping", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EBUSY);
    close(go[1]);
    waitpid(child, NULL, 0);
    int reader = reopen(fd, O_RDONLY);
    char *read_only = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, reader, 0);
    char *private = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    OK("readers and private mappings do not matter", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
    private[0] = 'j';
    EQ("a private one goes on", private[0], 'j');
    EQ("for itself", read_only[0], 'h');
    ERR("write", pwrite(fd, "x", 1, 0), EPERM);
    ERR("nothing written", pwrite(fd, "", 0, 0), 0);
    ERR("punch sealed", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE), EPERM);
    ERR("shared and writable", (long)mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), EPERM);
    map = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    YES("shared and read", map != MAP_FAILED);
    ERR("made writable later", map == MAP_FAILED ? 0 : mprotect(map, PAGE, PROT_READ | PROT_WRITE), EACCES);
    ERR("reader made writable", mprotect(read_only, PAGE, PROT_READ | PROT_WRITE), EACCES);
    OK("private and writable", (long)mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
    OK("sizes may change", ftruncate(fd, PAGE));
    OK("and grow", ftruncate(fd, SIZE));
    OK("allocation as well", fallocate(fd, 0, 0, 2 * SIZE));
    OK("the same seal again", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
    close(fd), close(reader);
}

static void future_writing(void) {
    int fd = make(MFD_ALLOW_SEALING);
    char *before = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *reading = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    OK("future writes", fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
    before[0] = 'x';
    char byte = 0;
    EQ("the old mapping writes", pread(fd, &byte, 1, 0) == 1 && byte == 'x', 1);
    OK("an old reader may begin to", mprotect(reading, PAGE, PROT_READ | PROT_WRITE));
    ERR("no write", pwrite(fd, "x", 1, 0), EPERM);
    ERR("no hole", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE), EPERM);
    ERR("no new writer", (long)mmap(NULL, PAGE, PROT_WRITE, MAP_SHARED, fd, 0), EPERM);
    char *after = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    YES("a new reader", after != MAP_FAILED);
    ERR("who stays one", mprotect(after, PAGE, PROT_READ | PROT_WRITE), EACCES);
    OK("a private writer", (long)mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
    ERR("old mappings stand in the way", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EBUSY);
    munmap(before, PAGE), munmap(reading, PAGE);
    OK("the new one does not", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
    close(fd);
}

static void execution(void) {
    struct stat st;
    int fd = make(MFD_NOEXEC_SEAL);
    fstat(fd, &st);
    EQ("no execution: mode", st.st_mode & 07777, 0666);
    EQ("no execution: seals", fcntl(fd, F_GET_SEALS), F_SEAL_EXEC);
    ERR("cannot become one", fchmod(fd, 0777), EPERM);
    OK("other bits may change", fchmod(fd, 0600));
    OK("sealing goes on", fcntl(fd, F_ADD_SEALS, F_SEAL_GROW));
    close(fd);
    fd = make(MFD_EXEC | MFD_ALLOW_SEALING);
    fstat(fd, &st);
    EQ("execution: mode", st.st_mode & 07777, 0777);
    OK("its bits may change", fchmod(fd, 0666));
    OK("and back", fchmod(fd, 0777));
    OK("seal it", fcntl(fd, F_ADD_SEALS, F_SEAL_EXEC));
    EQ("a program is sealed whole", fcntl(fd, F_GET_SEALS), F_SEAL_EXEC | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE);
    ERR("cannot lose them", fchmod(fd, 0666), EPERM);
    ERR("nor change", pwrite(fd, "x", 1, 0), EPERM);
    close(fd);
    fd = make(MFD_EXEC);
    EQ("execution alone does not allow seals", fcntl(fd, F_GET_SEALS), F_SEAL_SEAL);
    close(fd);

    int status;
    fd = make(MFD_CLOEXEC);
    int self = open("/proc/self/exe", O_RDONLY);
    sendfile(fd, self, NULL, 64 << 20);
    CHILD(status, {
        fexecve(fd, (char *[]){"case", "child", NULL}, (char *[]){NULL});
        _exit(errno);
    });
    EQ("runs though it can be written", WEXITSTATUS(status), 0);
    int writer = reopen(fd, O_WRONLY);
    CHILD(status, {
        fexecve(fd, (char *[]){"case", "child", NULL}, (char *[]){NULL});
        _exit(errno);
    });
    EQ("not while somebody opened it to write", WEXITSTATUS(status), ETXTBSY);
    close(writer);
    fchmod(fd, 0666);
    CHILD(status, {
        fexecve(fd, (char *[]){"case", "child", NULL}, (char *[]){NULL});
        _exit(errno);
    });
    EQ("not without its bits", WEXITSTATUS(status), EACCES);
    close(fd), close(self);
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "child"))
        return 0;
    alarm(60);
    adding();
    sizes();
    writing();
    future_writing();
    execution();
    return 0;
}
