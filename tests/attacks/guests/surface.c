/* Interfaces of Linux that were the way out of other walls: here they are not there, or lead nowhere. */
#include "case.h"
#include <sys/socket.h>
#include <sys/sysmacros.h>

static void absent(void) {
    static const struct { const char *name; int number; } calls[] = {
        {"bpf", 321}, {"userfaultfd", 323}, {"perf_event_open", 298}, {"add_key", 248}, {"request_key", 249}, {"keyctl", 250}, {"io_uring_setup", 425},
        {"init_module", 175}, {"finit_module", 313}, {"delete_module", 176}, {"kexec_load", 246}, {"kexec_file_load", 320}, {"swapon", 167},
        {"reboot", 169}, {"acct", 163}, {"fanotify_init", 300}, {"open_by_handle_at", 304}, {"lookup_dcookie", 212}, {"quotactl", 179}, {"uselib", 134},
        {"create_module", 174}, {"nfsservctl", 180}, {"move_pages", 279}, {"settimeofday", 164},
        {"clock_settime", 227}, {"adjtimex", 159}, {"iopl", 172}, {"ioperm", 173}, {"modify_ldt", 154}, {"fsopen", 430},
        {"move_mount", 429}, {"open_tree", 428}, {"quotactl_fd", 443}, {"map_shadow_stack", 453}};
    char buffer[512] = "";
    for (unsigned i = 0; i < sizeof calls / sizeof *calls; i++) {
        long result = syscall(calls[i].number, 1, buffer, 1, buffer, 0, 0);
        if (result < 0)
            printf("ok %s\n", calls[i].name);
        else
            printf("FAIL %s answers %ld\n", calls[i].name, result);
    }
}

static void families(void) {
    for (int family = 0; family < 64; family++) {
        int known = family == AF_UNIX || family == AF_INET || family == AF_INET6 || family == AF_NETLINK;
        for (int type = 1; type <= 10; type++) {
            int fd = socket(family, type, 0);
            if (fd >= 0 && !known) printf("FAIL family %d type %d opens\n", family, type);
            if (fd >= 0) close(fd);
        }
    }
    for (int protocol = 0; protocol < 40; protocol++) {
        int fd = socket(AF_NETLINK, SOCK_RAW, protocol);
        /* Routes, and the kernel's announcements of devices, of which there are none. */
        if (fd >= 0 && protocol != 0 && protocol != 15 && protocol != 4) printf("FAIL netlink protocol %d opens\n", protocol);
        if (fd >= 0) close(fd);
    }
    puts("ok families");
}

static void settings(void) {
    static const char *names[] = {
        "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sysrq-trigger", "/proc/sys/vm/drop_caches", "/proc/sys/kernel/poweroff_cmd",
        "/sys/kernel/uevent_helper", "/sys/fs/cgroup/release_agent", "/proc/sys/fs/binfmt_misc/register", "/proc/sys/kernel/randomize_va_space",
        "/proc/sys/vm/mmap_min_addr", "/proc/sys/kernel/yama/ptrace_scope", "/proc/irq/0/smp_affinity", "/proc/mtrr", "/proc/acpi/wakeup",
        "/proc/sys/net/ipv4/ip_forward", "/sys/class/net", "/sys/module", "/proc/kcore", "/proc/kpagemap", "/dev/mem", "/dev/kmsg", "/proc/kmsg", "/dev/fuse"};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        int fd = open(names[i], O_WRONLY);
        if (fd >= 0 && write(fd, "|/tmp/evil\n", 11) > 0) printf("note %s takes what is written\n", names[i]);
        if (fd >= 0) close(fd);
    }
    puts("ok settings");
}

static void devices(void) {
    static const struct { int major, minor; } nodes[] = {{1, 1}, {1, 2}, {1, 4}, {1, 11}, {8, 0}, {253, 0}, {254, 0}, {259, 0}, {7, 0}, {10, 232}, {10, 229}, {10, 200}, {13, 64}, {4, 1}};
    for (int i = 0; i < 14; i++)
        for (int kind = 0; kind < 2; kind++) {
            unlink("/tmp/node");
            if (mknod("/tmp/node", (kind ? S_IFBLK : S_IFCHR) | 0666, makedev(nodes[i].major, nodes[i].minor))) continue;
            int fd = open("/tmp/node", O_RDWR);
            char byte;
            if (fd >= 0 && (read(fd, &byte, 1) > 0 || write(fd, &byte, 1) > 0)) printf("FAIL device %d:%d is there\n", nodes[i].major, nodes[i].minor);
            if (fd >= 0) close(fd);
        }
    puts("ok devices");
}

/* A chroot that one climbs out of ends at the sandbox's own root, and namespaces give no more than one has. */
static void roots(void) {
    int status;
    CHILD(status, {
        mkdir("/tmp/jail", 0777);
        int outside = open("/", O_RDONLY);
        chroot("/tmp/jail");
        fchdir(outside);
        for (int i = 0; i < 64; i++) chdir("..");
        chroot(".");
        struct stat found;
        _exit(stat("/boot", &found) == 0 || stat("/lost+found", &found) == 0 ? 7 : 0);
    });
    EQ("out of a chroot", status, 0);
    CHILD(status, {
        unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET);
        mount("/dev/sda", "/mnt", "ext4", 0, 0);
        mount("overlay", "/mnt", "overlay", 0, "lowerdir=/,upperdir=/tmp,workdir=/tmp");
        mount("none", "/mnt", "cgroup", 0, "");
        setns(open("/proc/1/ns/mnt", O_RDONLY), 0);
        setns(open("/proc/1/ns/user", O_RDONLY), 0);
    });
    EQ("namespaces", status, 0);
    mount("none", "/data", 0, MS_REMOUNT, 0);
    mount("none", "/data", 0, MS_REMOUNT | MS_BIND, 0);
    mkdir("/tmp/bound", 0777);
    mount("/data", "/tmp/bound", 0, MS_BIND, 0);
    int plain = open("/data/readable", O_RDWR), bound = open("/tmp/bound/readable", O_RDWR);
    YES("a read-only volume stays so", (plain < 0 || write(plain, "BROKEN", 6) < 0) && (bound < 0 || write(bound, "BROKEN", 6) < 0));
    YES("nothing is made in it", mkdir("/data/made", 0777) && open("/tmp/bound/made", O_CREAT | O_RDWR, 0666) < 0);
}

int main(void) {
    absent();
    families();
    settings();
    devices();
    roots();
    puts("done");
    return 0;
}
