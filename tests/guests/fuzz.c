/* Random system calls with random arguments, in children, for so many seconds. Says how many children there were.
 * Signals to others are left out: a guest that kills its own first process proves nothing. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t state;

static uint64_t next(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static char *memory;
static const char *paths[] = {"/", "/tmp", "/proc/self/mem", "/proc/self/maps", "/dev/null", "/dev/zero", "/etc/passwd", "/dev/ptmx",
                              "/tmp/x", "/tmp/y/z", "/proc/self/fd/0", "/sys", "..", "", "/dev/shm/s", "/proc/1/status"};

static uint64_t argument(void) {
    switch (next() % 14) {
    case 0: return 0;
    case 1: return next() % 16;
    case 2: return -1UL;
    case 3: return next() % 4096;
    case 4: return (uint64_t)memory + next() % 65536;
    case 5: return (uint64_t)memory;
    case 6: return (uint64_t)paths[next() % (sizeof paths / sizeof *paths)];
    case 7: return 1UL << (next() % 64);
    case 8: return next();
    case 9: return 0x7ff100000000UL + next() % 8192;
    case 10: return 0x7ff200000000UL + next() % 65536;
    case 11: return next() & 0xffffffff;
    case 12: return -(next() % 200);
    default: return 3 + next() % 8;
    }
}

static int left_out(long number) {
    switch (number) {
    case SYS_exit: case SYS_exit_group: case SYS_kill: case SYS_tkill: case SYS_tgkill: case SYS_rt_sigqueueinfo:
    case SYS_rt_tgsigqueueinfo: case SYS_pidfd_send_signal: case SYS_vfork: case SYS_reboot: case SYS_rt_sigreturn:
        return 1;
    default:
        return 0;
    }
}

static void child(void) {
    alarm(2);
    for (int i = 0; i < 8192; i++) memory[i * 8] = next();
    for (int i = 0; i < 3000; i++) {
        long number = next() % 475;
        if (left_out(number)) continue;
        if (next() % 64 == 0) number = next();
        uint64_t a[6];
        for (int j = 0; j < 6; j++) a[j] = argument();
        syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    }
    _exit(0);
}

int main(int argc, char **argv) {
    time_t end = time(0) + atoi(argv[1]);
    uint64_t seed = argc > 2 ? strtoull(argv[2], 0, 0) : 1;
    memory = mmap(0, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int children = 0;
    /* Descendants of the children are ours in the end. */
    syscall(SYS_prctl, 36, 1, 0, 0, 0);
    while (time(0) < end) {
        state = (seed + children) * 0x9e3779b97f4a7c15UL | 1;
        pid_t pid = fork();
        if (pid == 0) {
            setpgid(0, 0);
            child();
        }
        if (pid < 0) {
            /* What earlier children left behind holds all processes that there may be. */
            while (waitpid(-1, 0, WNOHANG) > 0);
            usleep(10000);
            continue;
        }
        for (int i = 0; i < 300; i++) {
            int status;
            if (waitpid(pid, &status, WNOHANG) != 0) break;
            usleep(10000);
        }
        kill(-pid, SIGKILL);
        kill(pid, SIGKILL);
        waitpid(pid, 0, 0);
        while (waitpid(-1, 0, WNOHANG) > 0);
        children++;
    }
    printf("children %d\n", children);
    return children == 0;
}
