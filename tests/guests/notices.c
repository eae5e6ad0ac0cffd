/* Who hears what of files: inotify's events for each call, the corners of its watches, and signals of directories (F_NOTIFY). */
#include "case.h"
#include <sys/inotify.h>

static int notifier;
static char buffer[65536];
static int filled, at;
static char text[4096];

static struct inotify_event *next(void) {
    struct inotify_event *event = (void *)(buffer + at);
    at += sizeof *event + event->len;
    return event;
}

static void drain(void) {
    filled = read(notifier, buffer, sizeof buffer);
    at = 0;
}

/* All events since the last time: "watch:mask", "c" for a cookie, "=name". */
static const char *events(void) {
    char *end = text;
    *end = 0;
    drain();
    while (at < filled) {
        struct inotify_event *event = next();
        const char *name = event->len ? event->name : "";
        end += sprintf(end, "%s%d:%x%s%s%s", end > text ? " " : "", event->wd, event->mask, event->cookie ? "c" : "", event->len ? "=" : "",
                       /* A file without a name is called after its number. */
                       *name == '#' ? "#" : name);
    }
    return text;
}

#define SAW(name, expected)                                            \
    do {                                                               \
        if (strcmp(events(), expected))                                \
            printf("FAIL %s got '%s' expected '%s'\n", name, text, expected); \
        else                                                           \
            printf("ok %s\n", name);                                   \
        fflush(stdout);                                                \
    } while (0)

static void of_files(void) {
    mkdir("d", 0755);
    put("d/f", "x");
    EQ("first watch", inotify_add_watch(notifier, "d", IN_ALL_EVENTS), 1);
    SAW("nothing yet", "");
    int fd = open("d/f", O_RDWR);
    SAW("open", "1:20=f");
    write(fd, "a", 1);
    write(fd, "b", 1);
    SAW("two writes are one event", "1:2=f");
    pwrite(fd, "a", 1, 0);
    fsync(fd);
    SAW("pwrite", "1:2=f");
    char byte[4];
    pread(fd, byte, 1, 0);
    read(fd, byte, 0);
    SAW("read", "1:1=f");
    ftruncate(fd, 0);
    SAW("ftruncate", "1:2=f");
    truncate("d/f", 0);
    SAW("truncate", "1:2=f");
    fchmod(fd, 0600);
    chmod("d/f", 0644);
    SAW("chmod", "1:4=f");
    utimensat(AT_FDCWD, "d/f", NULL, 0);
    SAW("both times", "1:4=f");
    struct timespec times[2] = {{1, 0}, {0, UTIME_OMIT}};
    utimensat(AT_FDCWD, "d/f", times, 0);
    SAW("time of reading", "1:1=f");
    times[0].tv_nsec = UTIME_OMIT;
    times[1].tv_nsec = 0;
    utimensat(AT_FDCWD, "d/f", times, 0);
    SAW("time of writing", "1:2=f");
    close(fd);
    SAW("close", "1:8=f");
    link("d/f", "d/g");
    SAW("link", "1:100=g");
    rename("d/g", "d/h");
    SAW("rename", "1:40c=g 1:80c=h");
    rename("d/h", "x");
    SAW("move out", "1:40c=h");
    rename("x", "d/i");
    SAW("move in", "1:80c=i");
    unlink("d/i");
    SAW("unlink a second name", "1:200=i");
    symlink("f", "d/s");
    SAW("symlink", "1:100=s");
    mkfifo("d/p", 0644);
    SAW("mkfifo", "1:100=p");
    mkdir("d/m", 0755);
    SAW("mkdir", "1:40000100=m");
    rmdir("d/m");
    SAW("rmdir", "1:40000200=m");
    rename("d/f", "d/s");
    SAW("rename over another", "1:40c=f 1:80c=s");
    access("d/s", R_OK);
    SAW("looking at it", "");
    DIR *directory = opendir("d");
    while (readdir(directory))
        ;
    closedir(directory);
    SAW("list", "1:40000020 1:40000001 1:40000010");
    int own = inotify_add_watch(notifier, "d/s", IN_ALL_EVENTS);
    chmod("d/s", 0600);
    SAW("its own watch hears, too", "1:4=s 2:4");
    fd = open("d/s", O_RDONLY);
    SAW("open watched", "1:20=s 2:20");
    unlink("d/s");
    SAW("unlink while open", "2:4 1:200=s");
    close(fd);
    SAW("gone with the last close", "1:10=s 2:10 2:400 2:8000");
    ERR("watch is gone", inotify_rm_watch(notifier, own), EINVAL);
    fd = open("d", O_TMPFILE | O_RDWR, 0600);
    SAW("file without a name", "1:20=#");
    char path[64];
    sprintf(path, "/proc/self/fd/%d", fd);
    linkat(AT_FDCWD, path, AT_FDCWD, "d/t", AT_SYMLINK_FOLLOW);
    SAW("gets one", "1:100=t");
    close(fd);
    drain();
    fd = open("d/t", O_RDWR | O_TRUNC);
    SAW("open and truncate", "1:20=t 1:2=t");
    close(fd);
    SAW("close what could be written", "1:8=t");
    fd = open("d/new", O_RDWR | O_CREAT, 0600);
    SAW("create", "1:100=new 1:20=new");
    close(fd);
    drain();
    fd = open("d/new", O_PATH);
    close(fd);
    SAW("path descriptors are silent", "");
    put("d/r", "1");
    drain();
    rename("d/r", "d/new");
    drain();
    struct inotify_event *from = next(), *to = next();
    YES("cookies tie a rename", from->cookie && from->cookie == to->cookie);
    syscall(SYS_renameat2, AT_FDCWD, "d/new", AT_FDCWD, "d/t", 2);
    SAW("exchange", "1:40c=new 1:80c=t 1:40c=t 1:80c=new");
    int ends[2];
    pipe(ends);
    fd = open("d/t", O_RDWR);
    drain();
    write(ends[1], "abc", 3);
    loff_t zero = 0, ten = 10;
    splice(ends[0], 0, fd, &zero, 3, 0);
    SAW("splice into", "1:2=t");
    zero = 0;
    splice(fd, &zero, ends[1], 0, 3, 0);
    SAW("splice out of", "1:1=t");
    zero = 0;
    sendfile(ends[1], fd, &zero, 3);
    SAW("sendfile", "1:1=t");
    zero = 0;
    syscall(SYS_copy_file_range, fd, &zero, fd, &ten, 3, 0);
    SAW("copy_file_range", "1:1=t 1:2=t");
    close(fd), close(ends[0]), close(ends[1]);
    drain();
    OK("remove the watch", inotify_rm_watch(notifier, 1));
    SAW("is told", "1:8000");
}

static void of_watches(void) {
    mkdir("w", 0755);
    int watch = inotify_add_watch(notifier, "w", IN_ALL_EVENTS | IN_EXCL_UNLINK);
    put("w/e", "1");
    int fd = open("w/e", O_RDWR);
    unlink("w/e");
    drain();
    write(fd, "1", 1);
    close(fd);
    SAW("nothing of what is unlinked", "");
    EQ("change it", inotify_add_watch(notifier, "w", IN_CREATE), watch);
    put("w/q", "1");
    SAW("only what was asked for", "3:100=q");
    EQ("add to it", inotify_add_watch(notifier, "w", IN_DELETE | IN_MASK_ADD), watch);
    unlink("w/q");
    put("w/q", "1");
    SAW("both", "3:200=q 3:100=q");
    ERR("not if it exists", inotify_add_watch(notifier, "w", IN_DELETE | IN_MASK_CREATE), EEXIST);
    ERR("two ways at once", inotify_add_watch(notifier, "w", IN_DELETE | IN_MASK_CREATE | IN_MASK_ADD), EINVAL);
    ERR("no events", inotify_add_watch(notifier, "w", 0), EINVAL);
    EQ("only flags", inotify_add_watch(notifier, "w", IN_ONLYDIR | IN_MASK_ADD), watch);
    ERR("no directory", inotify_add_watch(notifier, "w/q", IN_ONLYDIR | IN_OPEN), ENOTDIR);
    ERR("missing", inotify_add_watch(notifier, "none", IN_OPEN), ENOENT);
    ERR("bad descriptor", inotify_add_watch(99, "w", IN_OPEN), EBADF);
    ERR("bad path", inotify_add_watch(notifier, (char *)8, IN_OPEN), EFAULT);
    fd = open("w/q", O_RDONLY);
    ERR("no notifier", inotify_add_watch(fd, "w", IN_OPEN), EINVAL);
    ERR("remove from no notifier", inotify_rm_watch(fd, 1), EINVAL);
    ERR("remove what is not there", inotify_rm_watch(notifier, 9999), EINVAL);
    ERR("bad flags", inotify_init1(1), EINVAL);
    close(fd);
    watch = inotify_add_watch(notifier, "w/q", IN_OPEN | IN_ONESHOT);
    close(open("w/q", O_RDONLY));
    close(open("w/q", O_RDONLY));
    SAW("once", "4:20 4:8000");
    ERR("is over", inotify_rm_watch(notifier, watch), EINVAL);
    inotify_add_watch(notifier, "w", IN_ALL_EVENTS);
    rename("w", "v");
    rename("v", "w");
    SAW("the directory moves", "3:800");
    mkdir("w/sub", 0755);
    inotify_add_watch(notifier, "w/sub", IN_ALL_EVENTS);
    drain();
    rmdir("w/sub");
    SAW("a watched directory goes", "5:400 5:8000 3:40000200=sub");
    symlink("w", "l");
    YES("a link itself", inotify_add_watch(notifier, "l", IN_DONT_FOLLOW | IN_ALL_EVENTS) == 6);
    unlink("l");
    SAW("goes", "6:4 6:400 6:8000");
    int size = 0;
    put("w/z", "1");
    ioctl(notifier, FIONREAD, &size);
    EQ("bytes that wait", size, 4 * 32);
    char small[20];
    ERR("no room for one", read(notifier, small, sizeof small), EINVAL);
    EQ("room for one", read(notifier, buffer, 40), 32);
    SAW("the rest", "3:20=z 3:2=z 3:8=z");
    struct pollfd ready = {notifier, POLLIN, 0};
    EQ("nothing to read", poll(&ready, 1, 0), 0);
    close(open("w/z", O_RDONLY));
    EQ("something to read", poll(&ready, 1, 0), 1);
    drain();
}

static volatile sig_atomic_t heard, heard_fd;

static void hear(int number, siginfo_t *info, void *context) {
    heard++;
    heard_fd = info->si_fd;
}

static void of_directories(void) {
    struct sigaction action = {.sa_sigaction = hear, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigaction(SIGIO, &action, NULL);
    sigaction(SIGRTMIN, &action, NULL);
    mkdir("n", 0755);
    int fd = open("n", O_RDONLY), file = open("w/z", O_RDONLY);
    ERR("of a file", fcntl(file, F_NOTIFY, DN_CREATE), ENOTDIR);
    OK("nothing of a file", fcntl(file, F_NOTIFY, 0));
    OK("of a directory", fcntl(fd, F_NOTIFY, DN_CREATE));
    EQ("its owner", fcntl(fd, F_GETOWN), getpid());
    mkdir("n/a", 0755);
    EQ("create", heard, 1);
    mkdir("n/b", 0755);
    EQ("only once", heard, 1);
    fcntl(fd, F_SETSIG, SIGRTMIN);
    OK("again and again", fcntl(fd, F_NOTIFY, DN_CREATE | DN_DELETE | DN_MULTISHOT));
    rmdir("n/a");
    EQ("delete", heard, 2);
    EQ("which directory", heard_fd, fd);
    rmdir("n/b");
    EQ("delete again", heard, 3);
    mkdir("n/a", 0755);
    EQ("create as well", heard, 4);
    chmod("n/a", 0700);
    EQ("not what was not asked for", heard, 4);
    OK("more", fcntl(fd, F_NOTIFY, DN_ATTRIB | DN_MULTISHOT));
    chmod("n/a", 0755);
    EQ("attributes", heard, 5);
    chmod("n", 0700);
    EQ("and of itself", heard, 6);
    OK("no more", fcntl(fd, F_NOTIFY, 0));
    mkdir("n/c", 0755);
    EQ("silence", heard, 6);
    fcntl(fd, F_NOTIFY, DN_CREATE | DN_MULTISHOT);
    int copy = dup(fd);
    close(copy);
    mkdir("n/d", 0755);
    EQ("any close of it ends it", heard, 6);
    close(file), close(fd);
}

int main(void) {
    alarm(60);
    enter_directory();
    notifier = inotify_init1(IN_NONBLOCK);
    of_files();
    of_watches();
    of_directories();
    return 0;
}
