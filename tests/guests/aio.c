/* Asynchronous input and output: contexts, requests, their events, and what is refused at once. */
#include "case.h"
#include <linux/aio_abi.h>

static long io_setup(unsigned count, aio_context_t *context) { return syscall(SYS_io_setup, count, context); }
static long io_destroy(aio_context_t context) { return syscall(SYS_io_destroy, context); }
static long io_submit(aio_context_t context, long count, struct iocb **list) { return syscall(SYS_io_submit, context, count, list); }
static long io_cancel(aio_context_t context, struct iocb *request, struct io_event *event) { return syscall(SYS_io_cancel, context, request, event); }
static long io_getevents(aio_context_t context, long least, long most, struct io_event *events, struct timespec *timeout) {
    return syscall(SYS_io_getevents, context, least, most, events, timeout);
}

static struct timespec now_at_once = {0, 0};

static struct iocb make(int fd, int operation, void *buffer, size_t length, long long offset) {
    struct iocb request = {0};
    request.aio_fildes = fd;
    request.aio_lio_opcode = operation;
    request.aio_buf = (uintptr_t)buffer;
    request.aio_nbytes = length;
    request.aio_offset = offset;
    return request;
}

static long submit_one(aio_context_t context, struct iocb *request) {
    return io_submit(context, 1, &request);
}

/* The result of one request that is accepted. */
static long long result_of(aio_context_t context, struct iocb request) {
    struct io_event event = {0};
    if (submit_one(context, &request) != 1)
        return -1000 - errno;
    if (io_getevents(context, 1, 1, &event, NULL) != 1)
        return -2000;
    return event.res;
}

static void contexts(void) {
    aio_context_t context = 0, other = 0;
    ERR("no requests", io_setup(0, &context), EINVAL);
    ERR("bad pointer", io_setup(1, (void *)8), EFAULT);
    ERR("far too many", io_setup(-1, &context), EINVAL);
    ERR("more than allowed", io_setup(4000000, &context), EAGAIN);
    context = 1;
    ERR("not zero before", io_setup(1, &context), EINVAL);
    context = 0;
    OK("a context", io_setup(8, &context));
    YES("has a number", context != 0);
    OK("another", io_setup(1, &other));
    YES("with its own", context != other);
    OK("destroy it", io_destroy(other));
    ERR("again", io_destroy(other), EINVAL);
    ERR("none", io_destroy(0), EINVAL);
    struct io_event events[4];
    ERR("events of none", io_getevents(other, 0, 4, events, &now_at_once), EINVAL);
    ERR("submit to none", io_submit(other, 0, NULL), EINVAL);
    EQ("no events", io_getevents(context, 0, 4, events, &now_at_once), 0);
    EQ("none wanted", io_getevents(context, 0, 0, NULL, NULL), 0);
    ERR("least more than most", io_getevents(context, 2, 1, events, NULL), EINVAL);
    ERR("negative", io_getevents(context, -1, 1, events, NULL), EINVAL);
    ERR("bad timeout", io_getevents(context, 1, 1, events, (void *)8), EFAULT);
    struct timespec soon = {0, 20000000};
    EQ("time is over", io_getevents(context, 1, 1, events, &soon), 0);
    EQ("submit nothing", io_submit(context, 0, NULL), 0);
    ERR("submit less", io_submit(context, -1, NULL), EINVAL);
    ERR("submit a bad list", io_submit(context, 1, (void *)8), EFAULT);
    struct iocb *bad = (void *)8;
    ERR("submit a bad request", io_submit(context, 1, &bad), EFAULT);
    int status;
    CHILD(status, { _exit(io_destroy(context) == -1 && errno == EINVAL); });
    EQ("a child has none of them", status, 1 << 8);
    CHILD(status, {
        struct sigaction action = {.sa_handler = (void (*)(int))close};
        sigaction(SIGALRM, &action, NULL);
        struct itimerval tick = {{0, 20000}, {0, 20000}};
        setitimer(ITIMER_REAL, &tick, NULL);
        aio_context_t own = 0;
        io_setup(1, &own);
        _exit(io_getevents(own, 1, 1, events, NULL) == -1 && errno == EINTR);
    });
    EQ("a signal", status, 1 << 8);
    OK("destroyed at last", io_destroy(context));
}

static void transfers(void) {
    aio_context_t context = 0;
    io_setup(16, &context);
    int file = open("a", O_RDWR | O_CREAT | O_TRUNC, 0644);
    char text[16] = "hello world", got[16] = {0};
    struct iocb request = make(file, IOCB_CMD_PWRITE, text, 11, 0);
    request.aio_data = 77;
    request.aio_key = 5;
    EQ("submit a write", submit_one(context, &request), 1);
    EQ("its key", request.aio_key, 0);
    struct io_event events[4] = {{0}};
    EQ("its event", io_getevents(context, 1, 4, events, NULL), 1);
    EQ("data", events[0].data, 77);
    EQ("request", events[0].obj, (uintptr_t)&request);
    EQ("bytes", events[0].res, 11);
    EQ("nothing else", events[0].res2, 0);
    EQ("read", result_of(context, make(file, IOCB_CMD_PREAD, got, 5, 6)), 5);
    YES("what was written", !memcmp(got, "world", 5));
    EQ("the position stays", lseek(file, 0, SEEK_CUR), 0);
    EQ("read at the end", result_of(context, make(file, IOCB_CMD_PREAD, got, 5, 11)), 0);
    struct iovec pieces[2] = {{got, 3}, {got + 8, 3}};
    EQ("readv", result_of(context, make(file, IOCB_CMD_PREADV, pieces, 2, 0)), 6);
    YES("in pieces", !memcmp(got, "hel", 3) && !memcmp(got + 8, "lo ", 3));
    EQ("writev", result_of(context, make(file, IOCB_CMD_PWRITEV, pieces, 2, 20)), 6);
    EQ("no pieces", result_of(context, make(file, IOCB_CMD_PREADV, pieces, 0, 0)), 0);
    EQ("fsync", result_of(context, make(file, IOCB_CMD_FSYNC, NULL, 0, 0)), 0);
    EQ("fdsync", result_of(context, make(file, IOCB_CMD_FDSYNC, NULL, 0, 0)), 0);
    EQ("a bad buffer", result_of(context, make(file, IOCB_CMD_PREAD, (void *)8, 5, 0)), -EFAULT);
    struct iocb first = make(file, IOCB_CMD_PREAD, got, 1, 0), second = make(99, IOCB_CMD_PREAD, got, 1, 0);
    struct iocb *list[] = {&first, &second, &first};
    EQ("those before a bad one", io_submit(context, 3, list), 1);
    EQ("have events", io_getevents(context, 0, 4, events, &now_at_once), 1);
    ERR("the bad one alone", io_submit(context, 2, list + 1), EBADF);
    for (int i = 0; i < 3; i++)
        submit_one(context, &first);
    EQ("no more than asked for", io_getevents(context, 1, 2, events, NULL), 2);
    ERR("events nowhere", io_getevents(context, 1, 1, (void *)8, NULL), EFAULT);
    EQ("are not lost", io_getevents(context, 0, 4, events, &now_at_once), 1);

    first = make(file, IOCB_CMD_NOOP, got, 1, 0);
    ERR("no operation", submit_one(context, &first), EINVAL);
    first = make(file, 4, got, 1, 0);
    ERR("unknown operation", submit_one(context, &first), EINVAL);
    first = make(file, IOCB_CMD_PREAD, got, 1, -1);
    ERR("negative offset", submit_one(context, &first), EINVAL);
    first = make(file, IOCB_CMD_PREAD, got, -1, 0);
    ERR("negative length", submit_one(context, &first), EINVAL);
    first = make(file, IOCB_CMD_PREADV, (void *)8, 1, 0);
    ERR("bad pieces", submit_one(context, &first), EFAULT);
    first = make(file, IOCB_CMD_PREADV, pieces, 1025, 0);
    ERR("too many pieces", submit_one(context, &first), EINVAL);
    first = make(file, IOCB_CMD_PREAD, got, 1, 0);
    first.aio_reserved2 = 1;
    ERR("reserved", submit_one(context, &first), EINVAL);
    first.aio_reserved2 = 0;
    first.aio_rw_flags = 0x4000;
    ERR("unknown flags", submit_one(context, &first), EOPNOTSUPP);
    first = make(file, IOCB_CMD_FSYNC, NULL, 1, 0);
    ERR("fsync of a part", submit_one(context, &first), EINVAL);
    int reader = open("a", O_RDONLY), writer = open("a", O_WRONLY), directory = open(".", O_RDONLY), path = open("a", O_PATH);
    first = make(reader, IOCB_CMD_PWRITE, got, 1, 0);
    ERR("write to a reader", submit_one(context, &first), EBADF);
    first = make(writer, IOCB_CMD_PREAD, got, 1, 0);
    ERR("read from a writer", submit_one(context, &first), EBADF);
    first = make(directory, IOCB_CMD_PREAD, got, 1, 0);
    ERR("read a directory", submit_one(context, &first), EINVAL);
    first = make(path, IOCB_CMD_PREAD, got, 1, 0);
    ERR("read a path", submit_one(context, &first), EBADF);
    int append = open("a", O_WRONLY | O_APPEND);
    ftruncate(file, 11);
    EQ("append", result_of(context, make(append, IOCB_CMD_PWRITE, "!", 1, 0)), 1);
    EQ("at the end", lseek(file, 0, SEEK_END), 12);
    close(reader), close(writer), close(directory), close(path), close(append);

    int counter = eventfd(0, EFD_NONBLOCK);
    uint64_t value = 0;
    first = make(file, IOCB_CMD_PREAD, got, 1, 0);
    first.aio_flags = IOCB_FLAG_RESFD;
    first.aio_resfd = counter;
    submit_one(context, &first);
    submit_one(context, &first);
    EQ("events as well", io_getevents(context, 2, 2, events, NULL), 2);
    EQ("are counted", read(counter, &value, 8) == 8 ? value : 0, 2);
    first.aio_resfd = file;
    ERR("not in a file", submit_one(context, &first), EINVAL);
    first.aio_resfd = 99;
    ERR("nor in nothing", submit_one(context, &first), EBADF);
    EQ("an eventfd is read", (value = 3, write(counter, &value, 8), value = 0, result_of(context, make(counter, IOCB_CMD_PREAD, &value, 8, 0))), 8);
    EQ("its value", value, 3);
    close(counter);

    int ends[2];
    pipe(ends);
    EQ("write to a pipe", result_of(context, make(ends[1], IOCB_CMD_PWRITE, "xyz", 3, 0)), 3);
    EQ("read from it", result_of(context, make(ends[0], IOCB_CMD_PREAD, got, 8, 0)), 3);
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    EQ("nothing there", result_of(context, make(ends[0], IOCB_CMD_PREAD, got, 8, 0)), -EAGAIN);
    first = make(ends[0], IOCB_CMD_FSYNC, NULL, 0, 0);
    ERR("fsync of a pipe", submit_one(context, &first), EINVAL);
    close(ends[0]), close(ends[1]), close(file);
    io_destroy(context);
}

static void *write_later(void *argument) {
    nap(50);
    write(*(int *)argument, "x", 1);
    return NULL;
}

static void polling(void) {
    aio_context_t context = 0;
    struct io_event events[4] = {{0}};
    io_setup(4, &context);
    int ends[2];
    pipe(ends);
    struct iocb poll_in = make(ends[0], IOCB_CMD_POLL, (void *)POLLIN, 0, 0), poll_out = make(ends[1], IOCB_CMD_POLL, (void *)POLLOUT, 0, 0);
    EQ("ready at once", result_of(context, poll_out), POLLOUT);
    EQ("not ready", submit_one(context, &poll_in), 1);
    EQ("no event yet", io_getevents(context, 0, 1, events, &now_at_once), 0);
    pthread_t thread;
    pthread_create(&thread, NULL, write_later, &ends[1]);
    EQ("ready later", io_getevents(context, 1, 1, events, NULL), 1);
    YES("what is ready", events[0].res & POLLIN);
    EQ("of which request", events[0].obj, (uintptr_t)&poll_in);
    pthread_join(thread, NULL);
    char byte;
    read(ends[0], &byte, 1);
    EQ("wait again", submit_one(context, &poll_in), 1);
    ERR("cancel it", io_cancel(context, &poll_in, events), EINPROGRESS);
    EQ("it has an event, too", io_getevents(context, 1, 1, events, NULL), 1);
    EQ("of nothing", events[0].res, 0);
    ERR("cancel it again", io_cancel(context, &poll_in, events), EINVAL);
    poll_in.aio_key = 1;
    ERR("cancel with a strange key", io_cancel(context, &poll_in, events), EINVAL);
    ERR("cancel a bad request", io_cancel(context, (void *)8, events), EFAULT);
    poll_in.aio_key = 0;
    ERR("cancel in no context", io_cancel(0, &poll_in, events), EINVAL);
    poll_in.aio_nbytes = 1;
    ERR("poll with a length", submit_one(context, &poll_in), EINVAL);
    poll_in.aio_nbytes = 0;
    poll_in.aio_buf = 1 << 16;
    ERR("poll for too much", submit_one(context, &poll_in), EINVAL);
    poll_in.aio_buf = POLLIN;
    submit_one(context, &poll_in);
    close(ends[1]);
    EQ("the other end closes", io_getevents(context, 1, 1, events, NULL), 1);
    YES("hung up", events[0].res & POLLHUP);
    close(ends[0]);
    OK("destroy", io_destroy(context));
}

static void signals(void) {
    struct { const sigset_t *mask; size_t size; } given;
    aio_context_t context = 0;
    struct io_event events[1];
    sigset_t mask;
    sigemptyset(&mask);
    io_setup(1, &context);
    given.mask = &mask, given.size = 8;
    EQ("with a mask", syscall(SYS_io_pgetevents, context, 0, 1, events, &now_at_once, &given), 0);
    EQ("without", syscall(SYS_io_pgetevents, context, 0, 1, events, &now_at_once, NULL), 0);
    given.size = 4;
    ERR("a short mask", syscall(SYS_io_pgetevents, context, 0, 1, events, &now_at_once, &given), EINVAL);
    given.mask = (void *)8, given.size = 8;
    ERR("a bad mask", syscall(SYS_io_pgetevents, context, 0, 1, events, &now_at_once, &given), EFAULT);
    ERR("a bad pair", syscall(SYS_io_pgetevents, context, 0, 1, events, &now_at_once, (void *)8), EFAULT);
    int status;
    given.mask = &mask;
    CHILD(status, {
        struct sigaction action = {.sa_handler = (void (*)(int))close};
        sigaction(SIGUSR1, &action, NULL);
        sigset_t blocked;
        sigemptyset(&blocked);
        sigaddset(&blocked, SIGUSR1);
        sigprocmask(SIG_BLOCK, &blocked, NULL);
        aio_context_t own = 0;
        io_setup(1, &own);
        kill(getpid(), SIGUSR1);
        _exit(syscall(SYS_io_pgetevents, own, 1, 1, events, NULL, &given) == -1 && errno == EINTR);
    });
    EQ("a signal that only the call lets through", status, 1 << 8);
    io_destroy(context);
    char text[32] = {0};
    int fd = open("/proc/sys/fs/aio-nr", O_RDONLY);
    YES("how many there are", read(fd, text, 31) > 0 && atoi(text) >= 0);
    close(fd);
}

int main(void) {
    alarm(60);
    enter_directory();
    contexts();
    transfers();
    polling();
    signals();
    return 0;
}
