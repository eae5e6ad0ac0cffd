/* Pages and areas beyond mapping and advice: nonlinear files, moving, locks as /proc tells them, memory nodes, the page cache, quotas. */
#include "case.h"
#include "pages.h"
#include <linux/mempolicy.h>
#include <sys/sysmacros.h>

#define TELL(name) ({ static char all_[65536]; int fd_ = open(name, O_RDONLY); int n_ = 0, m_; \
    while (fd_ >= 0 && (m_ = read(fd_, all_ + n_, sizeof all_ - 1 - n_)) > 0) n_ += m_; all_[n_] = 0; if (fd_ >= 0) close(fd_); all_; })

static void *anonymous(int pages) { return map(pages, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }

/* The line of an area's smaps that starts with a word. */
static const char *of_area(void *at, const char *word) {
    static char line[256];
    char start[32];
    sprintf(start, "%08lx-", (long)at);
    char *found = strstr(TELL("/proc/self/smaps"), start);
    found = found ? strstr(found, word) : NULL;
    *line = 0;
    if (found)
        sscanf(found, "%255[^\n]", line);
    return line;
}

static void nonlinear(void) {
    int fd = memfd_create("m", 0);
    ftruncate(fd, 4 * PAGE);
    for (int i = 0; i < 4; i++)
        pwrite(fd, &"abcd"[i], 1, i * PAGE);
    char *at = map(4, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    OK("another page", syscall(SYS_remap_file_pages, at, PAGE, 0, 3, 0));
    EQ("is seen", at[0], 'd');
    EQ("the others stay", at[PAGE], 'b');
    at[0] = 'x';
    EQ("twice in memory", at[3 * PAGE], 'x');
    OK("two pages", syscall(SYS_remap_file_pages, at + 2 * PAGE, 2 * PAGE, 0, 0, 0));
    EQ("the first", at[2 * PAGE], 'a');
    EQ("the second", at[3 * PAGE], 'b');
    ERR("with a protection", syscall(SYS_remap_file_pages, at, PAGE, PROT_READ, 0, 0), EINVAL);
    ERR("no size", syscall(SYS_remap_file_pages, at, 0, 0, 0, 0), EINVAL);
    ERR("past all offsets", syscall(SYS_remap_file_pages, at, PAGE, 0, -1L, 0), EINVAL);
    munmap(at, 4 * PAGE);
    ERR("nothing there", syscall(SYS_remap_file_pages, at, PAGE, 0, 0, 0), EINVAL);
    at = map(2, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    ERR("private", syscall(SYS_remap_file_pages, at, PAGE, 0, 1, 0), EINVAL);
    munmap(at, 2 * PAGE);
    close(fd);
}

static void locks(void) {
    char *at = anonymous(4);
    OK("lock two", mlock(at + PAGE, 2 * PAGE));
    YES("VmLck", strstr(TELL("/proc/self/status"), "VmLck:\t       8 kB"));
    YES("marked", strstr(of_area(at + PAGE, "VmFlags"), " lo"));
    YES("the first is not", !strstr(of_area(at, "VmFlags"), " lo"));
    EQ("Locked", atoi(of_area(at + PAGE, "Locked:") + 7), 8);
    OK("unlock", munlock(at, 4 * PAGE));
    YES("none", strstr(TELL("/proc/self/status"), "VmLck:\t       0 kB"));
    OK("lock from inside a page", mlock(at + 100, 1));
    YES("locks it whole", strstr(TELL("/proc/self/status"), "VmLck:\t       4 kB"));
    munlock(at, PAGE);
    OK("lock nothing", mlock(at, 0));
    OK("MAP_LOCKED", munmap(mmap(0, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0), PAGE));
    ERR("past everything", mlock((void *)-PAGE, PAGE), EINVAL);
    ERR("overflow", mlock(at, -PAGE), EINVAL);
    int status;
    CHILD(status, {
        struct rlimit none = {PAGE, PAGE};
        setrlimit(RLIMIT_MEMLOCK, &none);
        setresuid(1000, 1000, 1000);
        int first = mlock(at, PAGE), second = mlock(at + PAGE, PAGE), e = errno;
        munlock(at, PAGE);
        int third = mlock(at + PAGE, PAGE), fourth = mlock(at + PAGE, PAGE);
        void *more = mmap(0, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0);
        _exit(first == 0 && second == -1 && e == ENOMEM && third == 0 && fourth == 0 && more == MAP_FAILED && errno == EAGAIN);
    });
    EQ("all locks count", status, 1 << 8);
    CHILD(status, {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_MEMLOCK, &none);
        setresuid(1000, 1000, 1000);
        _exit(mlock(at, PAGE) == -1 && errno == EPERM && mlockall(MCL_CURRENT) == -1 && errno == EPERM && munlock(at, PAGE) == 0 && munlockall() == 0);
    });
    EQ("no limit at all is EPERM", status, 1 << 8);
    CHILD(status, {
        struct rlimit small = {PAGE, PAGE};
        setrlimit(RLIMIT_MEMLOCK, &small);
        setresuid(1000, 1000, 1000);
        _exit(mlockall(MCL_CURRENT) == -1 && errno == ENOMEM);
    });
    EQ("everything is more than allowed", status, 1 << 8);
    madvise(at, PAGE, MADV_DONTFORK);
    YES("dc", strstr(of_area(at, "VmFlags"), " dc"));
    madvise(at, PAGE, MADV_DOFORK);
    madvise(at, 4 * PAGE, MADV_WIPEONFORK);
    YES("wf", strstr(of_area(at, "VmFlags"), " wf"));
    munmap(at, 4 * PAGE);
    YES("accounted", strstr(of_area(at = anonymous(1), "VmFlags"), " ac"));
    YES("flags of memory", strstr(of_area(at, "VmFlags"), "VmFlags: rd wr mr mw me ac"));
}

static void nodes(void) {
    int mode = -1;
    unsigned long mask[16] = {0};
    OK("policy", syscall(SYS_get_mempolicy, &mode, mask, 1024, 0, 0));
    EQ("is the default", mode, MPOL_DEFAULT);
    EQ("of no nodes", mask[0], 0);
    OK("allowed", syscall(SYS_get_mempolicy, NULL, mask, 1024, 0, MPOL_F_MEMS_ALLOWED));
    EQ("the first node", mask[0], 1);
    ERR("unknown flag", syscall(SYS_get_mempolicy, &mode, mask, 1024, 0, 8), EINVAL);
    ERR("allowed of an address", syscall(SYS_get_mempolicy, &mode, mask, 1024, &mode, MPOL_F_MEMS_ALLOWED | MPOL_F_ADDR), EINVAL);
    ERR("address without flag", syscall(SYS_get_mempolicy, &mode, mask, 1024, &mode, 0), EINVAL);
    ERR("node of the default", syscall(SYS_get_mempolicy, &mode, NULL, 0, 0, MPOL_F_NODE), EINVAL);
    ERR("no memory there", syscall(SYS_get_mempolicy, &mode, NULL, 0, 8, MPOL_F_ADDR), EFAULT);
    ERR("bad pointer", syscall(SYS_get_mempolicy, 8, NULL, 0, 0, 0), EFAULT);
    ERR("short mask", syscall(SYS_get_mempolicy, &mode, mask, 0, 0, 0), EINVAL);
    char *at = anonymous(4);
    *at = 1;
    OK("node of a page", syscall(SYS_get_mempolicy, &mode, NULL, 0, at, MPOL_F_NODE | MPOL_F_ADDR));
    EQ("is the first", mode, 0);

    mask[0] = 1;
    OK("bind", syscall(SYS_set_mempolicy, MPOL_BIND, mask, 64));
    mask[0] = 0;
    OK("ask", syscall(SYS_get_mempolicy, &mode, mask, 1024, 0, 0));
    EQ("bound", mode, MPOL_BIND);
    EQ("to the first", mask[0], 1);
    int status;
    CHILD(status, { _exit(syscall(SYS_get_mempolicy, &mode, NULL, 0, 0, 0) == 0 && mode == MPOL_BIND); });
    EQ("a child has it, too", status, 1 << 8);
    OK("interleave", syscall(SYS_set_mempolicy, MPOL_INTERLEAVE, mask, 64));
    OK("next node", syscall(SYS_get_mempolicy, &mode, NULL, 0, 0, MPOL_F_NODE));
    EQ("the first again", mode, 0);
    OK("local", syscall(SYS_set_mempolicy, MPOL_LOCAL, NULL, 0));
    syscall(SYS_get_mempolicy, &mode, NULL, 0, 0, 0);
    EQ("told", mode, MPOL_LOCAL);
    OK("prefer none", syscall(SYS_set_mempolicy, MPOL_PREFERRED, NULL, 0));
    syscall(SYS_get_mempolicy, &mode, NULL, 0, 0, 0);
    EQ("is local", mode, MPOL_LOCAL);
    OK("static", syscall(SYS_set_mempolicy, MPOL_BIND | MPOL_F_STATIC_NODES, mask, 64));
    syscall(SYS_get_mempolicy, &mode, NULL, 0, 0, 0);
    EQ("told with its mode", mode, MPOL_BIND | MPOL_F_STATIC_NODES);
    OK("default", syscall(SYS_set_mempolicy, MPOL_DEFAULT, NULL, 0));
    ERR("default with nodes", syscall(SYS_set_mempolicy, MPOL_DEFAULT, mask, 64), EINVAL);
    ERR("local with nodes", syscall(SYS_set_mempolicy, MPOL_LOCAL, mask, 64), EINVAL);
    ERR("bind to nothing", syscall(SYS_set_mempolicy, MPOL_BIND, NULL, 0), EINVAL);
    ERR("unknown mode", syscall(SYS_set_mempolicy, 99, mask, 64), EINVAL);
    ERR("negative mode", syscall(SYS_set_mempolicy, -1, mask, 64), EINVAL);
    ERR("static and relative", syscall(SYS_set_mempolicy, MPOL_BIND | MPOL_F_STATIC_NODES | MPOL_F_RELATIVE_NODES, mask, 64), EINVAL);
    ERR("bad mask", syscall(SYS_set_mempolicy, MPOL_BIND, 8, 64), EFAULT);
    unsigned long far[16] = {2};
    ERR("a node that is not there", syscall(SYS_set_mempolicy, MPOL_BIND, far, 64), EINVAL);

    OK("bind memory", syscall(SYS_mbind, at, 2 * PAGE, MPOL_BIND, mask, 64, 0));
    OK("ask for it", syscall(SYS_get_mempolicy, &mode, NULL, 0, at, MPOL_F_ADDR));
    EQ("bound there", mode, MPOL_BIND);
    OK("ask beside it", syscall(SYS_get_mempolicy, &mode, NULL, 0, at + 2 * PAGE, MPOL_F_ADDR));
    EQ("not there", mode, MPOL_DEFAULT);
    ERR("odd address", syscall(SYS_mbind, at + 1, PAGE, MPOL_BIND, mask, 64, 0), EINVAL);
    ERR("unknown flags", syscall(SYS_mbind, at, PAGE, MPOL_BIND, mask, 64, 64), EINVAL);
    OK("no length", syscall(SYS_mbind, at, 0, MPOL_BIND, mask, 64, 0));
    ERR("no nodes", syscall(SYS_mbind, at, PAGE, MPOL_BIND, NULL, 0, 0), EINVAL);
    OK("back to the default", syscall(SYS_mbind, at, 2 * PAGE, MPOL_DEFAULT, NULL, 0, 0));
    munmap(at + 2 * PAGE, PAGE);
    ERR("over a hole", syscall(SYS_mbind, at, 4 * PAGE, MPOL_BIND, mask, 64, 0), EFAULT);

    void *pages[3] = {at, at + PAGE, at + 2 * PAGE};
    int where[3] = {9, 9, 9}, node[3] = {0, 0, 0};
    OK("where pages are", syscall(SYS_move_pages, 0, 3, pages, NULL, where, 0));
    EQ("present", where[0], 0);
    EQ("unmapped", where[2], -EFAULT);
    ERR("bad flags", syscall(SYS_move_pages, 0, 3, pages, NULL, where, 64), EINVAL);
    ERR("no process", syscall(SYS_move_pages, 999999, 3, pages, NULL, where, 0), ESRCH);
    ERR("bad list", syscall(SYS_move_pages, 0, 3, (void *)8, NULL, where, 0), EFAULT);
    ERR("bad answer", syscall(SYS_move_pages, 0, 3, pages, NULL, (void *)8, 0), EFAULT);
    OK("nothing", syscall(SYS_move_pages, 0, 0, NULL, NULL, NULL, 0));
    OK("to where they are", syscall(SYS_move_pages, 0, 1, pages, node, where, MPOL_MF_MOVE));
    EQ("they stay", where[0], 0);
    node[0] = 77;
    ERR("to no node", syscall(SYS_move_pages, 0, 1, pages, node, where, MPOL_MF_MOVE), ENODEV);
    mask[0] = 1;
    EQ("migrate", syscall(SYS_migrate_pages, 0, 64, mask, mask), 0);
    ERR("migrate nobody", syscall(SYS_migrate_pages, 999999, 64, mask, mask), ESRCH);
    ERR("migrate to nowhere", syscall(SYS_migrate_pages, 0, 64, mask, far), EINVAL);
    ERR("migrate with a bad mask", syscall(SYS_migrate_pages, 0, 64, 8, mask), EFAULT);
    ERR("home: odd", syscall(450, at + 1, PAGE, 0, 0), EINVAL);
    ERR("home: flags", syscall(450, at, PAGE, 0, 1), EINVAL);
    ERR("home: no node", syscall(450, at, PAGE, 99, 0), EINVAL);
    OK("home: no length", syscall(450, at, 0, 0, 0));
    ERR("home: no policy", syscall(450, at, PAGE, 0, 0), ENOENT);
    syscall(SYS_mbind, at, PAGE, MPOL_BIND, mask, 64, 0);
    OK("home", syscall(450, at, PAGE, 0, 0));
    syscall(SYS_mbind, at, PAGE, MPOL_INTERLEAVE, mask, 64, 0);
    ERR("home: other policy", syscall(450, at, PAGE, 0, 0), EOPNOTSUPP);
    munmap(at, 4 * PAGE);
}

static void cache(void) {
    struct { uint64_t offset, length; } range = {0, 4 * PAGE};
    uint64_t counts[5] = {9, 9, 9, 9, 9};
    int fd = open("/dev/shm", O_TMPFILE | O_RDWR, 0600);
    char page[PAGE] = {1};
    for (int i = 0; i < 4; i++)
        write(fd, page, PAGE);
    OK("cachestat", syscall(451, fd, &range, counts, 0));
    EQ("all of it", counts[0] + counts[3], 4);
    range.offset = 2 * PAGE, range.length = 0;
    OK("to the end", syscall(451, fd, &range, counts, 0));
    EQ("the rest", counts[0] + counts[3], 2);
    range.offset = 100 * PAGE;
    OK("past the end", syscall(451, fd, &range, counts, 0));
    EQ("nothing", counts[0], 0);
    ERR("flags", syscall(451, fd, &range, counts, 1), EINVAL);
    ERR("bad range", syscall(451, fd, 8, counts, 0), EFAULT);
    ERR("bad answer", syscall(451, fd, &range, 8, 0), EFAULT);
    ERR("bad descriptor", syscall(451, 99, &range, counts, 0), EBADF);
    close(fd);
}

static void filesystems(void) {
    char text[64] = {0};
    struct stat st;
    ERR("quota of a file", syscall(SYS_quotactl, 0x80000100, "a", 0, text), ENOTBLK);
    ERR("quota of nothing", syscall(SYS_quotactl, 0x80000100, "none", 0, text), ENOENT);
    ERR("unknown kind of quota", syscall(SYS_quotactl, 0x800001ff, "a", 0, text), EINVAL);
    ERR("bad name", syscall(SYS_quotactl, 0x80000100, 8, 0, text), EFAULT);
    ERR("quota by descriptor", syscall(443, 99, 0x80000100, 0, text), EBADF);
    ERR("ustat of no device", syscall(SYS_ustat, makedev(99, 99), text), EINVAL);
    stat("/", &st);
    OK("ustat", syscall(SYS_ustat, st.st_dev, text));
    ERR("ustat nowhere", syscall(SYS_ustat, st.st_dev, 8), EFAULT);
}

static void files(void) {
    YES("clear_refs", ({ int fd = open("/proc/self/clear_refs", O_WRONLY); int r = write(fd, "1", 1); close(fd); r; }) == 1);
    ERR("clear_refs of what", write(open("/proc/self/clear_refs", O_WRONLY), "9", 1), EINVAL);
    YES("numa_maps", strstr(TELL("/proc/self/numa_maps"), " default "));
    char *at = anonymous(1);
    *at = 1;
    YES("wchan", !strcmp(TELL("/proc/self/wchan"), "0"));
    YES("oom_adj", atoi(TELL("/proc/self/oom_adj")) == 0);
    YES("coredump_filter", strlen(TELL("/proc/self/coredump_filter")) == 9);
    YES("stack", open("/proc/self/stack", O_RDONLY) >= 0);
    YES("personality", !strcmp(TELL("/proc/self/personality"), "00000000\n"));
}

int main(void) {
    alarm(60);
    enter_directory();
    signal(SIGSEGV, fault);
    signal(SIGBUS, fault);
    put("a", "x");
    nonlinear();
    locks();
    nodes();
    cache();
    filesystems();
    files();
    return 0;
}
