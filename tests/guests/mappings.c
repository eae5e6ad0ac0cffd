/* Memory mappings in detail: files that shrink below them, fixed places, growing stacks, protection, moving, advice, locks, residency. */
#include "case.h"
#include <linux/falloc.h>
#include <setjmp.h>
#include <sys/prctl.h>

#define PAGE 4096UL

static sigjmp_buf back;
static volatile int caught, code;
static void *volatile where;

static void catch(int number, siginfo_t *info, void *context) {
    caught = number;
    code = info->si_code;
    where = info->si_addr;
    siglongjmp(back, 1);
}

/* The signal that an access raises, 0 for none. */
#define SIGNAL_OF(...)                    \
    ({                                    \
        caught = 0;                       \
        if (!sigsetjmp(back, 1)) {        \
            __VA_ARGS__;                  \
        }                                 \
        caught;                           \
    })

static volatile char sink;
static char zeroes[PAGE];

static void *anonymous(size_t pages, int protection) {
    return mmap(0, pages * PAGE, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void shrinking(void) {
    char full[2 * PAGE];
    memset(full, 'a', sizeof full);
    int fd = open("shrinks", O_CREAT | O_RDWR, 0644);
    pwrite(fd, full, sizeof full, 0);
    char *shared = mmap(0, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *private = mmap(0, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    EQ("within", SIGNAL_OF(sink = shared[PAGE]), 0);
    EQ("past the end", SIGNAL_OF(sink = shared[2 * PAGE]), SIGBUS);
    EQ("its code", code, BUS_ADRERR);
    YES("its address", where == shared + 2 * PAGE);
    EQ("a private one past the end", SIGNAL_OF(sink = private[2 * PAGE]), SIGBUS);
    EQ("a private one within", SIGNAL_OF(private[PAGE] = 'p'), 0);
    ftruncate(fd, PAGE);
    EQ("after truncation", SIGNAL_OF(sink = shared[PAGE]), SIGBUS);
    EQ("a write after truncation", SIGNAL_OF(shared[PAGE] = 1), SIGBUS);
    EQ("a private copy after truncation", SIGNAL_OF(sink = private[PAGE]), SIGBUS);
    EQ("what is left", SIGNAL_OF(sink = shared[PAGE - 1]), 0);
    ERR("a call with memory past the end", write(fd, shared + PAGE, 1), EFAULT);
    ftruncate(fd, 2 * PAGE);
    EQ("after growing again", SIGNAL_OF(sink = shared[PAGE]), 0);
    EQ("there are zeroes", shared[PAGE], 0);
    shared[PAGE] = 'n';
    char one;
    pread(fd, &one, 1, PAGE);
    EQ("written through", one, 'n');
    pwrite(fd, "m", 1, PAGE + 1);
    EQ("and back", shared[PAGE + 1], 'm');
    ftruncate(fd, PAGE / 2);
    EQ("in the last page", SIGNAL_OF(sink = shared[PAGE - 1]), 0);
    EQ("zeroes follow the end", shared[PAGE - 1], 0);
    ftruncate(fd, 2 * PAGE);
    shared[PAGE] = 'x';
    fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, PAGE, PAGE);
    EQ("a hole is seen", shared[PAGE], 0);
    shared[PAGE] = 'y';
    pread(fd, &one, 1, PAGE);
    EQ("and filled", one, 'y');
    int status;
    CHILD(status, {
        ftruncate(fd, 0);
    });
    EQ("truncated by another process", SIGNAL_OF(sink = shared[0]), SIGBUS);
    munmap(shared, 3 * PAGE);
    munmap(private, 3 * PAGE);
    close(fd);
    fd = memfd_create("m", 0);
    ftruncate(fd, PAGE);
    shared = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    shared[0] = 1;
    ftruncate(fd, 0);
    EQ("a memfd", SIGNAL_OF(sink = shared[0]), SIGBUS);
    ftruncate(fd, PAGE);
    EQ("which grows again", shared[0], 0);
    shared[0] = 1;
    OK("MADV_REMOVE", madvise(shared, PAGE, MADV_REMOVE));
    EQ("removes", shared[0], 0);
    munmap(shared, PAGE);
    close(fd);
}

static void placing(void) {
    char *place = anonymous(4, PROT_READ | PROT_WRITE);
    ERR("no replacement", (long)mmap(place, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0), EEXIST);
    munmap(place + PAGE, PAGE);
    YES("in a gap", mmap(place + PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == place + PAGE);
    YES("fixed replaces", mmap(place, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == place);
    ERR("fixed and unaligned", (long)mmap(place + 1, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), EINVAL);
    ERR("no length", (long)mmap(0, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), EINVAL);
    ERR("too long", (long)mmap(0, 1UL << 60, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), ENOMEM);
    ERR("longest", (long)mmap(0, -1UL, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), ENOMEM);
    ERR("neither shared nor private", (long)mmap(0, PAGE, PROT_READ, MAP_ANONYMOUS, -1, 0), EINVAL);
    ERR("unaligned offset", (long)mmap(0, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 1), EINVAL);
    ERR("bad descriptor", (long)mmap(0, PAGE, PROT_READ, MAP_PRIVATE, -1, 0), EBADF);
    int fd = open("shrinks", O_RDONLY);
    ERR("shared writable of read-only", (long)mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), EACCES);
    char *readable = mmap(0, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    ERR("made writable", mprotect(readable, PAGE, PROT_READ | PROT_WRITE), EACCES);
    munmap(readable, PAGE);
    ERR("MAP_SYNC", (long)mmap(0, PAGE, PROT_READ, MAP_SHARED_VALIDATE | MAP_SYNC, fd, 0), EOPNOTSUPP);
    ERR("validated unknown", (long)mmap(0, PAGE, PROT_READ, MAP_SHARED_VALIDATE | (1 << 25), fd, 0), EOPNOTSUPP);
    close(fd);
    fd = open("shrinks", O_WRONLY);
    ERR("of write-only", (long)mmap(0, PAGE, PROT_WRITE, MAP_SHARED, fd, 0), EACCES);
    close(fd);
    fd = open(".", O_RDONLY);
    ERR("of a directory", (long)mmap(0, PAGE, PROT_READ, MAP_PRIVATE, fd, 0), ENODEV);
    close(fd);
    int pipes[2];
    pipe(pipes);
    ERR("of a pipe", (long)mmap(0, PAGE, PROT_READ, MAP_PRIVATE, pipes[0], 0), ENODEV);
    YES("low", (unsigned long)mmap(0, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0) < 1UL << 31);
    ERR("munmap nothing", munmap(place, 0), EINVAL);
    ERR("munmap unaligned", munmap(place + 1, PAGE), EINVAL);
    OK("munmap of a hole", munmap(place, 4 * PAGE));
    OK("and again", munmap(place, 4 * PAGE));
    EQ("is gone", SIGNAL_OF(sink = place[0]), SIGSEGV);
    EQ("its code", code, SEGV_MAPERR);
    struct rlimit old, limit;
    getrlimit(RLIMIT_AS, &old);
    limit = old;
    limit.rlim_cur = 1 << 20;
    setrlimit(RLIMIT_AS, &limit);
    ERR("past RLIMIT_AS", (long)mmap(0, 16 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), ENOMEM);
    setrlimit(RLIMIT_AS, &old);
}

static void protecting(void) {
    char *place = anonymous(4, PROT_READ | PROT_WRITE);
    memset(place, 1, 4 * PAGE);
    OK("read-only", mprotect(place + PAGE, PAGE, PROT_READ));
    EQ("write to it", SIGNAL_OF(place[PAGE] = 2), SIGSEGV);
    EQ("its code", code, SEGV_ACCERR);
    EQ("keeps", place[PAGE], 1);
    OK("nothing", mprotect(place + PAGE, PAGE, PROT_NONE));
    EQ("read it", SIGNAL_OF(sink = place[PAGE]), SIGSEGV);
    OK("back", mprotect(place, 4 * PAGE, PROT_READ | PROT_WRITE));
    EQ("still there", place[PAGE], 1);
    ERR("unaligned", mprotect(place + 1, PAGE, PROT_READ), EINVAL);
    ERR("unknown", mprotect(place, PAGE, 0x80), EINVAL);
    ERR("both growths", mprotect(place, PAGE, PROT_READ | PROT_GROWSDOWN | PROT_GROWSUP), EINVAL);
    ERR("growth of what does not", mprotect(place, PAGE, PROT_READ | PROT_GROWSDOWN), EINVAL);
    OK("no length", mprotect(place, 0, PROT_READ));
    munmap(place + 2 * PAGE, PAGE);
    ERR("over a hole", mprotect(place, 4 * PAGE, PROT_READ), ENOMEM);
    munmap(place, 4 * PAGE);
    ERR("of nothing", mprotect(place, PAGE, PROT_READ), ENOMEM);
    char *down = mmap(0, 64 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(down, 64 * PAGE);
    char *stack = mmap(down + 60 * PAGE, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0);
    EQ("below a growing one", SIGNAL_OF(stack[-1] = 1), 0);
    EQ("and further", SIGNAL_OF(stack[-3 * (long)PAGE] = 1), 0);
    munmap(stack - 4 * PAGE, 6 * PAGE);
}

static void moving(void) {
    char *place = anonymous(4, PROT_READ | PROT_WRITE);
    memset(place, 7, 4 * PAGE);
    YES("shrink", mremap(place, 4 * PAGE, 2 * PAGE, 0) == place);
    EQ("the rest is gone", SIGNAL_OF(sink = place[2 * PAGE]), SIGSEGV);
    YES("grow in place", mremap(place, 2 * PAGE, 4 * PAGE, 0) == place);
    EQ("with zeroes", place[3 * PAGE], 0);
    char *barrier = mmap(place + 4 * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    ERR("no room", (long)mremap(place, 4 * PAGE, 8 * PAGE, 0), ENOMEM);
    char *moved = mremap(place, 4 * PAGE, 8 * PAGE, MREMAP_MAYMOVE);
    YES("moved", moved != MAP_FAILED && moved != place);
    EQ("with its contents", moved[PAGE], 7);
    EQ("the old place is gone", SIGNAL_OF(sink = place[0]), SIGSEGV);
    ERR("unaligned", (long)mremap(moved + 1, PAGE, PAGE, 0), EINVAL);
    ERR("no new length", (long)mremap(moved, PAGE, 0, 0), EINVAL);
    ERR("fixed without may-move", (long)mremap(moved, PAGE, PAGE, MREMAP_FIXED, place), EINVAL);
    ERR("unknown flag", (long)mremap(moved, PAGE, PAGE, 8), EINVAL);
    ERR("overlapping", (long)mremap(moved, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, moved + PAGE), EINVAL);
    ERR("of nothing", (long)mremap(place, PAGE, PAGE * 2, MREMAP_MAYMOVE), EFAULT);
    char *target = anonymous(8, PROT_READ);
    YES("fixed", mremap(moved, 8 * PAGE, 8 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target) == target);
    EQ("replaces", target[PAGE], 7);
    char *kept = mremap(target, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0);
    YES("kept", kept != MAP_FAILED);
    EQ("contents moved", kept[0], 7);
    EQ("and left zeroes", target[0], 0);
    ERR("kept with another length", (long)mremap(target, 2 * PAGE, 3 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0), EINVAL);
    char *shared = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    shared[0] = 9;
    char *twice = mremap(shared, 0, PAGE, MREMAP_MAYMOVE);
    YES("a second view", twice != MAP_FAILED && twice[0] == 9);
    twice[0] = 10;
    EQ("of the same", shared[0], 10);
    munmap(barrier, PAGE);
}

static void advising(void) {
    char *place = anonymous(4, PROT_READ | PROT_WRITE);
    memset(place, 5, 4 * PAGE);
    OK("DONTNEED", madvise(place, PAGE, MADV_DONTNEED));
    EQ("is zero again", place[0], 0);
    EQ("others stay", place[PAGE], 5);
    ERR("unaligned", madvise(place + 1, PAGE, MADV_DONTNEED), EINVAL);
    ERR("unknown", madvise(place, PAGE, 12345), EINVAL);
    OK("no length", madvise(place, 0, MADV_DONTNEED));
    ERR("overflow", madvise(place, -PAGE, MADV_DONTNEED), EINVAL);
    ERR("REMOVE of private", madvise(place, PAGE, MADV_REMOVE), EINVAL);
    OK("FREE", madvise(place, PAGE, MADV_FREE));
    OK("WILLNEED", madvise(place, PAGE, MADV_WILLNEED));
    OK("COLD", madvise(place, PAGE, MADV_COLD));
    OK("PAGEOUT", madvise(place, PAGE, MADV_PAGEOUT));
    EQ("contents after that", place[PAGE], 5);
    OK("POPULATE_WRITE", madvise(place, 4 * PAGE, 23));
    munmap(place + 2 * PAGE, PAGE);
    ERR("over a hole", madvise(place, 4 * PAGE, MADV_DONTNEED), ENOMEM);
    ERR("POPULATE over a hole", madvise(place, 4 * PAGE, 22), ENOMEM);
    mprotect(place, PAGE, PROT_READ);
    ERR("POPULATE_WRITE of read-only", madvise(place, PAGE, 23), EINVAL);
    OK("POPULATE_READ of read-only", madvise(place, PAGE, 22));
    mprotect(place, PAGE, PROT_NONE);
    ERR("POPULATE_READ of nothing", madvise(place, PAGE, 22), EINVAL);
    munmap(place, 4 * PAGE);
    place = anonymous(2, PROT_READ | PROT_WRITE);
    place[0] = place[PAGE] = 3;
    OK("WIPEONFORK", madvise(place, PAGE, MADV_WIPEONFORK));
    OK("DONTFORK", madvise(place + PAGE, PAGE, MADV_DONTFORK));
    int status;
    CHILD(status, { _exit(place[0] + 10 * SIGNAL_OF(sink = place[PAGE])); });
    EQ("in the child", WEXITSTATUS(status), 10 * SIGSEGV);
    EQ("not in the parent", place[0] + place[PAGE], 6);
    int fd = memfd_create("m", 0);
    ftruncate(fd, PAGE);
    char *shared = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    shared[0] = 4;
    OK("DONTNEED of shared", madvise(shared, PAGE, MADV_DONTNEED));
    EQ("keeps the file's", shared[0], 4);
    ERR("WIPEONFORK of shared", madvise(shared, PAGE, MADV_WIPEONFORK), EINVAL);
    ERR("FREE of shared", madvise(shared, PAGE, MADV_FREE), EINVAL);
    close(fd);
    munmap(shared, PAGE);
}

static void locking(void) {
    char *place = anonymous(4, PROT_READ | PROT_WRITE);
    unsigned char pages[4];
    OK("mlock", mlock(place, PAGE));
    OK("mincore", mincore(place, 4 * PAGE, pages));
    EQ("locked is present", pages[0] & 1, 1);
    ERR("mincore unaligned", mincore(place + 1, PAGE, pages), EINVAL);
    ERR("mincore bad vector", mincore(place, PAGE, (void *)8), EFAULT);
    OK("munlock", munlock(place, PAGE));
    OK("mlock2", mlock2(place, PAGE, MLOCK_ONFAULT));
    ERR("mlock2 flags", mlock2(place, PAGE, 8), EINVAL);
    ERR("DONTNEED of locked", madvise(place, PAGE, MADV_DONTNEED), EINVAL);
    OK("munlock again", munlock(place, 4 * PAGE));
    ERR("mlockall nothing", mlockall(0), EINVAL);
    ERR("mlockall only on fault", mlockall(4), EINVAL);
    OK("munlockall", munlockall());
    munmap(place + 2 * PAGE, PAGE);
    ERR("mlock over a hole", mlock(place, 4 * PAGE), ENOMEM);
    ERR("munlock over a hole", munlock(place, 4 * PAGE), ENOMEM);
    ERR("mincore over a hole", mincore(place, 4 * PAGE, pages), ENOMEM);
    ERR("msync over a hole", msync(place, 4 * PAGE, MS_SYNC), ENOMEM);
    OK("msync", msync(place, PAGE, MS_SYNC));
    ERR("msync both", msync(place, PAGE, MS_SYNC | MS_ASYNC), EINVAL);
    ERR("msync unknown", msync(place, PAGE, 8), EINVAL);
    ERR("msync unaligned", msync(place + 1, PAGE, MS_SYNC), EINVAL);
    munlockall();
    munmap(place, 4 * PAGE);
    void *start = sbrk(0);
    YES("brk", sbrk(8 * PAGE) == start);
    memset(start, 1, 8 * PAGE);
    brk(start);
    EQ("below the break again", SIGNAL_OF(sink = ((char *)start)[7 * PAGE]), SIGSEGV);
    YES("a bad break stays", syscall(SYS_brk, 8) == (long)start);
    sbrk(8 * PAGE);
    EQ("a new heap is zero", ((char *)start)[7 * PAGE], 0);
    brk(start);
}

static void listing(void) {
    char *place = anonymous(3, PROT_READ | PROT_WRITE);
    place[0] = 1;
    mprotect(place + PAGE, PAGE, PROT_READ);
    char line[256], wanted[64];
    FILE *maps = fopen("/proc/self/maps", "r");
    sprintf(wanted, "%lx-%lx r--p", (long)place + PAGE, (long)place + 2 * PAGE);
    int found = 0, stack = 0, vdso = 0;
    while (fgets(line, sizeof line, maps)) {
        found += !!strstr(line, wanted);
        stack += !!strstr(line, "[stack]");
        vdso += !!strstr(line, "[vdso]");
    }
    fclose(maps);
    EQ("maps", found, 1);
    EQ("stack", stack, 1);
    EQ("vdso", vdso, 1);
    int fd = open("/proc/self/pagemap", O_RDONLY);
    uint64_t entry = 0;
    EQ("pagemap", pread(fd, &entry, 8, (long)place / PAGE * 8), 8);
    YES("present", entry >> 63);
    close(fd);
    fd = open("/proc/self/mem", O_RDWR);
    char one = 0;
    EQ("mem read", pread(fd, &one, 1, (long)place), 1);
    EQ("is it", one, 1);
    EQ("mem write", pwrite(fd, "z", 1, (long)place + PAGE), 1);
    EQ("even where one may not", place[PAGE], 'z');
    munmap(place, 3 * PAGE);
    ERR("mem of nothing", pread(fd, &one, 1, (long)place), EIO);
    close(fd);
    FILE *rollup = fopen("/proc/self/smaps_rollup", "r");
    found = 0;
    while (fgets(line, sizeof line, rollup))
        found += !strncmp(line, "Rss:", 4) || !strncmp(line, "Pss:", 4) || !strncmp(line, "Private_Dirty:", 14);
    fclose(rollup);
    EQ("smaps_rollup", found, 3);
}

/* A filesystem's limit holds for pages that come by faults, too, and they are given back however they go. */
static void limits(void) {
    struct statfs before, after;
    mkdir("limited", 0700);
    OK("own mounts", unshare(CLONE_NEWNS));
    OK("which stay here", mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
    OK("a filesystem of 16 pages", mount("none", "limited", "tmpfs", 0, "size=64k"));
    OK("statfs", statfs("limited", &before));
    int fd = open("limited/sparse", O_RDWR | O_CREAT, 0600);
    OK("a long file without pages", ftruncate(fd, 64 * PAGE));
    char *place = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    EQ("its first page", SIGNAL_OF(place[0] = 1), 0);
    int pages = 1;
    while (pages < 64 && !SIGNAL_OF(place[pages * PAGE] = 1))
        pages++;
    YES("some pages", pages >= 8 && pages <= 16);
    EQ("and no more", SIGNAL_OF(place[pages * PAGE] = 1), SIGBUS);
    ERR("nor by a write", pwrite(fd, "x", 1, 63 * PAGE), ENOSPC);
    munmap(place, 64 * PAGE);
    close(fd);
    OK("removed", unlink("limited/sparse"));
    OK("statfs", statfs("limited", &after));
    EQ("all is as before", after.f_bfree, before.f_bfree);
    umount2("limited", MNT_DETACH);
}

int main(void) {
    enter_directory();
    struct sigaction action = {.sa_sigaction = catch, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGBUS, &action, 0);
    sigaction(SIGSEGV, &action, 0);
    shrinking();
    placing();
    protecting();
    moving();
    advising();
    locking();
    listing();
    limits();
    return 0;
}
