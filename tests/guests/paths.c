/* Paths: opening in all its flags, names that come and go, permissions on the way. The same cases hold on every filesystem. */
#include "case.h"
#include <linux/fs.h>
#include <linux/openat2.h>
#include <grp.h>

static char buffer[1 << 16];

/* Runs something as an ordinary user and answers its error number, 0 for success. */
#define AS_USER(...)                                                  \
    ({                                                                \
        int status_;                                                  \
        CHILD(status_, {                                              \
            setgroups(0, 0);                                          \
            setresgid(1000, 1000, 1000);                              \
            setresuid(1000, 1000, 1000);                              \
            errno = 0;                                                \
            _exit((long)(__VA_ARGS__) == -1 ? errno : 0);             \
        });                                                           \
        WEXITSTATUS(status_);                                         \
    })

static int opens_how(const char *path, uint64_t flags, uint64_t mode, uint64_t resolve) {
    struct open_how how = {flags, mode, resolve};
    int fd = syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
    if (fd >= 0)
        close(fd);
    return fd < 0 ? -1 : 0;
}

static void opening(void) {
    put("f", "hello");
    mkdir("d", 0755);
    symlink("f", "lf");
    symlink("d", "ld");
    symlink("none", "lnone");
    symlink("f/", "lfs");
    symlink("d/", "lds");
    ERR("link to a file with a slash", open("lfs", O_RDONLY), ENOTDIR);
    OK("link to a directory with a slash", close(open("lds", O_RDONLY)));
    ERR("link with a slash to a file", open("lf/", O_RDONLY), ENOTDIR);
    OK("link with a slash to a directory", close(open("ld/", O_RDONLY)));
    OK("nofollow with a slash follows", close(open("ld/", O_RDONLY | O_NOFOLLOW)));
    ERR("nofollow of a link to a directory", open("ld", O_RDONLY | O_NOFOLLOW | O_DIRECTORY), ENOTDIR);
    ERR("nofollow create over a link", open("lf", O_CREAT | O_WRONLY | O_NOFOLLOW, 0644), ELOOP);
    ERR("exclusive over a link", open("lf", O_CREAT | O_EXCL | O_WRONLY, 0644), EEXIST);
    ERR("exclusive over a directory", open("d", O_CREAT | O_EXCL | O_WRONLY, 0644), EEXIST);
    ERR("exclusive with a slash", open("d/", O_CREAT | O_EXCL | O_WRONLY, 0644), EISDIR);
    ERR("create below a missing directory", open("none/x", O_CREAT | O_WRONLY, 0644), ENOENT);
    ERR("create below a file", open("f/x", O_CREAT | O_WRONLY, 0644), ENOTDIR);
    ERR("create over a directory", open("d", O_CREAT | O_WRONLY, 0644), EISDIR);
    ERR("create over a directory read-only", open("d", O_CREAT | O_RDONLY, 0644), EISDIR);
    ERR("create dot", open("d/.", O_CREAT | O_RDONLY, 0644), EISDIR);
    ERR("create dotdot", open("d/..", O_CREAT | O_WRONLY, 0644), EISDIR);
    ERR("create an existing file with a slash", open("f/", O_CREAT | O_WRONLY, 0644), EISDIR);
    ERR("create through a link with a slash", open("lf/", O_CREAT | O_WRONLY, 0644), EISDIR);
    ERR("create through a dangling link with a slash", open("lnone/", O_CREAT | O_WRONLY, 0644), EISDIR);
    ERR("truncate a directory", open("d", O_RDONLY | O_TRUNC), EISDIR);
    ERR("write a directory", open("d", O_RDWR), EISDIR);
    ERR("tmpfile without a directory", open("f", O_TMPFILE | O_RDWR, 0600), ENOTDIR);
    ERR("tmpfile missing", open("none", O_TMPFILE | O_RDWR, 0600), ENOENT);
    int fd = open("f", 3);
    YES("access mode 3 opens", fd >= 0);
    ERR("but does not read", read(fd, buffer, 1), EBADF);
    ERR("nor write", write(fd, buffer, 1), EBADF);
    close(fd);
    fd = open("f", O_RDONLY | O_TRUNC);
    EQ("truncation read-only", lseek(fd, 0, SEEK_END), 0);
    close(fd);
    put("f", "hello");
    fd = open("f", O_RDWR | O_SYNC | O_DSYNC | O_NONBLOCK | O_APPEND | O_NOATIME);
    EQ("flags kept", fcntl(fd, F_GETFL) & ~0100000, O_RDWR | O_SYNC | O_DSYNC | O_NONBLOCK | O_APPEND | O_NOATIME);
    EQ("flags changed", ({fcntl(fd, F_SETFL, 0); fcntl(fd, F_GETFL) & ~0100000; }), O_RDWR | O_SYNC | O_DSYNC);
    close(fd);
    fd = open("new", O_CREAT | O_RDONLY, 0644);
    YES("creation read-only", fd >= 0);
    ERR("its descriptor is read-only", write(fd, "x", 1), EBADF);
    close(fd);
    fd = open("unreadable", O_CREAT | O_RDWR | O_EXCL, 0);
    YES("creation without modes", fd >= 0);
    EQ("write to it", write(fd, "x", 1), 1);
    close(fd);
    struct stat st;
    fd = open("moded", O_CREAT | O_WRONLY, 07777);
    fstat(fd, &st);
    EQ("all modes", st.st_mode & 07777, 07755);
    close(fd);
    fd = open("d", O_RDONLY);
    EQ("openat", close(openat(fd, "../f", O_RDONLY)), 0);
    ERR("openat empty", openat(fd, "", O_RDONLY), ENOENT);
    int directory = openat(fd, ".", O_RDONLY | O_PATH);
    OK("openat from a path", close(openat(directory, "../f", O_RDONLY)));
    close(directory);
    close(fd);
    fd = open("f", O_PATH | O_RDWR | O_CREAT | O_EXCL | O_TRUNC | O_APPEND, 0600);
    YES("path ignores other flags", fd >= 0);
    EQ("flags of a path", fcntl(fd, F_GETFL), O_PATH);
    OK("stat of a path", fstat(fd, &st));
    EQ("was not truncated", st.st_size, 5);
    OK("dup of a path", close(dup(fd)));
    ERR("flock of a path", flock(fd, LOCK_SH), EBADF);
    ERR("getdents of a path", syscall(SYS_getdents64, fd, buffer, 100), EBADF);
    ERR("setfl of a path", fcntl(fd, F_SETFL, 0), EBADF);
    sprintf(buffer, "/proc/self/fd/%d", fd);
    OK("reopened through proc", close(open(buffer, O_RDWR)));
    OK("chmod through proc", chmod(buffer, 0640));
    close(fd);
    ERR("path missing", open("none", O_PATH), ENOENT);
    ERR("path directory of a file", open("f", O_PATH | O_DIRECTORY), ENOTDIR);
    ERR("dev fd closed", open("/proc/self/fd/77", O_RDONLY), ENOENT);
    OK("truncated through a link", close(open("lf", O_WRONLY | O_TRUNC)));
    ERR("creat missing", creat("none/none", 0644), ENOENT);
    OK("creat", close(creat("created", 0600)));
    ERR("too many links", ({
            char one[20], two[20];
            symlink("f", "chain0");
            for (int i = 1; i <= 41; i++) {
                sprintf(one, "chain%d", i - 1);
                sprintf(two, "chain%d", i);
                symlink(one, two);
            }
            open("chain40", O_RDONLY);
        }), ELOOP);
    OK("forty links", close(open("chain39", O_RDONLY)));
}

static void resolving(void) {
    mkdir("r", 0755);
    put("r/in", "x");
    symlink("in", "r/rel");
    symlink("/etc", "r/abs");
    symlink("..", "r/up");
    int fd = open("r", O_RDONLY | O_DIRECTORY);
#define HOW(path, flags, mode, resolve)                                             \
    ({                                                                              \
        struct open_how how_ = {flags, mode, resolve};                              \
        int fd_ = syscall(SYS_openat2, fd, path, &how_, sizeof how_);               \
        fd_ < 0 ? -1 : close(fd_);                                                  \
    })
    OK("beneath", HOW("rel", O_RDONLY, 0, RESOLVE_BENEATH));
    ERR("beneath absolute link", HOW("abs", O_RDONLY, 0, RESOLVE_BENEATH), EXDEV);
    ERR("beneath absolute", HOW("/etc", O_RDONLY, 0, RESOLVE_BENEATH), EXDEV);
    ERR("beneath up", HOW("up", O_RDONLY, 0, RESOLVE_BENEATH), EXDEV);
    ERR("beneath dotdot", HOW("..", O_RDONLY, 0, RESOLVE_BENEATH), EXDEV);
    OK("beneath in and out", HOW("../r/in", O_RDONLY, 0, 0));
    ERR("beneath out and in", HOW("../r/in", O_RDONLY, 0, RESOLVE_BENEATH), EXDEV);
    OK("beneath create", HOW("made", O_CREAT | O_RDWR, 0600, RESOLVE_BENEATH));
    OK("in root up", HOW("../../in", O_RDONLY, 0, RESOLVE_IN_ROOT));
    OK("in root absolute", HOW("/in", O_RDONLY, 0, RESOLVE_IN_ROOT));
    ERR("in root absolute link", HOW("abs", O_RDONLY, 0, RESOLVE_IN_ROOT), ENOENT);
    ERR("no links", HOW("rel", O_RDONLY, 0, RESOLVE_NO_SYMLINKS), ELOOP);
    OK("no links nofollow path", HOW("rel", O_PATH | O_NOFOLLOW, 0, RESOLVE_NO_SYMLINKS));
    ERR("no links on the way", HOW("up/r/in", O_RDONLY, 0, RESOLVE_NO_SYMLINKS), ELOOP);
    ERR("no magic links", HOW("/proc/self/exe", O_RDONLY, 0, RESOLVE_NO_MAGICLINKS), ELOOP);
    OK("no magic links leaves others", HOW("rel", O_RDONLY, 0, RESOLVE_NO_MAGICLINKS));
    ERR("no other mount", HOW("/proc", O_RDONLY, 0, RESOLVE_NO_XDEV), EXDEV);
    ERR("no other mount by magic", HOW("/proc/self/cwd", O_RDONLY, 0, RESOLVE_NO_XDEV), EXDEV);
    ERR("beneath and in root", HOW("in", O_RDONLY, 0, RESOLVE_BENEATH | RESOLVE_IN_ROOT), EINVAL);
    ERR("path with others", HOW("in", O_PATH | O_RDWR, 0, 0), EINVAL);
    ERR("mode beyond", HOW("in", O_CREAT | O_RDWR, 010000, 0), EINVAL);
    ERR("tmpfile without writing", HOW(".", O_TMPFILE, 0600, 0), EINVAL);
    OK("tmpfile", HOW(".", O_TMPFILE | O_RDWR, 0600, 0));
    ERR("cached create", HOW("in", O_CREAT | O_RDWR, 0600, RESOLVE_CACHED), EAGAIN);
    char larger[sizeof(struct open_how) + 8] = {0};
    OK("larger of zeroes", close(syscall(SYS_openat2, fd, "in", larger, sizeof larger)));
    larger[sizeof larger - 1] = 1;
    ERR("larger of others", syscall(SYS_openat2, fd, "in", larger, sizeof larger), E2BIG);
    ERR("bad pointer", syscall(SYS_openat2, fd, "in", 8, sizeof larger), EFAULT);
    close(fd);
}

static void names(void) {
    struct stat st, st2;
    put("n", "n");
    mkdir("nd", 0755);
    ERR("link to itself", link("n", "n"), EEXIST);
    ERR("link over a directory", link("n", "nd"), EEXIST);
    ERR("link into a missing directory", link("n", "none/n"), ENOENT);
    ERR("link below a file", link("n", "n/n"), ENOTDIR);
    ERR("link from below a file", link("n/x", "n9"), ENOTDIR);
    ERR("link with a slash", link("n", "n9/"), ENOENT);
    ERR("link empty", link("", "n9"), ENOENT);
    ERR("link to empty", link("n", ""), ENOENT);
    ERR("link across", link("/proc/self/status", "n9"), EXDEV);
    ERR("linkat of an open file", ({int fd = open("n", O_RDONLY); unlink("n"); int r = linkat(fd, "", AT_FDCWD, "n9", AT_EMPTY_PATH); int e = errno; close(fd); errno = e; r; }), ENOENT);
    put("n", "n");
    ERR("unlink empty", unlink(""), ENOENT);
    ERR("unlink dot", unlink("nd/."), EISDIR);
    ERR("unlink dotdot", unlink("nd/.."), EISDIR);
    ERR("unlink root", unlink("/"), EISDIR);
    ERR("unlink below a file", unlink("n/x"), ENOTDIR);
    ERR("unlink a directory with slash", unlink("nd/"), EISDIR);
    ERR("rmdir empty", rmdir(""), ENOENT);
    ERR("rmdir below a file", rmdir("n/x"), ENOTDIR);
    symlink("nd", "ndl");
    ERR("rmdir of a link", rmdir("ndl"), ENOTDIR);
    ERR("rmdir of a link with slash", rmdir("ndl/"), ENOTDIR);
    OK("unlink of a link", unlink("ndl"));
    ERR("rmdir of a mount", rmdir("/proc"), EBUSY);
    ERR("mkdir over a dangling link", ({symlink("nowhere", "dl"); mkdir("dl", 0755); }), EEXIST);
    ERR("mkdir over a dangling link with slash", mkdir("dl/", 0755), EEXIST);
    ERR("mkdir root", mkdir("/", 0755), EEXIST);
    ERR("mkdir dotdot", mkdir("nd/..", 0755), EEXIST);
    ERR("mkdir long", ({memset(buffer, 'x', 256); buffer[256] = 0; mkdir(buffer, 0755); }), ENAMETOOLONG);
    buffer[255] = 0;
    OK("mkdir longest", mkdir(buffer, 0755));
    rmdir(buffer);
    ERR("symlink over", symlink("x", "n"), EEXIST);
    ERR("symlink with slash", symlink("x", "sl/"), ENOENT);
    ERR("symlink to empty", symlink("x", ""), ENOENT);
    ERR("symlink long", ({char *long_ = malloc(5000); memset(long_, 'x', 4999); long_[4999] = 0; symlink(long_, "sll"); }), ENAMETOOLONG);
    OK("symlink of 4095", ({char *long_ = malloc(5000); memset(long_, 'x', 4095); long_[4095] = 0; symlink(long_, "sll"); }));
    EQ("its length", ({lstat("sll", &st); st.st_size; }), 4095);
    EQ("all of it", readlink("sll", buffer, sizeof buffer), 4095);
    ERR("following it", open("sll", O_RDONLY), ENAMETOOLONG);
    symlink("target", "sl2");
    ERR("readlink negative", syscall(SYS_readlink, "sl2", buffer, -1), EINVAL);
    ERR("readlink nowhere", syscall(SYS_readlink, "sl2", 8, 10), EFAULT);
    ERR("readlink of a directory", readlink("nd", buffer, 10), EINVAL);
    ERR("readlink below", readlink("n/x", buffer, 10), ENOTDIR);
    ERR("chmod of a dangling link", chmod("dl", 0644), ENOENT);
    mkdir("sticky", 01777);
    chmod("sticky", 01777);
    put("sticky/f", "");
    EQ("sticky unlink", AS_USER(unlink("sticky/f")), EPERM);
    EQ("sticky rename", AS_USER(rename("sticky/f", "sticky/g")), EPERM);
    EQ("sticky create", AS_USER(close(open("sticky/own", O_CREAT | O_RDWR, 0644))), 0);
    EQ("sticky own", AS_USER(unlink("sticky/own")), 0);
    mkdir("closed", 0700);
    put("closed/f", "");
    EQ("search denied", AS_USER(open("closed/f", O_RDONLY)), EACCES);
    EQ("stat denied", AS_USER(stat("closed/f", &st)), EACCES);
    EQ("unlink denied", AS_USER(unlink("closed/f")), EACCES);
    EQ("create denied", AS_USER(open("closed/g", O_CREAT | O_RDWR, 0644)), EACCES);
    EQ("mkdir denied", AS_USER(mkdir("nd/x", 0755)), EACCES);
    EQ("mkdir existing beats denied", AS_USER(mkdir("nd", 0755)), EEXIST);
    EQ("rename denied", AS_USER(rename("n", "n2")), EACCES);
    EQ("rmdir denied", AS_USER(rmdir("nd")), EACCES);
    EQ("missing beats denied", AS_USER(unlink("missing")), ENOENT);
    EQ("chdir denied", AS_USER(chdir("closed")), EACCES);
    EQ("chroot denied", AS_USER(chroot(".")), EPERM);
    EQ("mknod of a device denied", AS_USER(mknod("sticky/dev", S_IFCHR | 0600, 0x103)), EPERM);
    EQ("mknod of a fifo", AS_USER(mknod("sticky/fifo", S_IFIFO | 0600, 0)), 0);
    EQ("NOATIME denied", AS_USER(open("n", O_RDONLY | O_NOATIME)), EPERM);
    EQ("link to another's file", AS_USER(link("n", "sticky/n")), EPERM);
    mkdir("group", 0755);
    chown("group", 0, 1234);
    chmod("group", 02777);
    close(open("group/f", O_CREAT | O_RDWR, 0644));
    stat("group/f", &st);
    EQ("set-group-id directory", st.st_gid, 1234);
    mkdir("group/d", 0755);
    stat("group/d", &st);
    YES("hands on its bit", st.st_mode & S_ISGID);
    EQ("and its group", st.st_gid, 1234);
    EQ("set-group-id of another group", AS_USER(close(open("group/g", O_CREAT | O_RDWR, 02755))), 0);
    stat("group/g", &st);
    EQ("is dropped", st.st_mode & 07777, 0755);
}

static void renaming(void) {
    struct stat st, st2;
    mkdir("re", 0755);
    chdir("re");
    put("a", "a");
    put("b", "b");
    mkdir("d", 0755);
    mkdir("e", 0755);
    mkdir("d/sub", 0755);
    ERR("empty old", rename("", "x"), ENOENT);
    ERR("empty new", rename("a", ""), ENOENT);
    ERR("missing directory", rename("a", "none/x"), ENOENT);
    ERR("below a file", rename("a", "b/x"), ENOTDIR);
    ERR("file with a slash", rename("a/", "x"), ENOTDIR);
    ERR("file to a slash", rename("a", "x/"), ENOTDIR);
    ERR("file to a directory's slash", rename("a", "e/"), ENOTDIR);
    OK("directory to a slash", rename("e", "e2/"));
    OK("directory with a slash", rename("e2/", "e"));
    ERR("to dotdot", rename("e", "d/.."), EBUSY);
    OK("to itself", rename("a", "a"));
    OK("directory to itself", rename("e", "e"));
    ERR("into itself", rename("d", "d/x"), EINVAL);
    ERR("deep into itself", rename("d", "d/sub/x"), EINVAL);
    ERR("over its parent", rename("d/sub", "d"), ENOTEMPTY);
    OK("over an empty directory", rename("d/sub", "e"));
    mkdir("d/sub", 0755);
    ERR("over a full one", rename("e", "d"), ENOTEMPTY);
    stat("d", &st);
    EQ("links before", st.st_nlink, 3);
    rename("d/sub", "out");
    stat("d", &st);
    EQ("links after moving out", st.st_nlink, 2);
    rename("out", "d/sub");
    stat("d", &st);
    EQ("links after moving in", st.st_nlink, 3);
    ERR("across mounts", rename("a", "/proc/a"), EXDEV);
    ERR("a mount", rename("/proc", "/x"), EBUSY);
    ERR("noreplace over itself", syscall(SYS_renameat2, AT_FDCWD, "a", AT_FDCWD, "a", RENAME_NOREPLACE), EEXIST);
    OK("exchange with itself", syscall(SYS_renameat2, AT_FDCWD, "a", AT_FDCWD, "a", RENAME_EXCHANGE));
    ERR("exchange with a parent", syscall(SYS_renameat2, AT_FDCWD, "d/sub", AT_FDCWD, "d", RENAME_EXCHANGE), EINVAL);
    ERR("exchange with a child", syscall(SYS_renameat2, AT_FDCWD, "d", AT_FDCWD, "d/sub", RENAME_EXCHANGE), EINVAL);
    OK("exchange file and directory", syscall(SYS_renameat2, AT_FDCWD, "a", AT_FDCWD, "d/sub", RENAME_EXCHANGE));
    stat("d", &st);
    EQ("links after an exchange", st.st_nlink, 2);
    OK("and back", syscall(SYS_renameat2, AT_FDCWD, "a", AT_FDCWD, "d/sub", RENAME_EXCHANGE));
    ERR("noreplace and whiteout", syscall(SYS_renameat2, AT_FDCWD, "a", AT_FDCWD, "q", RENAME_EXCHANGE | RENAME_WHITEOUT), EINVAL);
    int fd = open("b", O_RDONLY);
    OK("over an open file", rename("a", "b"));
    EQ("the open one stays", read(fd, buffer, 10), 1);
    EQ("with its contents", buffer[0], 'b');
    fstat(fd, &st);
    EQ("and no name", st.st_nlink, 0);
    close(fd);
    symlink("b", "sb");
    OK("a link moves itself", rename("sb", "sb2"));
    lstat("sb2", &st);
    YES("as a link", S_ISLNK(st.st_mode));
    OK("over a link", rename("b", "sb2"));
    lstat("sb2", &st);
    YES("not through it", S_ISREG(st.st_mode));
    chdir("e");
    OK("a directory one stands in", rename("../e", "../e3"));
    getcwd(buffer, sizeof buffer);
    YES("getcwd follows", strstr(buffer, "/e3"));
    chdir("..");
    fd = open("e3", O_RDONLY);
    rmdir("e3");
    ERR("create in a removed directory", openat(fd, "x", O_CREAT | O_RDWR, 0644), ENOENT);
    ERR("mkdir in a removed directory", mkdirat(fd, "x", 0755), ENOENT);
    ERR("rename into a removed directory", renameat(AT_FDCWD, "sb2", fd, "x"), ENOENT);
    ERR("link into a removed directory", linkat(AT_FDCWD, "sb2", fd, "x", 0), ENOENT);
    ERR("symlink in a removed directory", symlinkat("x", fd, "x"), ENOENT);
    ERR("list a removed directory", syscall(SYS_getdents64, fd, buffer, 100), ENOENT);
    fstat(fd, &st);
    EQ("links of a removed directory", st.st_nlink, 0);
    close(fd);
    int old = open("d", O_RDONLY), new_ = open(".", O_RDONLY);
    OK("renameat", renameat(old, "sub", new_, "subnew"));
    ERR("renameat bad fd", renameat(99, "sub", new_, "subnew"), EBADF);
    close(old);
    close(new_);
    chdir("..");
}

static void modes(void) {
    struct stat st;
    put("m", "");
    OK("chmod", chmod("m", 07777));
    stat("m", &st);
    EQ("all bits", st.st_mode & 07777, 07777);
    ERR("fchmod bad", fchmod(-1, 0), EBADF);
    ERR("chmod empty", chmod("", 0), ENOENT);
    symlink("m", "lm");
    ERR("fchmodat2 of a link", syscall(452, AT_FDCWD, "lm", 0600, AT_SYMLINK_NOFOLLOW), EOPNOTSUPP);
    ERR("fchmodat2 flags", syscall(452, AT_FDCWD, "m", 0600, 1), EINVAL);
    OK("fchmodat2", syscall(452, AT_FDCWD, "m", 0640, 0));
    int fd = open("m", O_PATH);
    OK("fchmodat2 of a path", syscall(452, fd, "", 0644, AT_EMPTY_PATH));
    close(fd);
    EQ("chmod by others", AS_USER(chmod("m", 0666)), EPERM);
    EQ("chown by others", AS_USER(chown("m", 1000, 1000)), EPERM);
    EQ("utimes by others", AS_USER(utimensat(AT_FDCWD, "m", (struct timespec[2]){{1, 0}, {1, 0}}, 0)), EPERM);
    EQ("touch by others", AS_USER(utimensat(AT_FDCWD, "m", 0, 0)), EACCES);
    chmod("m", 0666);
    EQ("touch by writers", AS_USER(utimensat(AT_FDCWD, "m", 0, 0)), 0);
    EQ("touch partly by writers", AS_USER(utimensat(AT_FDCWD, "m", (struct timespec[2]){{0, UTIME_NOW}, {0, UTIME_OMIT}}, 0)), EPERM);
    chown("m", 1000, 1000);
    EQ("own chmod", AS_USER(chmod("m", 06755)), 0);
    EQ("own chown to the same", AS_USER(chown("m", 1000, 1000)), 0);
    stat("m", &st);
    EQ("which drops set-id bits", st.st_mode & 07777, 0755);
    EQ("giving away", AS_USER(chown("m", 0, -1)), EPERM);
    EQ("foreign group", AS_USER(chown("m", -1, 0)), EPERM);
    chown("m", 1000, 0);
    EQ("set-group-id of another group", AS_USER(chmod("m", 02755)), 0);
    stat("m", &st);
    EQ("is dropped", st.st_mode & 07777, 0755);
    chmod("m", 06755);
    OK("root's chown", chown("m", 0, 0));
    stat("m", &st);
    EQ("drops, too", st.st_mode & 07777, 0755);
    chmod("m", 02644);
    chown("m", 0, 0);
    stat("m", &st);
    EQ("but not the locking bit", st.st_mode & 07777, 02644);
    chmod("m", 0);
    EQ("root reads", close(open("m", O_RDWR)), 0);
    ERR("root does not execute", access("m", X_OK), EACCES);
    EQ("access by others", AS_USER(access("m", R_OK)), EACCES);
    EQ("existence", AS_USER(access("m", F_OK)), 0);
    ERR("access flags", syscall(SYS_faccessat2, AT_FDCWD, "m", 0, 1), EINVAL);
    ERR("access mode", access("m", 8), EINVAL);
    OK("access of a link", faccessat(AT_FDCWD, "lm", F_OK, AT_SYMLINK_NOFOLLOW));
    ERR("access below", access("m/x", F_OK), ENOTDIR);
    ERR("lchown missing", lchown("none", 0, 0), ENOENT);
    OK("lchown of a link", lchown("lm", 5, 6));
    lstat("lm", &st);
    YES("owner of the link", st.st_uid == 5 && st.st_gid == 6);
    stat("m", &st);
    EQ("not of the file", st.st_uid, 0);
    EQ("umask", ({umask(0777); umask(022); }), 0777);
}

static int stop;
static void *hold_(void *unused) { while (!stop) nap(5); return 0; }

static void executing(void) {
    int fd = open("/proc/self/exe", O_RDONLY);
    int copy = open("prog", O_CREAT | O_RDWR, 0755);
    long count;
    while ((count = read(fd, buffer, sizeof buffer)) > 0)
        write(copy, buffer, count);
    close(fd);
    int status;
    CHILD(status, {char *argv[] = {"prog", "wait", 0}; execv("prog", argv); _exit(errno); });
    EQ("exec of a file open for writing", WEXITSTATUS(status), ETXTBSY);
    close(copy);
    fflush(stdout);
    int pipes[2];
    pipe(pipes);
    pid_t pid = fork();
    if (!pid) {
        dup2(pipes[1], 1);
        char *argv[] = {"prog", "wait", 0};
        execv("prog", argv);
        _exit(errno);
    }
    read(pipes[0], buffer, 1);
    ERR("write to a running program", open("prog", O_WRONLY), ETXTBSY);
    ERR("truncate a running program", truncate("prog", 0), ETXTBSY);
    OK("read a running program", close(open("prog", O_RDONLY)));
    OK("chmod of a running program", chmod("prog", 0755));
    OK("rename of a running program", rename("prog", "prog2"));
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    OK("write to it afterwards", close(open("prog2", O_WRONLY)));
    close(pipes[0]);
    close(pipes[1]);
    put("script", "#!/bin/sh\nexit $#\n");
    CHILD(status, {char *argv[] = {"script", 0}; execv("./script", argv); _exit(errno + 100); });
    EQ("exec without permission", WEXITSTATUS(status), EACCES + 100);
    chmod("script", 0755);
    CHILD(status, {char *argv[] = {"script", "a", "b", 0}; execv("./script", argv); _exit(errno + 100); });
    EQ("script", WEXITSTATUS(status), 2);
    int open_ = open("script", O_WRONLY);
    CHILD(status, {char *argv[] = {"script", "a", "b", 0}; execv("./script", argv); _exit(errno + 100); });
    EQ("script open for writing", WEXITSTATUS(status), ETXTBSY + 100);
    close(open_);
    put("empty", "");
    chmod("empty", 0755);
    CHILD(status, {char *argv[] = {"x", 0}; execv("./empty", argv); _exit(errno + 100); });
    EQ("exec of an empty file", WEXITSTATUS(status), ENOEXEC + 100);
    put("text", "no program\n");
    chmod("text", 0755);
    CHILD(status, {char *argv[] = {"x", 0}; execv("./text", argv); _exit(errno + 100); });
    EQ("exec of text", WEXITSTATUS(status), ENOEXEC + 100);
    put("noint", "#!/none/none\n");
    chmod("noint", 0755);
    CHILD(status, {char *argv[] = {"x", 0}; execv("./noint", argv); _exit(errno + 100); });
    EQ("missing interpreter", WEXITSTATUS(status), ENOENT + 100);
    put("emptyint", "#!   \n");
    chmod("emptyint", 0755);
    CHILD(status, {char *argv[] = {"x", 0}; execv("./emptyint", argv); _exit(errno + 100); });
    EQ("empty interpreter", WEXITSTATUS(status), ENOEXEC + 100);
    put("argint", "#! /bin/sh  -c  exit\\ 7 \n");
    chmod("argint", 0755);
    put("one", "#!./two\n");
    put("two", "#!./three\n");
    put("three", "#!./four\n");
    put("four", "#!./five\n");
    put("five", "#!./six\n");
    put("six", "#!/bin/true\n");
    chmod("one", 0755), chmod("two", 0755), chmod("three", 0755), chmod("four", 0755), chmod("five", 0755), chmod("six", 0755);
    CHILD(status, {char *argv[] = {"x", 0}; execv("./three", argv); _exit(errno + 100); });
    EQ("four interpreters", WEXITSTATUS(status), 0);
    CHILD(status, {char *argv[] = {"x", 0}; execv("./one", argv); _exit(errno + 100); });
    EQ("six interpreters", WEXITSTATUS(status), ELOOP + 100);
    CHILD(status, {char *argv[] = {"x", 0}; execv(".", argv); _exit(errno + 100); });
    EQ("exec of a directory", WEXITSTATUS(status), EACCES + 100);
    CHILD(status, {char *argv[] = {"x", 0}; execv("script/x", argv); _exit(errno + 100); });
    EQ("exec below a file", WEXITSTATUS(status), ENOTDIR + 100);
    int path = open("script", O_PATH);
    CHILD(status, {char *argv[] = {"x", 0}; syscall(SYS_execveat, path, "", argv, 0, AT_EMPTY_PATH); _exit(errno + 100); });
    EQ("execveat of a path", WEXITSTATUS(status), 0);
    fcntl(path, F_SETFD, FD_CLOEXEC);
    CHILD(status, {char *argv[] = {"x", 0}; syscall(SYS_execveat, path, "", argv, 0, AT_EMPTY_PATH); _exit(errno + 100); });
    EQ("execveat of a script that closes", WEXITSTATUS(status), ENOENT + 100);
    symlink("script", "scriptlink");
    CHILD(status, {char *argv[] = {"x", 0}; syscall(SYS_execveat, AT_FDCWD, "scriptlink", argv, 0, AT_SYMLINK_NOFOLLOW); _exit(errno + 100); });
    EQ("execveat nofollow", WEXITSTATUS(status), ELOOP + 100);
    CHILD(status, {char *argv[] = {"x", 0}; syscall(SYS_execveat, AT_FDCWD, "script", argv, 0, 1); _exit(errno + 100); });
    EQ("execveat flags", WEXITSTATUS(status), EINVAL + 100);
    close(path);
}

static void descriptors(void) {
    int fd = open("f", O_RDONLY);
    struct stat st;
    EQ("DUPFD_QUERY same", ({int d = dup(fd); int r = fcntl(fd, 1027, d); close(d); r; }), 1);
    EQ("DUPFD_QUERY other", ({int d = open("f", O_RDONLY); int r = fcntl(fd, 1027, d); close(d); r; }), 0);
    EQ("CREATED_QUERY", fcntl(fd, 1028), 0);
    int made = open("crq", O_CREAT | O_RDWR, 0600);
    EQ("CREATED_QUERY of a new file", fcntl(made, 1028), 1);
    close(made);
    ERR("fcntl unknown", fcntl(fd, 9999, 0), EINVAL);
    EQ("GETFD", fcntl(fd, F_GETFD), 0);
    EQ("cloexec kept apart", ({fcntl(fd, F_SETFD, FD_CLOEXEC); int d = dup(fd); int r = fcntl(d, F_GETFD); close(d); r; }), 0);
    ERR("SETSIG too large", fcntl(fd, F_SETSIG, 65), EINVAL);
    EQ("GETSIG", fcntl(fd, F_GETSIG), 0);
    uint64_t hint = 99;
    OK("GET_RW_HINT", fcntl(fd, F_GET_RW_HINT, &hint));
    EQ("no hint", hint, 0);
    ERR("DUPFD too large", fcntl(fd, F_DUPFD, 1 << 30), EINVAL);
    ERR("pipe size of a file", fcntl(fd, F_GETPIPE_SZ), EBADF);
    int value;
    OK("FIONREAD", ioctl(fd, FIONREAD, &value));
    ERR("unknown ioctl", ioctl(fd, 0x12345678, &value), ENOTTY);
    ERR("TCGETS of a file", ioctl(fd, TCGETS, buffer), ENOTTY);
    close(fd);
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "wait")) {
        write(1, "x", 1);
        pause();
    }
    enter_directory();
    /* Other users come in, too. */
    chmod(".", 0755);
    opening();
    resolving();
    names();
    renaming();
    modes();
    executing();
    descriptors();
    return 0;
}
