/* Credentials: users, groups, capabilities, permissions of files and signals, chroot. */
#include "case.h"
#include <linux/capability.h>
#include <sys/fsuid.h>
#include <grp.h>

static void numbers(void) {
    uid_t r, e, s;
    int status;
    OK("getresuid", getresuid(&r, &e, &s));
    EQ("root", r + e + s, 0);
    ERR("getresuid bad", syscall(SYS_getresuid, 8, &e, &s), EFAULT);
    CHILD(status, {
        if (setresuid(1000, 2000, 3000)) _exit(1);
        if (getresuid(&r, &e, &s) || r != 1000 || e != 2000 || s != 3000) _exit(2);
        if (setresuid(4000, -1, -1) != -1 || errno != EPERM) _exit(3);
        if (seteuid(3000) || geteuid() != 3000) _exit(4);
        if (setreuid(-1, 1000) || geteuid() != 1000) _exit(5);
        if (setuid(0) != -1 || errno != EPERM) _exit(6);
        if (setresgid(5, -1, -1) != -1 || errno != EPERM) _exit(7);
        if (setgroups(0, NULL) != -1 || errno != EPERM) _exit(8);
    });
    EQ("users", status, 0);
    CHILD(status, {
        if (setgid(50) || getgid() != 50 || getegid() != 50) _exit(1);
        if (setuid(1000)) _exit(2);
        if (setgid(0) != -1 || errno != EPERM) _exit(3);
        if (setuid(1000)) _exit(4);
        if (setreuid(1000, 1000)) _exit(5);
    });
    EQ("dropped for good", status, 0);
    CHILD(status, {
        if (setreuid(500, -1)) _exit(1);
        getresuid(&r, &e, &s);
        if (r != 500 || e != 0 || s != 0) _exit(2);
        if (setreuid(-1, 700)) _exit(3);
        getresuid(&r, &e, &s);
        if (e != 700 || s != 700) _exit(4);
    });
    EQ("setreuid moves the saved", status, 0);
    gid_t groups[3] = {7, 5, 6};
    gid_t got[8];
    CHILD(status, {
        if (setgroups(3, groups)) _exit(1);
        if (getgroups(0, NULL) != 3) _exit(2);
        if (getgroups(2, got) != -1 || errno != EINVAL) _exit(3);
        if (getgroups(8, got) != 3) _exit(4);
        if (setgroups(70000, groups) != -1 || errno != EINVAL) _exit(5);
        if (getgroups(-1, got) != -1 || errno != EINVAL) _exit(6);
    });
    EQ("groups", status, 0);
    CHILD(status, {
        if (setfsuid(1000) != 0 || setfsuid(-1) != 1000) _exit(1);
        int f = open("/dev/shm/fsuid", O_CREAT | O_RDWR, 0600);
        struct stat st;
        fstat(f, &st);
        unlink("/dev/shm/fsuid");
        if (st.st_uid != 1000) _exit(2);
    });
    EQ("fsuid", status, 0);
}

static void capabilities(void) {
    struct __user_cap_header_struct head = {0, 0};
    struct __user_cap_data_struct data[2] = {{0}};
    ERR("version", syscall(SYS_capget, &head, data), EINVAL);
    EQ("preferred version", head.version, _LINUX_CAPABILITY_VERSION_3);
    OK("version asked", ({head.version = 0; syscall(SYS_capget, &head, NULL); }));
    head.version = _LINUX_CAPABILITY_VERSION_3;
    OK("capget", syscall(SYS_capget, &head, data));
    YES("root may change owners", data[0].effective & 1 << CAP_CHOWN);
    head.pid = 999999;
    ERR("capget none", syscall(SYS_capget, &head, data), ESRCH);
    head.pid = -1;
    ERR("capget negative", syscall(SYS_capget, &head, data), EINVAL);
    head.pid = getppid();
    ERR("capset other", syscall(SYS_capset, &head, data), EPERM);
    head.pid = 0;
    int status;
    CHILD(status, {
        data[0].effective = data[0].permitted = 1 << CAP_KILL;
        data[1].effective = data[1].permitted = data[0].inheritable = data[1].inheritable = 0;
        if (syscall(SYS_capset, &head, data)) _exit(1);
        data[0].permitted |= 1 << CAP_CHOWN;
        if (syscall(SYS_capset, &head, data) != -1 || errno != EPERM) _exit(2);
        put("/dev/shm/cap", "");
        if (chown("/dev/shm/cap", 5, 5) != -1 || errno != EPERM) _exit(3);
        if (setuid(5) != -1 || errno != EPERM) _exit(4);
        unlink("/dev/shm/cap");
    });
    EQ("capset", status, 0);
    CHILD(status, {
        prctl(PR_SET_KEEPCAPS, 1);
        setuid(1000);
        syscall(SYS_capget, &head, data);
        if (data[0].effective || !(data[0].permitted & 1 << CAP_CHOWN)) _exit(1);
    });
    EQ("keepcaps", status, 0);
    CHILD(status, {
        setuid(1000);
        syscall(SYS_capget, &head, data);
        if (data[0].effective || data[0].permitted) _exit(1);
        if (prctl(PR_CAPBSET_DROP, CAP_CHOWN) != -1 || errno != EPERM) _exit(2);
    });
    EQ("capabilities go with root", status, 0);
    CHILD(status, {
        seteuid(1000);
        syscall(SYS_capget, &head, data);
        if (data[0].effective || !data[0].permitted) _exit(1);
        seteuid(0);
        syscall(SYS_capget, &head, data);
        if (!data[0].effective) _exit(2);
    });
    EQ("effective ones come back", status, 0);
    CHILD(status, if (prctl(PR_CAPBSET_DROP, CAP_CHOWN) || prctl(PR_CAPBSET_READ, CAP_CHOWN)) _exit(1));
    EQ("bounding set", status, 0);
    ERR("ambient not permitted", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 100, 0, 0), EINVAL);
    ERR("ambient not inheritable", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0), EPERM);
    EQ("ambient empty", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_KILL, 0, 0), 0);
}

static void files(void) {
    int status;
    chmod(".", 0755);
    put("secret", "x");
    chmod("secret", 0600);
    put("open", "x");
    chmod("open", 0644);
    mkdir("closed", 0700);
    put("closed/f", "x");
    mkdir("sticky", 0777);
    chmod("sticky", 01777);
    put("sticky/roots", "x");
    mkdir("free", 0777);
    chmod("free", 0777);
    put("setuid", "x");
    chmod("setuid", 06755);
    put("theirs", "x");
    chown("theirs", 1000, 1000);
    chmod("theirs", 0644);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        setgroups(0, NULL);
        setgid(1000);
        setuid(1000);
        ERR("read secret", open("secret", O_RDONLY), EACCES);
        OK("read open", close(open("open", O_RDONLY)));
        ERR("write open", open("open", O_WRONLY), EACCES);
        ERR("through closed", open("closed/f", O_RDONLY), EACCES);
        ERR("stat through closed", access("closed/f", F_OK), EACCES);
        ERR("list closed", open("closed", O_RDONLY), EACCES);
        ERR("create here", open("mine", O_CREAT | O_RDWR, 0644), EACCES);
        ERR("mkdir here", mkdir("mine", 0755), EACCES);
        ERR("unlink here", unlink("open"), EACCES);
        ERR("unlink sticky", unlink("sticky/roots"), EPERM);
        ERR("rename sticky", rename("sticky/roots", "sticky/x"), EPERM);
        OK("create in sticky", close(open("sticky/mine", O_CREAT | O_RDWR, 0644)));
        OK("unlink own in sticky", unlink("sticky/mine"));
        ERR("chmod other's", chmod("open", 0777), EPERM);
        ERR("chown other's", chown("open", 1000, 1000), EPERM);
        ERR("give away", chown("theirs", 0, -1), EPERM);
        ERR("to a foreign group", chown("theirs", -1, 0), EPERM);
        OK("to own group", chown("theirs", 1000, 1000));
        OK("chmod own", chmod("theirs", 04755));
        ERR("utimes other's", utimensat(AT_FDCWD, "open", (struct timespec[2]){{1, 0}, {1, 0}}, 0), EPERM);
        ERR("touch unwritable", utimensat(AT_FDCWD, "open", NULL, 0), EACCES);
        ERR("truncate unwritable", truncate("open", 0), EACCES);
        ERR("link other's", link("secret", "free/link"), 0 ? 0 : EPERM);
        ERR("mknod device", mknod("free/dev", S_IFCHR | 0600, 0x103), EPERM);
        ERR("chroot", chroot("."), EPERM);
        ERR("mount", mount("x", "free", "tmpfs", 0, NULL), EPERM);
        ERR("umount", umount("free"), EPERM);
        ERR("sethostname", sethostname("x", 1), EPERM);
        ERR("raise limit", setrlimit(RLIMIT_NOFILE, &(struct rlimit){1 << 19, 1 << 30}), EPERM);
        ERR("nice up", setpriority(PRIO_PROCESS, 0, -10), EACCES);
        ERR("kill root's", kill(getppid(), 0), EPERM);
        ERR("trusted xattr", setxattr("theirs", "trusted.x", "x", 1, 0), EPERM);
        ERR("exec unpermitted", execl("open", "open", NULL), EACCES);
        EQ("access uses the real user", access("secret", R_OK), -1);
        int file = open("theirs", O_WRONLY);
        write(file, "y", 1);
        struct stat st;
        fstat(file, &st);
        EQ("write clears setuid", st.st_mode & 07000, 0);
        _exit(0);
    }
    waitpid(child, &status, 0);
    EQ("child", status, 0);
    struct stat st;
    chown("setuid", 1, 1);
    stat("setuid", &st);
    EQ("chown clears setuid", st.st_mode & 07777, 0755);
    mkdir("groupdir", 0755);
    chown("groupdir", -1, 77);
    chmod("groupdir", 02755);
    put("groupdir/f", "");
    mkdir("groupdir/d", 0755);
    stat("groupdir/f", &st);
    EQ("group of the directory", st.st_gid, 77);
    stat("groupdir/d", &st);
    EQ("setgid is inherited", st.st_mode & 02000, 02000);
    CHILD(status, {
        if (chroot("closed") || chdir("/")) _exit(1);
        if (access("/f", F_OK)) _exit(2);
        if (access("/../../f", F_OK)) _exit(3);
        char cwd[64];
        if (!getcwd(cwd, 64) || strcmp(cwd, "/")) _exit(4);
    });
    EQ("chroot", status, 0);
    ERR("chroot file", chroot("open"), ENOTDIR);
}

int main(void) {
    alarm(20);
    enter_directory();
    numbers();
    capabilities();
    files();
    return 0;
}
