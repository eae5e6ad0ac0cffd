/* Leases: who gets one, what breaks it, who hears of it, and how long an opener waits. */
#include "case.h"

#define BREAK_TIME "/proc/sys/fs/lease-break-time"

static volatile sig_atomic_t heard, heard_fd, heard_code;
static volatile long heard_band;

static void hear(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    heard_fd = info->si_fd;
    heard_code = info->si_code;
    heard_band = info->si_band;
    heard++;
}

static int opened(const char *name, int flags) {
    int fd = open(name, flags);
    if (fd >= 0)
        close(fd);
    return fd >= 0 ? 0 : -1;
}

static void giving(void) {
    put("a", "hello");
    int file = open("a", O_RDONLY);
    EQ("none at first", fcntl(file, F_GETLEASE), F_UNLCK);
    ERR("nothing to give back", fcntl(file, F_SETLEASE, F_UNLCK), EAGAIN);
    ERR("unknown kind", fcntl(file, F_SETLEASE, 3), EINVAL);
    ERR("negative kind", fcntl(file, F_SETLEASE, -1), EINVAL);
    OK("read lease", fcntl(file, F_SETLEASE, F_RDLCK));
    EQ("is held", fcntl(file, F_GETLEASE), F_RDLCK);
    OK("read lease again", fcntl(file, F_SETLEASE, F_RDLCK));
    EQ("the owner is set", fcntl(file, F_GETOWN), getpid());
    int copy = dup(file);
    EQ("a copy has it too", fcntl(copy, F_GETLEASE), F_RDLCK);
    close(copy);
    EQ("and leaves it", fcntl(file, F_GETLEASE), F_RDLCK);
    int other = open("a", O_RDONLY);
    EQ("another open file has none", fcntl(other, F_GETLEASE), F_UNLCK);
    OK("two read leases", fcntl(other, F_SETLEASE, F_RDLCK));
    ERR("no write lease beside them", fcntl(other, F_SETLEASE, F_WRLCK), EAGAIN);
    OK("give one back", fcntl(other, F_SETLEASE, F_UNLCK));
    ERR("write lease while others read", fcntl(file, F_SETLEASE, F_WRLCK), EAGAIN);
    close(other);
    OK("write lease alone", fcntl(file, F_SETLEASE, F_WRLCK));
    EQ("write lease is held", fcntl(file, F_GETLEASE), F_WRLCK);
    OK("down to a read lease", fcntl(file, F_SETLEASE, F_RDLCK));
    OK("give it back", fcntl(file, F_SETLEASE, F_UNLCK));
    EQ("the owner is gone", fcntl(file, F_GETOWN), 0);
    int path = open("a", O_PATH);
    ERR("path descriptor", fcntl(path, F_SETLEASE, F_RDLCK), EBADF);
    OK("path descriptors do not count", fcntl(file, F_SETLEASE, F_WRLCK));
    close(path);
    close(file);
    file = open("a", O_RDWR);
    ERR("read lease of a writer", fcntl(file, F_SETLEASE, F_RDLCK), EAGAIN);
    OK("write lease of a writer", fcntl(file, F_SETLEASE, F_WRLCK));
    EQ("is a write lease", fcntl(file, F_GETLEASE), F_WRLCK);
    close(file);
    file = open("a", O_RDONLY);
    int writer = open("a", O_WRONLY);
    ERR("read lease beside a writer", fcntl(file, F_SETLEASE, F_RDLCK), EAGAIN);
    ERR("write lease beside a writer", fcntl(file, F_SETLEASE, F_WRLCK), EAGAIN);
    close(writer);
    OK("read lease after it", fcntl(file, F_SETLEASE, F_RDLCK));
    close(file);
    file = open("a", O_RDONLY);
    EQ("the last close gives it back", fcntl(file, F_GETLEASE), F_UNLCK);
    close(file);
    file = open(".", O_RDONLY | O_DIRECTORY);
    ERR("write lease on a directory", fcntl(file, F_SETLEASE, F_WRLCK), EINVAL);
    close(file);
    int ends[2];
    if (pipe(ends) == 0) {
        ERR("lease on a pipe", fcntl(ends[0], F_SETLEASE, F_RDLCK), EINVAL);
        close(ends[0]), close(ends[1]);
    }
    ERR("lease on nothing", fcntl(99, F_SETLEASE, F_RDLCK), EBADF);
    chmod("a", 0644);
    int status;
    CHILD(status, {
        file = open("a", O_RDONLY);
        if (setresgid(1000, 1000, 1000) || setresuid(1000, 1000, 1000))
            _exit(2);
        _exit(fcntl(file, F_SETLEASE, F_RDLCK) == -1 && errno == EACCES);
    });
    EQ("somebody else's file", status, 1 << 8);
}

static void breaking(void) {
    struct sigaction action = {.sa_sigaction = hear, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigaction(SIGIO, &action, NULL);
    sigaction(SIGRTMIN, &action, NULL);
    put("b", "hello");
    int file = open("b", O_RDONLY);
    fcntl(file, F_SETLEASE, F_RDLCK);
    OK("readers do not break a read lease", opened("b", O_RDONLY | O_NONBLOCK));
    EQ("nobody hears", heard, 0);
    ERR("a writer does", opened("b", O_WRONLY | O_NONBLOCK), EWOULDBLOCK);
    EQ("the holder hears", heard, 1);
    EQ("from the kernel", heard_code, SI_KERNEL);
    EQ("it is to go", fcntl(file, F_GETLEASE), F_UNLCK);
    ERR("another writer waits, too", opened("b", O_WRONLY | O_NONBLOCK), EWOULDBLOCK);
    EQ("the holder hears once", heard, 1);
    OK("give it back", fcntl(file, F_SETLEASE, F_UNLCK));
    OK("writers may open", opened("b", O_WRONLY | O_NONBLOCK));
    fcntl(file, F_SETLEASE, F_RDLCK);
    ERR("truncation while opening", opened("b", O_WRONLY | O_TRUNC | O_NONBLOCK), EWOULDBLOCK);
    struct stat st;
    fstat(file, &st);
    EQ("did not happen", st.st_size, 5);
    fcntl(file, F_SETLEASE, F_UNLCK);

    heard = 0;
    OK("a signal of one's own", fcntl(file, F_SETSIG, SIGRTMIN));
    fcntl(file, F_SETLEASE, F_WRLCK);
    ERR("a reader breaks a write lease", opened("b", O_RDONLY | O_NONBLOCK), EWOULDBLOCK);
    EQ("heard by it", heard, 1);
    EQ("with the descriptor", heard_fd, file);
    EQ("the code", heard_code, POLL_MSG);
    EQ("and the band", heard_band, POLLIN | POLLRDNORM | POLLMSG);
    EQ("it is to be a read lease", fcntl(file, F_GETLEASE), F_RDLCK);
    OK("made one", fcntl(file, F_SETLEASE, F_RDLCK));
    OK("which lets readers in", opened("b", O_RDONLY | O_NONBLOCK));
    fcntl(file, F_SETLEASE, F_UNLCK);
    EQ("the signal went with the lease", fcntl(file, F_GETSIG), 0);

    heard = 0;
    fcntl(file, F_SETLEASE, F_WRLCK);
    ERR("a reader", opened("b", O_RDONLY | O_NONBLOCK), EWOULDBLOCK);
    ERR("then a writer", opened("b", O_WRONLY | O_NONBLOCK), EWOULDBLOCK);
    EQ("both are heard", heard, 2);
    EQ("no lease is to be left", fcntl(file, F_GETLEASE), F_UNLCK);
    fcntl(file, F_SETLEASE, F_UNLCK);

    heard = 0;
    fcntl(file, F_SETLEASE, F_RDLCK);
    OK("metadata breaks nothing", chmod("b", 0600));
    OK("nor does stat", stat("b", &st));
    OK("nor a new name", rename("b", "c"));
    OK("nor a path descriptor", opened("c", O_PATH));
    EQ("nobody heard", heard, 0);
    rename("c", "b");
    close(file);
}

static void *give_back(void *argument) {
    nap(100);
    fcntl(*(int *)argument, F_SETLEASE, F_UNLCK);
    return NULL;
}

static void *open_for_writing(void *argument) {
    int fd = open("w", O_WRONLY);
    *(int *)argument = fd;
    return NULL;
}

static void waiting(void) {
    put("w", "hello");
    int file = open("w", O_RDONLY);
    fcntl(file, F_SETLEASE, F_RDLCK);
    heard = 0;
    pthread_t thread;
    pthread_create(&thread, NULL, give_back, &file);
    int writer = open("w", O_WRONLY);
    YES("an opener waits until it is given back", writer >= 0);
    EQ("the holder heard", heard, 1);
    pthread_join(thread, NULL);
    close(writer);

    fcntl(file, F_SETLEASE, F_RDLCK);
    heard = 0;
    pthread_create(&thread, NULL, give_back, &file);
    OK("truncate waits as well", truncate("w", 1));
    EQ("and is heard", heard, 1);
    pthread_join(thread, NULL);

    int status;
    fcntl(file, F_SETLEASE, F_RDLCK);
    CHILD(status, {
        struct sigaction action = {.sa_sigaction = hear, .sa_flags = SA_SIGINFO};
        sigaction(SIGALRM, &action, NULL);
        struct itimerval soon = {{0, 50000}, {0, 50000}};
        setitimer(ITIMER_REAL, &soon, NULL);
        _exit(open("w", O_WRONLY) == -1 && errno == EINTR);
    });
    EQ("a signal ends the wait", status, 1 << 8);
    fcntl(file, F_SETLEASE, F_UNLCK);

    int number = -1;
    fcntl(file, F_SETLEASE, F_WRLCK);
    pthread_create(&thread, NULL, open_for_writing, &number);
    UNTIL(fcntl(file, F_GETLEASE) == F_UNLCK);
    close(file);
    pthread_join(thread, NULL);
    YES("closing lets the opener on", number >= 0);
    close(number);
}

static void settings(void) {
    char text[16] = {0};
    int fd = open(BREAK_TIME, O_RDONLY);
    YES("the time is told", read(fd, text, 15) > 0 && atoi(text) >= 0);
    close(fd);
    fd = open("/proc/sys/fs/leases-enable", O_RDONLY);
    memset(text, 0, sizeof text);
    YES("leases are on", read(fd, text, 15) > 0 && atoi(text) == 1);
    close(fd);
}

int main(void) {
    alarm(60);
    enter_directory();
    giving();
    breaking();
    waiting();
    settings();
    return 0;
}
