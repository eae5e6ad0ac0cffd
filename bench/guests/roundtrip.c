// Prints what system calls cost the program that makes them: a name and nanoseconds a line, medians over batches.
// Arguments: a file of the root, and a directory in memory.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { BATCHES = 25, BATCH_NS = 5000000, BLOCK = 4096, FILE_SIZE = 1 << 20 };

static int zero, file, memory;
static char buffer[BLOCK], path[4096];

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static void call_getppid(void) { syscall(SYS_getppid); }

static void call_read_zero(void) {
    if (read(zero, buffer, BLOCK) != BLOCK) exit(1);
}

static void read_block(int from) {
    static off_t offset;
    if (pread(from, buffer, BLOCK, offset) != BLOCK) exit(2);
    offset = (offset + BLOCK) % FILE_SIZE;
}

static void call_read_file(void) { read_block(file); }

static void call_read_memory(void) { read_block(memory); }

static void call_write_memory(void) {
    static off_t offset;
    if (pwrite(memory, buffer, BLOCK, offset) != BLOCK) exit(4);
    offset = (offset + BLOCK) % FILE_SIZE;
}

static void call_open_close(void) {
    int opened = open(path, O_RDONLY);
    if (opened < 0 || close(opened) != 0) exit(5);
}

static void call_stat(void) {
    struct stat result;
    if (stat(path, &result) != 0) exit(6);
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
    if (argc < 3) return 3;
    snprintf(path, sizeof path, "%s/roundtrip-%d", argv[2], getpid());
    zero = open("/dev/zero", O_RDONLY);
    file = open(argv[1], O_RDONLY);
    memory = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (zero < 0 || file < 0 || memory < 0) return 3;
    for (int offset = 0; offset < FILE_SIZE; offset += BLOCK) call_write_memory();
    measure("getppid", call_getppid);
    measure("read_zero", call_read_zero);
    measure("read_file", call_read_file);
    measure("read_memory", call_read_memory);
    measure("write_memory", call_write_memory);
    measure("open_close", call_open_close);
    measure("stat", call_stat);
    return unlink(path) != 0;
}
