/* Memory: mapping, protection, moving, advice, locking. */
#include "case.h"
#include <setjmp.h>

#define PAGE 4096
static sigjmp_buf back;
static void fault(int number) {
    siglongjmp(back, number);
}

/* The signal that touching a byte raises, or 0. */
static int touch(volatile char *at, int write) {
    int number = sigsetjmp(back, 1);
    if (!number) {
        char byte = *at;
        if (write)
            *at = byte;
    }
    return number;
}

static void *map(size_t pages, int protection, int flags, int fd, off_t offset) {
    return mmap(NULL, pages * PAGE, protection, flags, fd, offset);
}

static void mapping(void) {
    ERR("no length", (long)mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), EINVAL);
    ERR("no kind", (long)mmap(NULL, PAGE, PROT_READ, MAP_ANONYMOUS, -1, 0), EINVAL);
    ERR("huge", (long)mmap(NULL, 1ull << 62, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), ENOMEM);
    ERR("bad fd", (long)map(1, PROT_READ, MAP_PRIVATE, 99, 0), EBADF);
    int file = open("file", O_RDWR | O_CREAT, 0644);
    ftruncate(file, PAGE + 100);
    ERR("odd offset", (long)map(1, PROT_READ, MAP_PRIVATE, file, 100), EINVAL);
    ERR("odd fixed", (long)mmap((void *)0x10001, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), EINVAL);
    ERR("directory", ({int d = open(".", O_RDONLY); (long)map(1, PROT_READ, MAP_PRIVATE, d, 0); }), ENODEV);
    int readonly = open("file", O_RDONLY), writeonly = open("file", O_WRONLY);
    ERR("shared writing of read-only", (long)map(1, PROT_READ | PROT_WRITE, MAP_SHARED, readonly, 0), EACCES);
    ERR("reading of write-only", (long)map(1, PROT_READ, MAP_PRIVATE, writeonly, 0), EACCES);
    char *shared = map(3, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0), *private = map(1, PROT_READ | PROT_WRITE, MAP_PRIVATE, readonly, 0);
    YES("mapped", shared != MAP_FAILED && private != MAP_FAILED);
    shared[5] = 'x';
    char byte = 0;
    pread(file, &byte, 1, 5);
    EQ("shared write reaches the file", byte, 'x');
    pwrite(file, "y", 1, 6);
    EQ("write reaches the mapping", shared[6], 'y');
    EQ("and the private one", private[6], 'y');
    private[7] = 'z';
    EQ("private write stays", shared[7], 0);
    EQ("tail of the last page", touch(shared + PAGE + 200, 1), 0);
    EQ("past the last page", touch(shared + 2 * PAGE, 0), SIGBUS);
    ftruncate(file, 3 * PAGE);
    EQ("grown again", touch(shared + 2 * PAGE, 1), 0);
    OK("msync", msync(shared, PAGE, MS_SYNC));
    ERR("msync odd", msync(shared + 1, PAGE, MS_SYNC), EINVAL);
    ERR("msync both", msync(shared, PAGE, MS_SYNC | MS_ASYNC), EINVAL);
    ERR("mprotect read-only file", ({char *p = map(1, PROT_READ, MAP_SHARED, readonly, 0); mprotect(p, PAGE, PROT_WRITE); }), EACCES);
    OK("munmap", munmap(shared, 3 * PAGE));
    OK("munmap again", munmap(shared, 3 * PAGE));
    ERR("munmap odd", munmap(shared + 1, PAGE), EINVAL);
    ERR("munmap nothing", munmap(shared, 0), EINVAL);
    ERR("msync unmapped", msync(shared, PAGE, MS_SYNC), ENOMEM);
    ERR("mprotect unmapped", mprotect(shared, PAGE, PROT_READ), ENOMEM);
    char *three = map(3, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(three, 7, 3 * PAGE);
    EQ("hole in the middle", ({munmap(three + PAGE, PAGE); touch(three + PAGE, 0); }), SIGSEGV);
    EQ("left stays", three[0] + three[2 * PAGE], 14);
    ERR("fixed noreplace", (long)mmap(three, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0), EEXIST);
    YES("fixed", mmap(three, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == three);
    EQ("fixed is empty", three[0], 0);
    EQ("read-only now", touch(three, 1), SIGSEGV);
    OK("mprotect", mprotect(three, PAGE, PROT_READ | PROT_WRITE));
    EQ("writable now", touch(three, 1), 0);
    ERR("mprotect strange", mprotect(three, PAGE, 0x100), EINVAL);
    ERR("mprotect odd", mprotect(three + 1, PAGE, PROT_READ), EINVAL);
    OK("mprotect nothing", mprotect(three, 0, PROT_READ));
    mprotect(three, PAGE, PROT_NONE);
    ERR("write from no access", write(file, three, 1), EFAULT);
    ERR("low fixed", ({setuid(0); (long)mmap((void *)0, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == -1 ? -1 : (errno = EPERM, -1); }), EPERM);
    char *grows = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE | MAP_NORESERVE | MAP_STACK, -1, 0);
    YES("more flags", grows != MAP_FAILED);
    char *zero = map(1, PROT_READ | PROT_WRITE, MAP_PRIVATE, open("/dev/zero", O_RDWR), 0);
    YES("dev zero", zero != MAP_FAILED && zero[100] == 0);
    int status;
    char *both = map(1, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHILD(status, both[0] = 9; zero[0] = 9);
    EQ("shared with child", both[0], 9);
    EQ("private of child", zero[0], 0);
    void *brk = sbrk(0);
    YES("brk grows", sbrk(3 * PAGE) == brk && sbrk(0) == (char *)brk + 3 * PAGE);
    EQ("brk page", touch((char *)brk + 2 * PAGE, 1), 0);
    YES("brk below start", syscall(SYS_brk, 1) == (long)sbrk(0));
    struct rlimit old, limit = {0, RLIM_INFINITY};
    getrlimit(RLIMIT_AS, &old);
    limit.rlim_cur = 64 << 20;
    setrlimit(RLIMIT_AS, &limit);
    ERR("address space limit", (long)map(1 << 15, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), ENOMEM);
    setrlimit(RLIMIT_AS, &old);
}

static void moving(void) {
    char *at = map(4, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    strcpy(at, "moved");
    char *to = mremap(at, 4 * PAGE, 64 * PAGE, MREMAP_MAYMOVE);
    YES("mremap", to != MAP_FAILED && strcmp(to, "moved") == 0);
    YES("shrink", mremap(to, 64 * PAGE, PAGE, 0) == to);
    EQ("shrunk", touch(to + PAGE, 0), SIGSEGV);
    ERR("no size", (long)mremap(to, PAGE, 0, 0), EINVAL);
    ERR("odd", (long)mremap(to + 1, PAGE, PAGE, 0), EINVAL);
    ERR("fixed without move", (long)mremap(to, PAGE, PAGE, MREMAP_FIXED, at), EINVAL);
    ERR("strange flags", (long)mremap(to, PAGE, PAGE, 64), EINVAL);
    ERR("unmapped", (long)mremap(to + PAGE, PAGE, 2 * PAGE, MREMAP_MAYMOVE), EFAULT);
    ERR("overlapping", (long)mremap(to, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to), EINVAL);
    char *room = map(2, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    YES("to a place", mremap(to, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, room) == room && strcmp(room, "moved") == 0);
    EQ("old place is empty", touch(to, 0), SIGSEGV);
    char *shared = map(1, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char *copy = mremap(shared, 0, PAGE, MREMAP_MAYMOVE);
    copy[0] = 5;
    EQ("second mapping of shared", shared[0], 5);
    char *keep = mremap(room, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP);
    YES("dontunmap", keep != MAP_FAILED && strcmp(keep, "moved") == 0 && room[0] == 0);
}

static void advice(void) {
    char *at = map(4, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(at, 3, 4 * PAGE);
    OK("dontneed", madvise(at + PAGE, PAGE, MADV_DONTNEED));
    EQ("emptied", at[PAGE], 0);
    EQ("neighbour stays", at[0], 3);
    ERR("strange", madvise(at, PAGE, 999), EINVAL);
    ERR("odd", madvise(at + 1, PAGE, MADV_NORMAL), EINVAL);
    OK("nothing", madvise(at, 0, MADV_NORMAL));
    ERR("unmapped", ({munmap(at + 3 * PAGE, PAGE); madvise(at, 4 * PAGE, MADV_DONTNEED); }), ENOMEM);
    at[0] = 1;
    OK("free", madvise(at, PAGE, MADV_FREE));
    OK("dontfork", madvise(at, PAGE, MADV_DONTFORK));
    int status;
    CHILD(status, _exit(touch(at, 0)));
    EQ("not in the child", status, SIGSEGV << 8);
    at[PAGE] = 4;
    OK("wipeonfork", madvise(at + PAGE, PAGE, MADV_WIPEONFORK));
    CHILD(status, _exit(at[PAGE]));
    EQ("wiped in the child", status, 0);
    EQ("not wiped here", at[PAGE], 4);
    OK("populate", madvise(at + PAGE, PAGE, MADV_POPULATE_WRITE));
    ERR("populate unmapped", madvise(at + 3 * PAGE, PAGE, MADV_POPULATE_READ), ENOMEM);
    unsigned char present[4];
    char *fresh = map(2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    fresh[0] = 1;
    OK("mincore", mincore(fresh, 2 * PAGE, present));
    EQ("present", present[0] & 1, 1);
    ERR("mincore odd", mincore(fresh + 1, PAGE, present), EINVAL);
    ERR("mincore unmapped", mincore(at + 3 * PAGE, PAGE, present), ENOMEM);
    OK("mlock", mlock(fresh, 2 * PAGE));
    mincore(fresh, 2 * PAGE, present);
    EQ("locked is present", present[1] & 1, 1);
    ERR("dontneed locked", madvise(fresh, PAGE, MADV_DONTNEED), EINVAL);
    OK("munlock", munlock(fresh, 2 * PAGE));
    ERR("mlock unmapped", mlock(at + 3 * PAGE, PAGE), ENOMEM);
    ERR("mlockall strange", mlockall(64), EINVAL);
    ERR("mlock2 strange", mlock2(fresh, PAGE, 64), EINVAL);
    OK("munlockall", munlockall());
    struct iovec vector = {fresh, PAGE};
    int pidfd = syscall(SYS_pidfd_open, getpid(), 0);
    EQ("process_madvise", syscall(SYS_process_madvise, pidfd, &vector, 1, MADV_COLD, 0), PAGE);
    ERR("process_madvise flags", syscall(SYS_process_madvise, pidfd, &vector, 1, MADV_COLD, 1), EINVAL);
    ERR("process_madvise bad", syscall(SYS_process_madvise, 0, &vector, 1, MADV_COLD, 0), EBADF);
    close(pidfd);
    char *sealed = map(2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    OK("mseal", syscall(462, sealed, PAGE, 0));
    ERR("mseal flags", syscall(462, sealed, PAGE, 1), EINVAL);
    ERR("mseal odd", syscall(462, sealed + 1, PAGE, 0), EINVAL);
    ERR("sealed mprotect", mprotect(sealed, PAGE, PROT_READ), EPERM);
    ERR("sealed munmap", munmap(sealed, 2 * PAGE), EPERM);
    ERR("sealed fixed", (long)mmap(sealed, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), EPERM);
    ERR("sealed mremap", (long)mremap(sealed, PAGE, 2 * PAGE, MREMAP_MAYMOVE), EPERM);
    OK("neighbour free", munmap(sealed + PAGE, PAGE));
    ERR("mseal unmapped", syscall(462, sealed, 2 * PAGE, 0), ENOMEM);
}

int main(void) {
    alarm(20);
    enter_directory();
    signal(SIGSEGV, fault);
    signal(SIGBUS, fault);
    mapping();
    moving();
    advice();
    return 0;
}
