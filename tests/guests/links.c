/* Tries every way out of a volume that a program with rights can think of. Says what succeeded. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static void reads(const char *how, int fd) {
    char text[64] = "";
    if (fd < 0) return;
    ssize_t length = read(fd, text, sizeof text - 1);
    if (length > 0 && strstr(text, "secret")) printf("read by %s\n", how);
    close(fd);
}

static void writes(const char *how, int fd) {
    if (fd < 0) return;
    if (write(fd, "broken", 6) == 6) printf("wrote by %s\n", how);
    close(fd);
}

int main(int argc, char **argv) {
    /* argv[1]: absolute path of the secret on the host; /data is the volume, its sibling `secret` is not shown. */
    const char *outside = argv[1];
    int volume = open("/data", O_PATH | O_DIRECTORY);
    char path[4096];
    reads("its path", open(outside, O_RDONLY));
    reads("..", openat(volume, "../secret", O_RDONLY));
    reads("a host link, relative", openat(volume, "relative", O_RDONLY));
    reads("a host link, absolute", openat(volume, "absolute", O_RDONLY));
    reads("a host link to a directory", openat(volume, "up/secret", O_RDONLY));
    reads("/proc/self/root", open("/proc/self/root/../../secret", O_RDONLY));
    snprintf(path, sizeof path, "/proc/self/fd/%d/../secret", volume);
    reads("/proc/self/fd", open(path, O_RDONLY));
    reads("/proc/self/cwd", chdir("/data") ? -1 : open("/proc/self/cwd/../secret", O_RDONLY));
    if (symlinkat("../secret", volume, "made") == 0) reads("a link made inside", openat(volume, "made", O_RDONLY));
    if (symlinkat(outside, volume, "made2") == 0) writes("a link made inside", openat(volume, "made2", O_WRONLY));
    writes("a host link", openat(volume, "relative", O_WRONLY));
    /* It leads to a place inside; the test looks whether anything came to be outside. */
    close(openat(volume, "dangling", O_WRONLY | O_CREAT, 0666));
    if (link("/data/inside", "/tmp/hard") == 0) writes("a hard link across", open("/tmp/hard", O_WRONLY));
    if (linkat(volume, "relative", volume, "hard", AT_SYMLINK_FOLLOW) == 0) reads("a hard link to a link", openat(volume, "hard", O_RDONLY));
    if (renameat(volume, "directory", AT_FDCWD, "/tmp/moved") == 0) reads("a directory moved out", open("/tmp/moved/../secret", O_RDONLY));
    mkdir("/data/directory", 0777);
    int directory = openat(volume, "directory", O_RDONLY | O_DIRECTORY);
    fchdir(directory);
    chroot(".");
    reads("leaving a chroot", openat(directory, "../../secret", O_RDONLY));
    reads("leaving a chroot far", openat(directory, "../../../../../../../../secret", O_RDONLY));
    mount("/", "/data/directory", 0, MS_BIND, 0);
    mknodat(volume, "disk", S_IFBLK | 0666, makedev(254, 0));
    reads("a device made inside", openat(volume, "disk", O_RDONLY));
    struct { long bytes; int type; char handle[128]; } handle = {128, 1, {2}};
    reads("a file handle", syscall(SYS_open_by_handle_at, volume, &handle, O_RDONLY));
    (void)argc;
    puts("done");
    return 0;
}
