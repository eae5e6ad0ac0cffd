// Prints what it costs to hand something over: between processes, between threads, from the kernel to a page, from a program to the next. A name and
// nanoseconds a line, medians over batches. With an argument it only ends: it is its own static program to be started.
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BATCHES = 15, ROUNDS = 400, STARTS = 6, MAPPED = 16 << 20, PAGE = 4096 };

static char **own_arguments;
static int there[2], back[2];
static atomic_uint word;
static volatile int stopping;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static int compare(const void *one, const void *other) {
    double difference = *(const double *)one - *(const double *)other;
    return (difference > 0) - (difference < 0);
}

static void measure(const char *name, double (*batch)(void)) {
    double results[BATCHES];
    batch();
    for (int index = 0; index < BATCHES; index++) results[index] = batch();
    qsort(results, BATCHES, sizeof results[0], compare);
    printf("%s %.1f\n", name, results[BATCHES / 2]);
    fflush(stdout);
}

// One byte there and back.
static double ping_pong(void) {
    char byte = 0;
    double before = now();
    for (int round = 0; round < ROUNDS; round++)
        if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1) exit(1);
    return (now() - before) / ROUNDS;
}

static pid_t echo(void) {
    pid_t child = fork();
    if (child == 0) {
        char byte;
        close(there[1]);
        while (read(there[0], &byte, 1) == 1)
            if (write(back[1], &byte, 1) != 1) break;
        _exit(0);
    }
    return child;
}

static void measure_pipes(void) {
    if (pipe(there) != 0 || pipe(back) != 0) exit(2);
    pid_t child = echo();
    measure("pipe", ping_pong);
    close(there[1]), close(there[0]), close(back[0]), close(back[1]);
    waitpid(child, NULL, 0);
}

static void measure_sockets(void) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) exit(3);
    there[1] = back[0] = ends[0], there[0] = back[1] = ends[1];
    pid_t child = echo();
    close(ends[1]);
    measure("socket", ping_pong);
    close(ends[0]);
    waitpid(child, NULL, 0);
}

static void hand_over(unsigned mine) {
    atomic_store(&word, !mine);
    syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    while (atomic_load(&word) != mine && !stopping) syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, !mine, NULL, NULL, 0);
}

static void *other_thread(void *unused) {
    while (atomic_load(&word) != 1) syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
    while (!stopping) hand_over(1);
    return unused;
}

static double futex_ping_pong(void) {
    double before = now();
    for (int round = 0; round < ROUNDS; round++) hand_over(0);
    return (now() - before) / ROUNDS;
}

static void measure_futex(void) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, other_thread, NULL) != 0) exit(4);
    measure("futex", futex_ping_pong);
    stopping = 1;
    atomic_store(&word, 1);
    syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    pthread_join(thread, NULL);
}

static double touch_pages(void) {
    char *memory = mmap(NULL, MAPPED, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) exit(5);
    madvise(memory, MAPPED, MADV_NOHUGEPAGE);
    double before = now();
    for (long offset = 0; offset < MAPPED; offset += PAGE) memory[offset] = 1;
    double after = now();
    munmap(memory, MAPPED);
    return (after - before) / (MAPPED / PAGE);
}

static double start_programs(void) {
    double before = now();
    for (int start = 0; start < STARTS; start++) {
        pid_t child = fork();
        if (child == 0) {
            execv("/proc/self/exe", own_arguments);
            _exit(1);
        }
        int status;
        if (waitpid(child, &status, 0) != child || status != 0) exit(6);
    }
    return (now() - before) / STARTS;
}

static double start_threads(void) {
    double before = now();
    for (int start = 0; start < STARTS; start++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, (void *(*)(void *))(void *)getpid, NULL) != 0) exit(7);
        pthread_join(thread, NULL);
    }
    return (now() - before) / STARTS;
}

int main(int argc, char **argv) {
    if (argc > 1) return 0;
    own_arguments = (char *[]){argv[0], "end", NULL};
    measure_pipes();
    measure_sockets();
    measure_futex();
    measure("fault", touch_pages);
    measure("exec", start_programs);
    measure("thread", start_threads);
    return 0;
}
