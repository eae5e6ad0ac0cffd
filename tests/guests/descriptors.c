/* What calls answer for descriptors of unusual kinds: order of checks, files without positions, places without files. */
#include "case.h"
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/socket.h>
#include <sys/statvfs.h>

#ifndef RWF_NOAPPEND
#define RWF_NOAPPEND 0x20
#endif

static char buffer[4096];

static void nothing_to_do(void) {
    int pipes[2], sockets[2];
    struct iovec none[2] = {{buffer, 0}, {buffer, 0}};
    signal(SIGPIPE, SIG_IGN);
    OK("pipe", pipe(pipes));
    close(pipes[0]);
    EQ("write of nothing to a pipe without readers", write(pipes[1], buffer, 0), 0);
    ERR("but of something", write(pipes[1], buffer, 1), EPIPE);
    int lone = socket(AF_INET, SOCK_STREAM, 0);
    EQ("read of nothing from an unconnected socket", read(lone, buffer, 0), 0);
    EQ("readv of nothing", readv(lone, none, 2), 0);
    EQ("writev of nothing", writev(lone, none, 2), 0);
    int directory = open(".", O_RDONLY);
    EQ("readv of nothing from a directory", readv(directory, none, 1), 0);
    ERR("but of something", read(directory, buffer, 1), EISDIR);
    EQ("vmsplice of nothing", vmsplice(lone, none, 1, 0), 0);
    OK("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, sockets));
    close(pipes[1]), close(lone), close(directory), close(sockets[0]), close(sockets[1]);
}

static void positions(void) {
    const char *devices[] = {"/dev/null", "/dev/zero", "/dev/full", "/dev/urandom"};
    for (int i = 0; i < 4; i++) {
        int fd = open(devices[i], O_RDONLY);
        EQ(devices[i], lseek(fd, 5, SEEK_SET) | lseek(fd, 7, SEEK_CUR) | lseek(fd, 9, SEEK_END), 0);
        close(fd);
    }
    int directory = open(".", O_RDONLY), file = open("file", O_RDWR | O_CREAT, 0600);
    int status = open("/proc/self/status", O_RDONLY);
    ERR("end of a seq file", lseek(status, 0, SEEK_END), EINVAL);
    EQ("its start", lseek(status, 0, SEEK_SET), 0);
    struct iovec one = {buffer, 1};
    EQ("reads take flags of writes", preadv2(file, &one, 1, 0, RWF_DSYNC | RWF_SYNC), 0);
    ERR("both ways to append", pwritev2(file, &one, 1, 0, RWF_APPEND | RWF_NOAPPEND), EINVAL);
    ERR("unknown flag", preadv2(file, &one, 1, 0, 1 << 30), EOPNOTSUPP);
    ERR("negative length", ftruncate(file, -1), EINVAL);
    ERR("before the descriptor", ftruncate(-1, -1), EINVAL);
    ERR("of none", ftruncate(-1, 1), EBADF);
    int null = open("/dev/null", O_WRONLY | O_APPEND), name = open("/proc/self/comm", O_WRONLY | O_APPEND);
    EQ("a device has no end to append at", write(null, "abc", 3), 3);
    EQ("nor has a file of procfs", write(name, "appended", 8), 8);
    close(name);
    EQ("a device needs no flush", pwritev2(null, &one, 1, 0, RWF_DSYNC), 1);
    close(directory), close(file), close(status), close(null);
}

static void moving(void) {
    int pipes[2], sockets[2], file = open("moved", O_RDWR | O_CREAT, 0600), append = open("moved", O_WRONLY | O_APPEND);
    int directory = open(".", O_RDONLY), elsewhere = open("/proc/self/comm", O_RDWR);
    loff_t at = 1;
    pwrite(file, "0123456789", 10, 0);
    OK("pipe", pipe2(pipes, O_NONBLOCK));
    OK("socketpair", socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sockets));
    EQ("something in the pipe", write(pipes[1], "abc", 3), 3);
    ERR("sendfile from a pipe", sendfile(file, pipes[0], NULL, 3), EINVAL);
    EQ("something in the socket", write(sockets[1], "xyz", 3), 3);
    ERR("sendfile from a socket to a file", sendfile(file, sockets[0], NULL, 3), EINVAL);
    ERR("sendfile to an appending file", sendfile(append, file, NULL, 3), EINVAL);
    ERR("splice with an offset of a pipe", splice(pipes[0], &at, file, NULL, 3, 0), ESPIPE);
    ERR("before how it was opened", splice(pipes[1], &at, file, NULL, 3, 0), ESPIPE);
    ERR("splice with an offset of a socket", splice(sockets[0], &at, pipes[1], NULL, 3, 0), EINVAL);
    ERR("splice to an offset of a socket", splice(pipes[0], NULL, sockets[1], &at, 3, 0), EINVAL);
    ERR("splice of a directory", splice(directory, NULL, pipes[1], NULL, 3, 0), EINVAL);
    ERR("copy from a directory", copy_file_range(directory, NULL, file, NULL, 3, 0), EISDIR);
    ERR("copy to a directory", copy_file_range(pipes[0], NULL, directory, NULL, 3, 0), EISDIR);
    ERR("copy from a pipe", copy_file_range(pipes[0], NULL, file, NULL, 3, 0), EINVAL);
    loff_t zero = 0, four = 4, behind = 100;
    ERR("copy onto itself", copy_file_range(file, &zero, file, &four, 6, 0), EINVAL);
    EQ("copy of what is behind the end", copy_file_range(file, &behind, file, &behind, 6, 0), 0);
    ERR("copy to another filesystem", copy_file_range(file, &zero, elsewhere, NULL, 3, 0), EXDEV);
    close(pipes[0]), close(pipes[1]), close(sockets[0]), close(sockets[1]), close(file), close(append), close(directory), close(elsewhere);
}

static void places(void) {
    int place = open(".", O_PATH);
    fd_set set;
    struct timeval now = {0, 0};
    FD_ZERO(&set);
    FD_SET(place, &set);
    EQ("select takes a place for ready", select(place + 1, &set, NULL, NULL, &now), 1);
    struct pollfd entry = {place, POLLIN, 0};
    EQ("poll", poll(&entry, 1, 0), 1);
    EQ("for invalid", entry.revents, POLLNVAL);
    ERR("flock", flock(place, LOCK_EX), EBADF);
    ERR("an operation that is none", flock(place, 3), EINVAL);
    EQ("flags of a place", fcntl(open(".", O_PATH | O_RDWR | O_APPEND), F_GETFL), O_PATH);
    int unlisted = open(".", O_TMPFILE | O_RDWR, 0600);
    EQ("flags of a file without a name", fcntl(unlisted, F_GETFL) & ~O_LARGEFILE & ~0100000, O_TMPFILE | O_RDWR);
    ERR("a directory cannot be made so", open("new", O_CREAT | O_DIRECTORY | O_RDWR, 0600), EINVAL);
    ERR("mapping of no file", mmap(NULL, 0, PROT_READ, MAP_SHARED, -1, 0) == MAP_FAILED ? -1 : 0, EBADF);
    ERR("mapping of nothing", mmap(NULL, 0, PROT_READ, MAP_SHARED, unlisted, 0) == MAP_FAILED ? -1 : 0, EINVAL);
    ERR("mapping far behind", mmap(NULL, 4096, PROT_READ, MAP_SHARED, unlisted, -4096) == MAP_FAILED ? -1 : 0, EOVERFLOW);
    int pipes[2];
    OK("pipe", pipe(pipes));
    ERR("mapping of a pipe", mmap(NULL, 4096, PROT_READ, MAP_SHARED, pipes[0], 0) == MAP_FAILED ? -1 : 0, ENODEV);
    ERR("to run it", mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, pipes[0], 0) == MAP_FAILED ? -1 : 0, EPERM);
    struct flock lock = {.l_type = F_UNLCK};
    ERR("a lock to look for", fcntl(unlisted, F_GETLK, &lock), EINVAL);
    close(place), close(unlisted), close(pipes[0]), close(pipes[1]);
}

static void controls(void) {
    int file = open("controlled", O_RDWR | O_CREAT, 0600), pipes[2], socket_ = socket(AF_UNIX, SOCK_STREAM, 0), number = -1;
    struct statfs figures;
    OK("pipe", pipe(pipes));
    OK("statfs of a pipe", fstatfs(pipes[0], &figures));
    EQ("its kind", figures.f_type, PIPEFS_MAGIC);
    OK("statfs of a socket", fstatfs(socket_, &figures));
    EQ("its kind", figures.f_type, SOCKFS_MAGIC);
    OK("block size of a pipe", ioctl(pipes[0], FIGETBSZ, &number));
    EQ("a page", number, 4096);
    ERR("clone of no file", ioctl(file, FICLONE, 99), EBADF);
    ERR("clone of a pipe", ioctl(file, FICLONE, pipes[0]), EXDEV);
    ERR("range to clone", ioctl(file, FICLONERANGE, NULL), EFAULT);
    ERR("duplicates", ioctl(file, FIDEDUPERANGE, NULL), EFAULT);
    int owner = getpid();
    OK("owner of a socket", ioctl(socket_, FIOSETOWN, &owner));
    OK("read again", ioctl(socket_, FIOGETOWN, &number));
    EQ("the same", number, owner);
    EQ("as fcntl has it", fcntl(socket_, F_GETOWN), owner);
    ERR("a file has none", ioctl(file, FIOGETOWN, &number), ENOTTY);
    OK("flags of a mount", statfs(".", &figures));
    YES("times of reading are relative", (figures.f_flags & (ST_RELATIME | ST_NOATIME)) == ST_RELATIME);
    int event = eventfd(1, EFD_NONBLOCK);
    struct pollfd entry = {event, POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM, 0};
    EQ("events of a counter", poll(&entry, 1, 0), 1);
    EQ("are only these", entry.revents, POLLIN | POLLOUT);
    ERR("a name in a process's directory", mkdir("/proc/self/new", 0700), ENOENT);
    OK("times of a file of procfs", utimensat(AT_FDCWD, "/proc/self/status", NULL, 0));
    close(file), close(pipes[0]), close(pipes[1]), close(socket_), close(event);
}

int main(void) {
    alarm(60);
    enter_directory();
    nothing_to_do();
    positions();
    moving();
    places();
    controls();
    return 0;
}
