// Threads that make calls as fast as they can through call sites that get patched meanwhile, under a storm of signals whose handlers use vector
// registers. Prints what went wrong: wrong results, or registers that a call or a handler did not leave alone.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

enum { THREADS = 4 };

static volatile long signals_seen;
static volatile double from_handler;
static int zero;
static long rounds;

static void on_alarm(int number)
{
    (void)number;
    signals_seen++;
    from_handler = from_handler * 1.5 + (double)signals_seen;
}

// Registers that a call must leave alone, held across one.
static int registers_survive(void)
{
    long a = 0x1111, b = 0x2222, c = 0x3333, d = 0x4444, result;
    register long r12 asm("r12") = a, r13 asm("r13") = b, r14 asm("r14") = c, r15 asm("r15") = d;
    asm volatile("mov $110, %%eax; syscall" : "=a"(result), "+r"(r12), "+r"(r13), "+r"(r14), "+r"(r15) : : "rcx", "r11", "memory");
    return r12 == a && r13 == b && r14 == c && r15 == d && result == getppid();
}

static void *work(void *unused)
{
    (void)unused;
    char buffer[64];
    long wrong = 0;
    double sum = 0;
    for (long round = 0; round < rounds; round++) {
        wrong += syscall(SYS_getppid) != getppid();
        wrong += read(zero, buffer, sizeof buffer) != sizeof buffer;
        wrong += getuid() != geteuid();
        wrong += !registers_survive();
        sum += 1.25;
        wrong += sum != (double)(round + 1) * 1.25;
    }
    return (void *)wrong;
}

// A read at a patched site that a signal interrupts goes on afterwards.
static int read_is_restarted(void)
{
    char byte = 0;
    int pipes[2];
    if (pipe(pipes))
        return 0;
    for (int i = 0; i < 100; i++)
        if (write(pipes[1], "x", 1) != 1 || read(pipes[0], &byte, 1) != 1)
            return 0;
    if (fork() == 0) {
        usleep(1000);
        kill(getppid(), SIGALRM);
        usleep(20000);
        kill(getppid(), SIGALRM);
        usleep(20000);
        _exit(write(pipes[1], "y", 1) != 1);
    }
    int got = read(pipes[0], &byte, 1);
    return got == 1 && byte == 'y';
}

int main(int count, char **arguments)
{
    rounds = count > 1 ? atol(arguments[1]) : 1000;
    zero = open("/dev/zero", O_RDONLY);
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    long wrong = !read_is_restarted();
    struct itimerval often = {{0, 500}, {0, 500}};
    setitimer(ITIMER_REAL, &often, NULL);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, work, NULL);
    wrong += (long)work(NULL);
    for (int i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        wrong += (long)result;
    }
    struct itimerval never = {0};
    setitimer(ITIMER_REAL, &never, NULL);
    // Who reads the program's own code sees whether it was patched: `mov eax, 110`, or a jump.
    const unsigned char *code = (const unsigned char *)getppid;
    int patched = 0;
    for (int i = 0; i < 16; i++)
        patched |= code[i] == 0xff && code[i + 1] == 0x24 && code[i + 2] == 0x25;
    printf("%ld wrong, signals %s, %s\n", wrong, signals_seen > 0 ? "seen" : "missed", patched ? "patched" : "as it was");
    return wrong != 0;
}
