/* Costs of operations while much of a kind is there: `curves KIND SIZE` prints lines `OPERATION NANOSECONDS`, for one operation each. */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PROBES 200 /* operations that are measured once all of the kind is there */

static long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000L + time.tv_nsec;
}

static void say(const char *operation, long since, long count) { printf("%s %.1f\n", operation, (double)(now() - since) / count); }

static long must(long result, const char *what) {
    if (result < 0) {
        perror(what);
        exit(1);
    }
    return result;
}

static void *memory(size_t bytes) {
    void *place = calloc(1, bytes);
    return place ? place : (perror("memory"), exit(1), NULL);
}

/* The numbers 0 to size - 1 in an order without a pattern. */
static long scattered(long index, long size) { return index * 7919 % size; }

static sem_t *gates;
static sem_t passed;

static void *wait_at_gate(void *gate) {
    sem_wait(gate);
    sem_post(&passed);
    sem_wait(gate);
    return NULL;
}

static void threads(long size) {
    pthread_t *all = memory(size * sizeof *all);
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 << 10);
    gates = memory(size * sizeof *gates);
    sem_init(&passed, 0, 0);
    for (long i = 0; i < size; i++) sem_init(&gates[i], 0, 0);
    long start = now();
    for (long i = 0; i < size; i++) must(-pthread_create(&all[i], &small, wait_at_gate, &gates[i]), "thread");
    say("create", start, size);
    long probes = size < PROBES ? size : PROBES;
    start = now();
    for (long i = 0; i < probes; i++) {
        sem_post(&gates[size - 1 - i]);
        sem_wait(&passed);
    }
    say("wake", start, probes);
    for (long i = 0; i < size - probes; i++) sem_post(&gates[i]);
    for (long i = 0; i < size - probes; i++) sem_wait(&passed);
    start = now();
    for (long i = 0; i < size; i++) sem_post(&gates[i]);
    for (long i = 0; i < size; i++) pthread_join(all[i], NULL);
    say("end", start, size);
}

static void processes(long size) {
    int gate[2];
    char byte;
    must(pipe(gate), "pipe");
    long start = now();
    for (long i = 0; i < size; i++) {
        if (must(fork(), "fork") == 0) {
            close(gate[1]);
            _exit(read(gate[0], &byte, 1) != 0);
        }
    }
    say("fork", start, size);
    close(gate[1]);
    start = now();
    for (long i = 0; i < size; i++) must(wait(NULL), "wait");
    say("end", start, size);
}

static void files(long size) {
    int *all = memory(size * sizeof *all);
    long start = now();
    for (long i = 0; i < size; i++) all[i] = must(open("/dev/null", O_RDWR), "open");
    say("open", start, size);
    start = now();
    for (long i = 0; i < PROBES; i++) close(must(open("/dev/null", O_RDWR), "open"));
    say("open+close more", start, PROBES);
    start = now();
    for (long i = 0; i < size; i++) close(all[scattered(i, size)]);
    say("close", start, size);
}

static void directory(long size) {
    char name[64], place[] = "curves-XXXXXX";
    struct stat status;
    must(mkdtemp(place) ? 0 : -1, "directory");
    must(chdir(place), "directory");
    long start = now();
    for (long i = 0; i < size; i++) {
        snprintf(name, sizeof name, "file-%ld", i);
        close(must(open(name, O_CREAT | O_WRONLY, 0600), name));
    }
    say("create", start, size);
    start = now();
    for (long i = 0; i < size; i++) {
        snprintf(name, sizeof name, "file-%ld", scattered(i, size));
        must(stat(name, &status), name);
    }
    say("stat", start, size);
    long count = 0;
    start = now();
    DIR *list = opendir(".");
    while (readdir(list)) count++;
    say("list", start, count);
    closedir(list);
    start = now();
    for (long i = 0; i < size; i++) {
        snprintf(name, sizeof name, "file-%ld", scattered(i, size));
        must(unlink(name), name);
    }
    say("unlink", start, size);
    must(chdir("..") | rmdir(place), "directory");
}

static void mapped(long megabytes) {
    size_t length = (size_t)megabytes << 20;
    char *place = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    must(place == MAP_FAILED ? -1 : 0, "mmap");
    madvise(place, length, MADV_NOHUGEPAGE);
    long start = now();
    for (size_t at = 0; at < length; at += 4096) place[at] = 1;
    say("touch a page", start, length / 4096);
    start = now();
    munmap(place, length);
    say("unmap a page", start, length / 4096);
}

static void areas(long size) {
    char **all = memory(size * sizeof *all);
    long start = now();
    for (long i = 0; i < size; i++) {
        /* Neighbours differ, so that no two become one area. */
        all[i] = mmap(NULL, 8192, i % 2 ? PROT_READ | PROT_WRITE : PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        must(all[i] == MAP_FAILED ? -1 : 0, "mmap");
    }
    say("mmap", start, size);
    start = now();
    for (long i = 0; i < size; i++) must(mprotect(all[scattered(i, size)], 4096, PROT_READ | PROT_WRITE), "mprotect");
    say("mprotect", start, size);
    start = now();
    for (long i = 0; i < size; i++) all[scattered(i, size)][0] = 1;
    say("touch", start, size);
    start = now();
    for (long i = 0; i < size; i++) munmap(all[scattered(i, size)], 8192);
    say("munmap", start, size);
}

static void epoll(long size) {
    int *all = memory(size * sizeof *all);
    int poller = must(epoll_create1(0), "epoll");
    struct epoll_event event = {.events = EPOLLIN};
    unsigned long long number = 1;
    for (long i = 0; i < size; i++) all[i] = must(eventfd(0, EFD_NONBLOCK), "eventfd");
    long start = now();
    for (long i = 0; i < size; i++) {
        event.data.u64 = i;
        must(epoll_ctl(poller, EPOLL_CTL_ADD, all[i], &event), "add");
    }
    say("add", start, size);
    start = now();
    for (long i = 0; i < PROBES; i++) {
        int one = all[scattered(i, size)];
        must(write(one, &number, 8), "write");
        must(epoll_wait(poller, &event, 1, -1) == 1 ? 0 : -1, "wait");
        must(read(one, &number, 8), "read");
    }
    say("signal, wait, read", start, PROBES);
    start = now();
    for (long i = 0; i < size; i++) must(epoll_ctl(poller, EPOLL_CTL_DEL, all[scattered(i, size)], NULL), "remove");
    say("remove", start, size);
}

static void timers(long size) {
    timer_t *all = memory(size * sizeof *all);
    struct itimerspec far = {.it_value.tv_sec = 100000};
    struct sigevent event = {.sigev_notify = SIGEV_NONE};
    long start = now();
    for (long i = 0; i < size; i++) must(timer_create(CLOCK_MONOTONIC, &event, &all[i]), "timer");
    say("create", start, size);
    start = now();
    for (long i = 0; i < size; i++) must(timer_settime(all[scattered(i, size)], 0, &far, NULL), "arm");
    say("arm", start, size);
    start = now();
    for (long i = 0; i < size; i++) timer_delete(all[scattered(i, size)]);
    say("delete", start, size);
}

static void watches(long size) {
    char name[64], place[] = "curves-XXXXXX", events[4096];
    int *all = memory(size * sizeof *all), watcher = must(inotify_init1(0), "inotify");
    must(mkdtemp(place) ? 0 : -1, "directory");
    must(chdir(place), "directory");
    for (long i = 0; i < size; i++) {
        snprintf(name, sizeof name, "%ld", i);
        must(mkdir(name, 0700), name);
    }
    long start = now();
    for (long i = 0; i < size; i++) {
        snprintf(name, sizeof name, "%ld", i);
        all[i] = must(inotify_add_watch(watcher, name, IN_CREATE), name);
    }
    say("add", start, size);
    long probes = size < PROBES ? size : PROBES;
    start = now();
    for (long i = 0; i < probes; i++) {
        snprintf(name, sizeof name, "%ld/x", scattered(i, size));
        must(mknod(name, S_IFREG | 0600, 0), name);
        must(read(watcher, events, sizeof events), "event");
    }
    say("create, read", start, probes);
    start = now();
    for (long i = 0; i < size; i++) must(inotify_rm_watch(watcher, all[scattered(i, size)]), "remove");
    say("remove", start, size);
    for (long i = 0; i < size; i++) {
        snprintf(name, sizeof name, "%ld/x", i);
        unlink(name);
        snprintf(name, sizeof name, "%ld", i);
        rmdir(name);
    }
    must(chdir("..") | rmdir(place), "directory");
}

static void sockets(long pairs) {
    int(*all)[2] = memory(pairs * sizeof *all);
    char byte = 0;
    long start = now();
    for (long i = 0; i < pairs; i++) must(socketpair(AF_UNIX, SOCK_STREAM, 0, all[i]), "socketpair");
    say("pair", start, pairs);
    start = now();
    for (long i = 0; i < PROBES; i++) {
        int *pair = all[scattered(i, pairs)];
        must(write(pair[0], &byte, 1), "write");
        must(read(pair[1], &byte, 1), "read");
    }
    say("write, read", start, PROBES);
    start = now();
    for (long i = 0; i < pairs; i++) close(all[i][0]), close(all[i][1]);
    say("close", start, 2 * pairs);
}

int main(int count, char **words) {
    static const struct {
        const char *name;
        void (*measure)(long size);
    } kinds[] = {{"threads", threads}, {"processes", processes}, {"files", files},     {"directory", directory}, {"mapped", mapped},  {"areas", areas},
                 {"epoll", epoll},     {"timers", timers},       {"watches", watches}, {"sockets", sockets}};
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    for (size_t i = 0; count == 4 && i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(words[1], kinds[i].name) == 0) {
            must(chdir(words[3]), words[3]);
            kinds[i].measure(atol(words[2]));
            return 0;
        }
    fprintf(stderr, "usage: curves KIND SIZE DIRECTORY\n");
    return 2;
}
