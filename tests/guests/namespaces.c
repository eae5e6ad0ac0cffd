/* Mounts and namespaces: mount(2) in all its forms, pivot_root, chroot, user namespaces and their maps, setns. */
#include "case.h"
#include <sys/statvfs.h>
#include <grp.h>
#include <linux/mount.h>

static char buffer[1 << 16];

#define FORKED(...)                                                   \
    ({                                                                \
        int status_;                                                  \
        CHILD(status_, {                                              \
            errno = 0;                                                \
            _exit((long)(__VA_ARGS__) == -1 ? errno : 0);             \
        });                                                           \
        WIFEXITED(status_) ? WEXITSTATUS(status_) : 1000 + status_;   \
    })

static int write_file(const char *name, const char *text) {
    int fd = open(name, O_WRONLY);
    if (fd < 0)
        return -1;
    int result = write(fd, text, strlen(text)) < 0 ? -1 : 0, number = errno;
    close(fd);
    errno = number;
    return result;
}

static const char *read_file(const char *name) {
    int fd = open(name, O_RDONLY);
    long count = read(fd, buffer, sizeof buffer - 1);
    close(fd);
    buffer[count < 0 ? 0 : count] = 0;
    return buffer;
}

static long inode(const char *name) {
    struct stat st;
    return stat(name, &st) ? -1 : (long)st.st_ino;
}

/* How often a text stands in the list of mounts. */
static int mounted(const char *what) {
    int count = 0;
    for (const char *at = read_file("/proc/self/mountinfo"); (at = strstr(at, what)); at += strlen(what))
        count++;
    return count;
}

static void mounting(void) {
    mkdir("m", 0755);
    mkdir("n", 0755);
    put("file", "x");
    OK("mount tmpfs", mount("source", "m", "tmpfs", 0, "size=1m,mode=700"));
    struct stat st;
    stat("m", &st);
    EQ("mode of its root", st.st_mode & 07777, 0700);
    put("m/inside", "y");
    ERR("umount missing", umount("none"), ENOENT);
    ERR("umount of no mount", umount("n"), EINVAL);
    ERR("umount strange flags", umount2("m", 0x100), EINVAL);
    ERR("umount empty", umount(""), ENOENT);
    int fd = open("m/inside", O_RDONLY);
    ERR("umount in use", umount("m"), EBUSY);
    close(fd);
    fd = open("m", O_RDONLY);
    ERR("umount with its root open", umount("m"), EBUSY);
    close(fd);
    ERR("expire with detach", umount2("m", MNT_EXPIRE | MNT_DETACH), EINVAL);
    ERR("expire once", umount2("m", MNT_EXPIRE), EAGAIN);
    OK("expire twice", umount2("m", MNT_EXPIRE));
    YES("is gone", access("m/inside", F_OK) == -1);
    ERR("unknown type", mount("source", "m", "nosuchfs", 0, 0), ENODEV);
    ERR("no type", mount("source", "m", 0, 0, 0), EINVAL);
    ERR("bad type", mount("source", "m", (void *)8, 0, 0), EFAULT);
    ERR("bad target", mount("source", (void *)8, "tmpfs", 0, 0), EFAULT);
    ERR("missing target", mount("source", "none", "tmpfs", 0, 0), ENOENT);
    ERR("target is a file", mount("source", "file", "tmpfs", 0, 0), ENOTDIR);
    ERR("bad option", mount("source", "m", "tmpfs", 0, "nonsense=1"), EINVAL);
    ERR("bad size", mount("source", "m", "tmpfs", 0, "size=much"), EINVAL);
    OK("read-only", mount("source", "m", "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, 0));
    ERR("create on it", open("m/x", O_CREAT | O_RDWR, 0644), EROFS);
    ERR("mkdir on it", mkdir("m/x", 0755), EROFS);
    ERR("chmod on it", chmod("m", 0755), EROFS);
    ERR("write access to it", access("m", W_OK), EROFS);
    struct statfs sf;
    statfs("m", &sf);
    EQ("flags of statfs", sf.f_flags & 0xf, 0xf);
    OK("remount writable", mount(0, "m", 0, MS_REMOUNT, 0));
    OK("create on it then", close(open("m/x", O_CREAT | O_RDWR, 0644)));
    ERR("remount of no mount", mount(0, "n", 0, MS_REMOUNT, 0), EINVAL);
    OK("a mount over a mount", mount("source", "m", "tmpfs", 0, 0));
    YES("covers", access("m/x", F_OK) == -1);
    OK("umount the upper", umount("m"));
    OK("uncovers", access("m/x", F_OK));
    ERR("umount without privilege", ({FORKED(setresuid(1000, 1000, 1000) ? 0 : umount("m")) == EPERM ? (errno = EPERM, -1) : 0; }), EPERM);
    EQ("mount without privilege", FORKED(setresuid(1000, 1000, 1000) ? 0 : mount("source", "m", "tmpfs", 0, 0)), EPERM);
    chdir("m");
    OK("detach the place one stands in", umount2(".", MNT_DETACH));
    OK("which stays usable", close(open("y", O_CREAT | O_RDWR, 0644)));
    chdir("/");
    ERR("umount2 nofollow of a link", ({symlink("m", "/tmp/ml"); int r = umount2("/tmp/ml", 8); int e = errno; unlink("/tmp/ml"); errno = e; r; }), EINVAL);
}

static void binding(void) {
    mkdir("from", 0755);
    mkdir("to", 0755);
    put("from/f", "from");
    put("single", "s");
    put("target", "");
    ERR("bind missing", mount("none", "to", 0, MS_BIND, 0), ENOENT);
    ERR("bind without source", mount(0, "to", 0, MS_BIND, 0), EINVAL);
    ERR("bind a file over a directory", mount("single", "to", 0, MS_BIND, 0), ENOTDIR);
    ERR("bind a directory over a file", mount("from", "target", 0, MS_BIND, 0), ENOTDIR);
    OK("bind", mount("from", "to", 0, MS_BIND, 0));
    OK("shows", access("to/f", F_OK));
    EQ("same inode", inode("to/f"), inode("from/f"));
    put("to/g", "");
    OK("both ways", access("from/g", F_OK));
    ERR("link across", link("to/f", "from/h"), EXDEV);
    ERR("rename across", rename("to/f", "from/h"), EXDEV);
    ERR("remove what is covered", rmdir("to"), EBUSY);
    OK("remount the bind read-only", mount(0, "to", 0, MS_REMOUNT | MS_BIND | MS_RDONLY, 0));
    ERR("write through it", open("to/h", O_CREAT | O_RDWR, 0644), EROFS);
    OK("write beside it", close(open("from/h", O_CREAT | O_RDWR, 0644)));
    OK("umount it", umount("to"));
    OK("bind a file", mount("single", "target", 0, MS_BIND, 0));
    EQ("shows the file", read_file("target")[0], 's');
    ERR("remove a covered file", unlink("target"), EBUSY);
    ERR("rename a covered file", rename("target", "other"), EBUSY);
    OK("umount the file", umount("target"));
    mkdir("from/sub", 0755);
    mount("inner", "from/sub", "tmpfs", 0, 0);
    put("from/sub/deep", "");
    OK("bind flat", mount("from", "to", 0, MS_BIND, 0));
    YES("without what is below", access("to/sub/deep", F_OK) == -1);
    umount("to");
    OK("bind recursively", mount("from", "to", 0, MS_BIND | MS_REC, 0));
    OK("with what is below", access("to/sub/deep", F_OK));
    ERR("umount with something below", umount("to"), EBUSY);
    OK("detach with something below", umount2("to", MNT_DETACH));
    OK("the original stays", access("from/sub/deep", F_OK));
    mkdir("moved", 0755);
    OK("move", mount("from/sub", "moved", 0, MS_MOVE, 0));
    OK("is there", access("moved/deep", F_OK));
    YES("and not here", access("from/sub/deep", F_OK) == -1);
    ERR("move no mount", mount("from", "to", 0, MS_MOVE, 0), EINVAL);
    ERR("move into itself", ({mkdir("moved/in", 0755); mount("moved", "moved/in", 0, MS_MOVE, 0); }), ELOOP);
    OK("unbindable", mount(0, "moved", 0, MS_UNBINDABLE, 0));
    ERR("bind it", mount("moved", "to", 0, MS_BIND, 0), EINVAL);
    OK("private again", mount(0, "moved", 0, MS_PRIVATE, 0));
    ERR("two propagations", mount(0, "moved", 0, MS_PRIVATE | MS_SHARED, 0), EINVAL);
    ERR("propagation of no mount", mount(0, "to", 0, MS_PRIVATE, 0), EINVAL);
    OK("umount the moved", umount("moved"));
    int fd = open("from/f", O_RDONLY);
    sprintf(buffer, "/proc/self/fd/%d", fd);
    OK("bind an open file", mount(buffer, "target", 0, MS_BIND, 0));
    EQ("shows it", read_file("target")[0], 'f');
    close(fd);
    umount("target");
    put("gone", "g");
    mount("gone", "target", 0, MS_BIND, 0);
    OK("remove the source of a bind", unlink("gone"));
    EQ("which stays", read_file("target")[0], 'g');
    umount("target");
}

static void propagating(void) {
    mkdir("p", 0755);
    mkdir("q", 0755);
    mkdir("s", 0755);
    mount("top", "p", "tmpfs", 0, 0);
    mkdir("p/d", 0755);
    OK("shared", mount(0, "p", 0, MS_SHARED, 0));
    YES("is listed so", strstr(read_file("/proc/self/mountinfo"), "shared:"));
    mount("p", "q", 0, MS_BIND, 0);
    mount("p", "s", 0, MS_BIND, 0);
    OK("slave", mount(0, "s", 0, MS_SLAVE, 0));
    YES("is listed so, too", strstr(read_file("/proc/self/mountinfo"), "master:"));
    mount("low", "p/d", "tmpfs", 0, 0);
    put("p/d/x", "");
    OK("reaches a peer", access("q/d/x", F_OK));
    OK("reaches a slave", access("s/d/x", F_OK));
    umount("q/d");
    YES("leaves the original from a peer", access("p/d/x", F_OK) == -1);
    YES("leaves the slave", access("s/d/x", F_OK) == -1);
    mount("low", "s/d", "tmpfs", 0, 0);
    put("s/d/y", "");
    YES("nothing comes back from a slave", access("p/d/y", F_OK) == -1);
    umount("s/d");
    mount(0, "q", 0, MS_PRIVATE, 0);
    mount("low", "p/d", "tmpfs", 0, 0);
    put("p/d/z", "");
    YES("nothing reaches a private mount", access("q/d/z", F_OK) == -1);
    int status;
    CHILD(status, {
        if (unshare(CLONE_NEWNS))
            _exit(1);
        umount2("p/d", MNT_DETACH);
        _exit(access("p/d/z", F_OK) == 0);
    });
    EQ("unmounted in another namespace", status, 0);
    YES("goes here, too, when shared", access("p/d/z", F_OK) == -1);
    mount("low", "p/d", "tmpfs", 0, 0);
    put("p/d/z", "");
    CHILD(status, {
        if (unshare(CLONE_NEWNS) || mount(0, "/", 0, MS_PRIVATE | MS_REC, 0))
            _exit(1);
        umount2("p/d", MNT_DETACH);
        _exit(access("p/d/z", F_OK) == 0);
    });
    EQ("unmounted privately in another namespace", status, 0);
    OK("stays here", access("p/d/z", F_OK));
    umount2("p", MNT_DETACH);
    umount2("q", MNT_DETACH);
    umount2("s", MNT_DETACH);
}

static void roots(void) {
    mkdir("root", 0755);
    mkdir("root/old", 0755);
    int status;
    EQ("pivot to no mount", FORKED(unshare(CLONE_NEWNS) || mount(0, "/", 0, MS_PRIVATE | MS_REC, 0) ? 0 : syscall(SYS_pivot_root, "root", "root/old")), EBUSY);
    EQ("pivot without privilege", FORKED(setresuid(1000, 1000, 1000) ? 0 : syscall(SYS_pivot_root, "root", "root/old")), EPERM);
    EQ("pivot missing", FORKED(unshare(CLONE_NEWNS) ? 0 : syscall(SYS_pivot_root, "none", "root/old")), ENOENT);
    EQ("pivot a file", FORKED(unshare(CLONE_NEWNS) ? 0 : syscall(SYS_pivot_root, "file", "root/old")), ENOTDIR);
    EQ("pivot onto itself", FORKED(unshare(CLONE_NEWNS) || mount(0, "/", 0, MS_PRIVATE | MS_REC, 0) ? 0 : syscall(SYS_pivot_root, "/", "/")), EBUSY);
    CHILD(status, {
        if (unshare(CLONE_NEWNS) || mount(0, "/", 0, MS_PRIVATE | MS_REC, 0) || mount("new", "root", "tmpfs", 0, 0))
            _exit(1);
        mkdir("root/old", 0755);
        put("root/mark", "m");
        if (syscall(SYS_pivot_root, "root", "root/old"))
            _exit(2);
        chdir("/");
        if (access("/mark", F_OK) || access("/old/proc", F_OK))
            _exit(3);
        if (umount2("/old", MNT_DETACH))
            _exit(4);
        _exit(access("/old/proc", F_OK) == 0 ? 5 : 0);
    });
    EQ("pivot", status, 0);
    CHILD(status, {
        if (unshare(CLONE_NEWNS) || mount(0, "/", 0, MS_PRIVATE | MS_REC, 0) || mount("new", "root", "tmpfs", 0, 0))
            _exit(1);
        int old = open("/", O_RDONLY);
        put("root/mark", "m");
        chdir("root");
        if (syscall(SYS_pivot_root, ".", "."))
            _exit(2);
        fchdir(old);
        if (umount2(".", MNT_DETACH))
            _exit(3);
        chdir("/");
        _exit(access("/mark", F_OK) ? 4 : 0);
    });
    EQ("pivot onto the same place", status, 0);
    CHILD(status, {
        mkdir("jail", 0755);
        mkdir("jail/in", 0755);
        if (chroot("jail"))
            _exit(1);
        chdir("/");
        struct stat here, up;
        stat("/", &here);
        stat("../../..", &up);
        if (here.st_ino != up.st_ino)
            _exit(2);
        getcwd(buffer, sizeof buffer);
        _exit(strcmp(buffer, "/") ? 3 : 0);
    });
    EQ("chroot", status, 0);
    CHILD(status, {
        int out = open("/", O_RDONLY);
        if (chroot("jail") || fchdir(out))
            _exit(1);
        /* Standing outside, one is outside: what escapes by a descriptor is Linux's own rule. */
        syscall(SYS_getcwd, buffer, sizeof buffer);
        _exit(access("proc/self", F_OK) ? 2 : buffer[0] == '(' || !strcmp(buffer, "/") ? 0 : 3);
    });
    EQ("chroot with a descriptor outside", status, 0);
    EQ("chroot to a file", FORKED(chroot("file")), ENOTDIR);
    EQ("chroot missing", FORKED(chroot("none")), ENOENT);
}

static void users(void) {
    int status;
    CHILD(status, {
        setgroups(0, 0);
        setresgid(1000, 1000, 1000);
        setresuid(1000, 1000, 1000);
        prctl(PR_SET_DUMPABLE, 1);
        if (unshare(CLONE_NEWUSER))
            _exit(1);
        if (getuid() != 65534 || getgid() != 65534)
            _exit(2);
        if (read_file("/proc/self/uid_map")[0])
            _exit(3);
        if (!write_file("/proc/self/gid_map", "0 1000 1\n") || errno != EPERM)
            _exit(4);
        if (write_file("/proc/self/setgroups", "deny"))
            _exit(5);
        if (write_file("/proc/self/gid_map", "0 1000 1\n"))
            _exit(6);
        if (!write_file("/proc/self/uid_map", "0 1000 2\n") || errno != EPERM)
            _exit(7);
        if (!write_file("/proc/self/uid_map", "0 0 1\n") || errno != EPERM)
            _exit(8);
        if (!write_file("/proc/self/uid_map", "nonsense") || errno != EINVAL)
            _exit(9);
        if (write_file("/proc/self/uid_map", "0 1000 1"))
            _exit(10);
        if (!write_file("/proc/self/uid_map", "0 1000 1") || errno != EPERM)
            _exit(11);
        if (getuid() != 0 || getgid() != 0 || geteuid() != 0)
            _exit(12);
        if (!setgroups(0, 0) || errno != EPERM)
            _exit(13);
        if (!setuid(1000) || errno != EINVAL)
            _exit(14);
        struct stat st;
        stat("/", &st);
        if (st.st_uid != 65534)
            _exit(15);
        if (!mount("x", "/tmp", "tmpfs", 0, 0) || errno != EPERM)
            _exit(16);
        if (!chown("file", 0, 0))
            _exit(17);
        if (!sethostname("x", 1) || errno != EPERM)
            _exit(18);
        if (unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET))
            _exit(19);
        if (mount("x", "/tmp", "tmpfs", 0, 0))
            _exit(20);
        put("/tmp/own", "");
        stat("/tmp/own", &st);
        if (st.st_uid || st.st_gid)
            _exit(21);
        if (sethostname("inner", 5))
            _exit(22);
        if (!mknod("/tmp/dev", S_IFCHR | 0600, 0x103) || errno != EPERM)
            _exit(23);
        if (!umount("/proc") || errno != EINVAL)
            _exit(24);
    });
    EQ("a user's own namespace", WIFEXITED(status) ? WEXITSTATUS(status) : 1000, 0);
    gethostname(buffer, 100);
    YES("its host name is not ours", strcmp(buffer, "inner"));
    YES("nor are its mounts", access("/tmp/own", F_OK) == -1);
    CHILD(status, {
        if (unshare(CLONE_NEWUSER) || write_file("/proc/self/uid_map", "0 1000 10\n10 0 1") || write_file("/proc/self/gid_map", "0 0 100"))
            _exit(1);
        if (getuid() != 10)
            _exit(2);
        if (setuid(3) || getuid() != 3)
            _exit(3);
        if (!strstr(read_file("/proc/self/uid_map"), "1000"))
            _exit(4);
    });
    EQ("a map of several lines needs privilege", status, 0x100);
    int pipes[2];
    pipe(pipes);
    pid_t pid = fork();
    if (!pid) {
        unshare(CLONE_NEWUSER);
        write(pipes[1], "x", 1);
        while (getuid() == 65534)
            nap(2);
        if (getuid() != 10 || setuid(3) || getuid() != 3 || geteuid() != 3)
            _exit(1);
        close(open("made-by-3", O_CREAT | O_RDWR, 0644));
        _exit(0);
    }
    read(pipes[0], buffer, 1);
    sprintf(buffer, "/proc/%d/gid_map", pid);
    OK("a group map from outside", write_file(buffer, "0 0 100"));
    sprintf(buffer, "/proc/%d/uid_map", pid);
    chmod(".", 0777);
    OK("a user map from outside", write_file(buffer, "0 1000 10\n10 0 1"));
    waitpid(pid, &status, 0);
    EQ("numbers inside", status, 0);
    struct stat st;
    stat("made-by-3", &st);
    EQ("numbers outside", st.st_uid, 1003);
    CHILD(status, {
        long outside = inode("/proc/self/ns/user");
        int fd = open("/proc/self/ns/uts", O_RDONLY);
        unshare(CLONE_NEWUSER | CLONE_NEWUTS);
        if (inode("/proc/self/ns/user") == outside)
            _exit(1);
        if (!setns(fd, CLONE_NEWUTS) || errno != EPERM)
            _exit(2);
    });
    EQ("no way back up", status, 0);
    CHILD(status, {
        int before = open("/proc/self/ns/uts", O_RDONLY);
        if (unshare(CLONE_NEWUTS) || sethostname("other", 5))
            _exit(1);
        if (!setns(before, CLONE_NEWNET) || errno != EINVAL)
            _exit(2);
        if (setns(before, 0))
            _exit(3);
        gethostname(buffer, 100);
        if (!strcmp(buffer, "other"))
            _exit(4);
        if (!setns(0, 0) || errno != EINVAL)
            _exit(5);
        if (!setns(-1, 0) || errno != EBADF)
            _exit(6);
        int mounts = open("/proc/self/ns/mnt", O_RDONLY);
        if (unshare(CLONE_NEWNS) || mount(0, "/", 0, MS_PRIVATE | MS_REC, 0) || mount("x", "/mnt", "tmpfs", 0, 0))
            _exit(7);
        put("/mnt/seen", "");
        if (setns(mounts, CLONE_NEWNS) || access("/mnt/seen", F_OK) == 0)
            _exit(8);
        if (ioctl(before, 0xb703, 0) != CLONE_NEWUTS)
            _exit(9);
    });
    EQ("setns", WIFEXITED(status) ? WEXITSTATUS(status) : 1000, 0);
    CHILD(status, {
        if (unshare(CLONE_NEWIPC))
            _exit(1);
        if (syscall(SYS_shmget, 0x1234567, 4096, 01000 | 02000 | 0600) < 0)
            _exit(2);
    });
    EQ("IPC of its own", status, 0);
    ERR("is not ours", syscall(SYS_shmget, 0x1234567, 4096, 0), ENOENT);
    EQ("unshare unknown", FORKED(unshare(1)), EINVAL);
    EQ("unshare mounts without privilege", FORKED(setresuid(1000, 1000, 1000) ? 0 : unshare(CLONE_NEWNS)), EPERM);
    EQ("user namespace of a thread", FORKED(syscall(SYS_clone, CLONE_THREAD | CLONE_SIGHAND | CLONE_VM | CLONE_NEWUSER, 0, 0, 0, 0)), EINVAL);
    EQ("user namespace with shared files", FORKED(syscall(SYS_clone, CLONE_FS | CLONE_NEWUSER, 0, 0, 0, 0)), EINVAL);
}

static void by_descriptor(void) {
    mkdir("api", 0755);
    int context = syscall(SYS_fsopen, "tmpfs", 1);
    YES("fsopen", context >= 0);
    ERR("fsopen unknown", syscall(SYS_fsopen, "nosuchfs", 0), ENODEV);
    ERR("fsopen flags", syscall(SYS_fsopen, "tmpfs", 2), EINVAL);
    OK("a string", syscall(SYS_fsconfig, context, 1, "size", "1m", 0));
    ERR("a string without value", syscall(SYS_fsconfig, context, 1, "size", 0, 0), EINVAL);
    ERR("an unknown command", syscall(SYS_fsconfig, context, 99, 0, 0, 0), EOPNOTSUPP);
    ERR("mount before it is made", syscall(SYS_fsmount, context, 0, 0), EINVAL);
    OK("make it", syscall(SYS_fsconfig, context, 6, 0, 0, 0));
    int tree = syscall(SYS_fsmount, context, 1, MOUNT_ATTR_NOEXEC);
    YES("fsmount", tree >= 0);
    int fd = openat(tree, "early", O_CREAT | O_RDWR, 0644);
    YES("usable before it is attached", fd >= 0);
    close(fd);
    OK("move_mount", syscall(SYS_move_mount, tree, "", AT_FDCWD, "api", 4));
    OK("attached", access("api/early", F_OK));
    struct { uint64_t set, clear, propagation, user; } attributes = {MOUNT_ATTR_RDONLY, 0, 0, 0};
    OK("mount_setattr", syscall(SYS_mount_setattr, AT_FDCWD, "api", 0, &attributes, sizeof attributes));
    ERR("is read-only", mkdir("api/x", 0755), EROFS);
    attributes.set = 1 << 30;
    ERR("mount_setattr unknown", syscall(SYS_mount_setattr, AT_FDCWD, "api", 0, &attributes, sizeof attributes), EINVAL);
    ERR("mount_setattr short", syscall(SYS_mount_setattr, AT_FDCWD, "api", 0, &attributes, 8), EINVAL);
    attributes.set = 0;
    attributes.clear = MOUNT_ATTR_RDONLY;
    OK("and back", syscall(SYS_mount_setattr, AT_FDCWD, "api", 0, &attributes, sizeof attributes));
    int copy = syscall(SYS_open_tree, AT_FDCWD, "api", 1 | O_CLOEXEC);
    YES("open_tree", copy >= 0);
    OK("the copy shows the same", faccessat(copy, "early", F_OK, 0));
    mkdir("api2", 0755);
    OK("attach the copy", syscall(SYS_move_mount, copy, "", AT_FDCWD, "api2", 4));
    OK("both", access("api2/early", F_OK));
    ERR("open_tree recursive without copy", syscall(SYS_open_tree, AT_FDCWD, "api", 0x8000), EINVAL);
    close(copy);
    close(tree);
    close(context);
    OK("umount the copy", umount("api2"));
    OK("umount the original", umount("api"));
}

/* What makes a mount or its whole filesystem read-only, and what stands in the way. */
static void read_only(void) {
    mkdir("r", 0755);
    mkdir("s", 0755);
    OK("mount to begin with", mount("source", "r", "tmpfs", 0, 0));
    OK("and a bind of it", mount("r", "s", 0, MS_BIND, 0));
    put("r/f", "x");
    int writer = open("r/f", O_WRONLY), reader = open("r/f", O_RDONLY);
    ERR("read-only with a writer", mount(0, "r", 0, MS_REMOUNT | MS_RDONLY, 0), EBUSY);
    ERR("its bind with a writer elsewhere", mount(0, "s", 0, MS_REMOUNT | MS_RDONLY, 0), EBUSY);
    ERR("the mount alone", mount(0, "r", 0, MS_REMOUNT | MS_BIND | MS_RDONLY, 0), EBUSY);
    OK("the bind alone", mount(0, "s", 0, MS_REMOUNT | MS_BIND | MS_RDONLY, 0));
    ERR("write through the bind", open("s/f", O_WRONLY), EROFS);
    OK("write beside it", close(open("r/f", O_WRONLY)));
    OK("the bind writable again", mount(0, "s", 0, MS_REMOUNT | MS_BIND, 0));
    EQ("the writer writes", write(writer, "y", 1), 1);
    close(writer);
    OK("readers do not matter", mount(0, "r", 0, MS_REMOUNT | MS_RDONLY, 0));
    ERR("write to it", open("r/f", O_WRONLY), EROFS);
    ERR("the whole filesystem is", open("s/f", O_WRONLY), EROFS);
    ERR("no new file", open("s/g", O_WRONLY | O_CREAT, 0644), EROFS);
    OK("a bind made writable alone", mount(0, "s", 0, MS_REMOUNT | MS_BIND, 0));
    ERR("is not for that", open("s/f", O_WRONLY), EROFS);
    struct statfs sf;
    statfs("s", &sf);
    EQ("statfs says so", sf.f_flags & ST_RDONLY, ST_RDONLY);
    OK("writable again", mount(0, "s", 0, MS_REMOUNT, 0));
    OK("through the bind", close(open("s/f", O_WRONLY)));
    ERR("the other mount stays read-only", open("r/f", O_WRONLY), EROFS);
    OK("until it is remounted", mount(0, "r", 0, MS_REMOUNT, 0));
    OK("write", close(open("r/f", O_WRONLY)));
    close(reader);
    char *shared;
    writer = open("r/f", O_RDWR);
    ftruncate(writer, 4096);
    shared = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, writer, 0);
    close(writer);
    ERR("a mapping writes, too", mount(0, "r", 0, MS_REMOUNT | MS_RDONLY, 0), EBUSY);
    ERR("and keeps it in use", umount("r"), EBUSY);
    munmap(shared, 4096);
    OK("no more", mount(0, "r", 0, MS_REMOUNT | MS_RDONLY, 0));
    OK("umount the bind", umount("s"));
    OK("umount it", umount("r"));
    OK("made read-only from the start", mount("source", "r", "tmpfs", MS_RDONLY, 0));
    OK("made writable by itself", mount(0, "r", 0, MS_REMOUNT | MS_BIND, 0));
    ERR("its filesystem is not", open("r/f", O_WRONLY | O_CREAT, 0644), EROFS);
    OK("now it is", mount(0, "r", 0, MS_REMOUNT, 0));
    int fd = open("r/f", O_WRONLY | O_CREAT, 0644);
    YES("a file", fd >= 0);
    OK("detach it though it is in use", umount2("r", MNT_DETACH));
    EQ("the file stays", write(fd, "x", 1), 1);
    YES("and nothing is mounted", access("r/f", F_OK) == -1);
    close(fd);
    ERR("nothing to expire", umount2("r", MNT_EXPIRE), EINVAL);
    mount("source", "r", "tmpfs", 0, 0);
    fd = open("r", O_RDONLY);
    ERR("expire what is in use", umount2("r", MNT_EXPIRE), EBUSY);
    close(fd);
    ERR("expire", umount2("r", MNT_EXPIRE), EAGAIN);
    OK("used in between", access("r/none", F_OK) == -1 ? 0 : -1);
    close(open("r", O_RDONLY));
    ERR("begins anew", umount2("r", MNT_EXPIRE), EAGAIN);
    ERR("with force", umount2("r", MNT_EXPIRE | MNT_FORCE), EINVAL);
    OK("force", umount2("r", MNT_FORCE));
    int path = -1;
    mount("source", "r", "tmpfs", 0, 0);
    path = open("r", O_PATH);
    ERR("a path descriptor uses it", umount("r"), EBUSY);
    close(path);
    chdir("r");
    ERR("whoever stands in it uses it", umount("../r"), EBUSY);
    chdir("..");
    OK("nobody any more", umount("r"));
}

int main(void) {
    /* On a host the tree may be shared with others: what happens here stays here. */
    if (unshare(CLONE_NEWNS) || mount(0, "/", 0, MS_PRIVATE | MS_REC, 0)) {
        printf("FAIL a tree of mounts of our own got %d expected 0\n", errno);
        return 1;
    }
    enter_directory();
    char *home = getcwd(0, 0);
    put("file", "");
    chmod(home, 0755);
    mounting();
    chdir(home);
    binding();
    read_only();
    propagating();
    roots();
    users();
    by_descriptor();
    return 0;
}
