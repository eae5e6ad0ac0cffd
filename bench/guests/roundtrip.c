// Prints what system calls cost the program that makes them: a name and nanoseconds a line, medians over batches.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { BATCHES = 25, BATCH_NS = 10000000, BLOCK = 4096 };

static int zero, file;
static char buffer[BLOCK];

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static void call_getppid(void) { syscall(SYS_getppid); }

static void call_read_zero(void) {
    if (read(zero, buffer, BLOCK) != BLOCK) exit(1);
}

static void call_read_file(void) {
    static off_t offset;
    if (pread(file, buffer, BLOCK, offset) != BLOCK) exit(2);
    offset = (offset + BLOCK) % (1 << 20);
}

static int compare(const void *one, const void *other) {
    double difference = *(const double *)one - *(const double *)other;
    return (difference > 0) - (difference < 0);
}

static void measure(const char *name, void (*call)(void)) {
    double results[BATCHES];
    long count = 16;
    // As many calls as take a batch's time; this also warms up.
    for (;;) {
        double before = now();
        for (long i = 0; i < count; i++) call();
        if (now() - before >= BATCH_NS) break;
        count *= 2;
    }
    for (int batch = 0; batch < BATCHES; batch++) {
        double before = now();
        for (long i = 0; i < count; i++) call();
        results[batch] = (now() - before) / count;
    }
    qsort(results, BATCHES, sizeof results[0], compare);
    printf("%s %.1f\n", name, results[BATCHES / 2]);
}

int main(int argc, char **argv) {
    zero = open("/dev/zero", O_RDONLY);
    file = open(argc > 1 ? argv[1] : "/data", O_RDONLY);
    if (zero < 0 || file < 0) return 3;
    measure("getppid", call_getppid);
    measure("read_zero", call_read_zero);
    measure("read_file", call_read_file);
    return 0;
}
