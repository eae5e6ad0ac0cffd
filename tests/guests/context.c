/* Overwrites the pages through which the kernel talks to guest threads, while the kernel reads them. */
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SLOTS 0x7ff200000000UL
#define SLOT_SIZE 0x8000UL

static uint64_t state;
static __thread sigjmp_buf away;

static uint64_t next(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static void leave(int signal) {
    (void)signal;
    siglongjmp(away, 1);
}

static void *scribble(void *how) {
    for (long round = 0; round < 200000; round++) {
        volatile uint8_t *slot = (uint8_t *)(SLOTS + next() % 64 * SLOT_SIZE);
        uint64_t place = next() % 4 ? next() % 64 : next() % SLOT_SIZE;
        uint64_t value = next() % 3 ? next() % 8 : next() % 2 ? SLOTS + next() % (64 * SLOT_SIZE) : next();
        if (sigsetjmp(away, 1)) continue;
        if (how)
            *(volatile uint32_t *)(slot + (place & ~3UL)) = value;
        else
            *(volatile uint64_t *)(slot + (place & ~7UL)) = value;
    }
    return 0;
}

static void child(int seed) {
    state = (seed + 1) * 0x9e3779b97f4a7c15UL | 1;
    alarm(2);
    signal(SIGSEGV, leave);
    signal(SIGBUS, leave);
    pthread_t thread;
    if (sigsetjmp(away, 1) == 0) {
        pthread_create(&thread, 0, scribble, (void *)(uintptr_t)(seed & 1));
        for (int i = 0; i < 20000; i++) {
            getppid();
            if (i % 100 == 0) {
                int fds[2];
                if (pipe(fds) == 0) close(fds[0]), close(fds[1]);
            }
        }
    }
    _exit(0);
}

int main(int argc, char **argv) {
    time_t end = time(0) + atoi(argv[1]);
    int children = 0;
    while (time(0) < end) {
        pid_t pid = fork();
        if (pid == 0) child(children);
        if (pid < 0) return 2;
        for (int i = 0; i < 300; i++) {
            if (waitpid(pid, 0, WNOHANG) != 0) break;
            usleep(10000);
        }
        kill(pid, SIGKILL);
        waitpid(pid, 0, 0);
        children++;
    }
    printf("children %d\n", children);
    (void)argc;
    return 0;
}
