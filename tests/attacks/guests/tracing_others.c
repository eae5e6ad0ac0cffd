/* A user inside tries to reach processes of root through ptrace and /proc, and to keep a hold on a program that changes its user. */
#include "case.h"
#include <sys/ptrace.h>
#include <sys/user.h>

#define SETUID_PROGRAM "/tmp/changes-user"

static pid_t victim;
static char secret[] = "the victim's secret";

static void refused(const char *form, int flags) {
    char name[64], what[100];
    snprintf(name, sizeof name, form, victim);
    snprintf(what, sizeof what, "%s %s", flags == O_RDONLY ? "reading" : "writing", form);
    errno = 0;
    int fd = open(name, flags);
    char byte;
    int failed = fd < 0 || (flags == O_RDONLY ? pread(fd, &byte, 1, (off_t)secret) : pwrite(fd, "X", 1, (off_t)secret)) != 1;
    EQ(what, failed, 1);
    if (fd >= 0) close(fd);
}

static void others(void) {
    ERR("PTRACE_ATTACH", ptrace(PTRACE_ATTACH, victim, 0, 0), EPERM);
    YES("PTRACE_SEIZE", ptrace(PTRACE_SEIZE, victim, 0, 0) == -1);
    ERR("PTRACE_PEEKDATA", ptrace(PTRACE_PEEKDATA, victim, secret, 0), ESRCH);
    struct iovec own = {(char[8]){0}, 8}, other = {secret, 8};
    ERR("process_vm_readv", process_vm_readv(victim, &own, 1, &other, 1, 0), EPERM);
    ERR("process_vm_writev", process_vm_writev(victim, &own, 1, &other, 1, 0), EPERM);
    refused("/proc/%d/mem", O_RDONLY);
    refused("/proc/%d/mem", O_RDWR);
    refused("/proc/%d/environ", O_RDONLY);
    refused("/proc/%d/auxv", O_RDONLY);
    char name[64], link[64];
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "/proc/%d/%s", victim, (char *[]){"root", "cwd", "exe"}[i]);
        ERR(name + 6, readlink(name, link, sizeof link), EACCES);
    }
    snprintf(name, sizeof name, "/proc/%d/root/etc/passwd", victim);
    ERR("through its root", open(name, O_RDONLY), EACCES);
    snprintf(name, sizeof name, "/proc/%d/fd", victim);
    ERR("its descriptors", open(name, O_RDONLY), EACCES);
    ERR("kill", kill(victim, SIGKILL), EPERM);
    ERR("the first process's memory", open("/proc/1/mem", O_RDWR), EACCES);
    ERR("tracing the first process", ptrace(PTRACE_ATTACH, 1, 0, 0), EPERM);
}

/* A program that is traced gets no rights by being set-user-ID. */
static void traced_exec(void) {
    int status, fds[2];
    pipe(fds);
    pid_t child = fork();
    if (child == 0) {
        dup2(fds[1], 1);
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        execl(SETUID_PROGRAM, "program", "user", 0);
        _exit(1);
    }
    close(fds[1]);
    waitpid(child, &status, 0);
    YES("a traced child stops at its exec", WIFSTOPPED(status));
    ptrace(PTRACE_DETACH, child, 0, 0);
    char text[16] = "";
    read(fds[0], text, sizeof text - 1);
    waitpid(child, &status, 0);
    EQ("a traced program does not change its user", atoi(text), 1000);
    close(fds[0]);
}

/* CVE-2012-0056: a descriptor of one's own memory, kept across the exec of a set-user-ID program, led into that program's memory. */
static void memory_kept(void) {
    int memory = open("/proc/self/mem", O_RDWR), status;
    pid_t child = fork();
    if (child == 0) {
        /* It writes its second argument to its standard error, whose position is its own secret. */
        char own[40];
        snprintf(own, sizeof own, "/proc/%d/mem", getpid());
        int fd = open(own, O_RDWR);
        lseek(fd, (off_t)secret, SEEK_SET);
        dup2(fd, 2);
        execl(SETUID_PROGRAM, "program", "write", "OVERWRITTEN", 0);
        _exit(9);
    }
    waitpid(child, &status, 0);
    EQ("memory opened before an exec is not the new program's", WIFEXITED(status) ? WEXITSTATUS(status) : -1, 0);
    close(memory);
}

/* While it changes its user, a program of the same starter cannot be traced. */
static void race(void) {
    for (int i = 0; i < 20; i++) {
        pid_t child = fork();
        if (child == 0) {
            execl(SETUID_PROGRAM, "program", "stay", 0);
            _exit(1);
        }
        int caught = 0;
        for (int j = 0; j < 2000 && !caught; j++) {
            caught = ptrace(PTRACE_ATTACH, child, 0, 0) == 0;
            if (!caught && errno == EPERM) break;
        }
        if (caught) {
            int status;
            waitpid(child, &status, 0);
            char name[40], text[4096] = "";
            snprintf(name, sizeof name, "/proc/%d/status", child);
            int fd = open(name, O_RDONLY);
            read(fd, text, sizeof text - 1);
            close(fd);
            /* Real, effective, saved: a traced one is 1000 in all. */
            if (strstr(text, "Uid:\t1000\t0")) printf("FAIL a tracer holds a program of root\n");
            ptrace(PTRACE_DETACH, child, 0, 0);
        }
        kill(child, SIGKILL);
        /* Root's by now: it ends by itself. */
        waitpid(child, 0, 0);
    }
    puts("ok race");
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "user")) return printf("%d\n", geteuid()) < 0;
    if (argc > 1 && !strcmp(argv[1], "stay")) return nap(30), 0;
    if (argc > 1 && !strcmp(argv[1], "write")) {
        write(2, argv[2], strlen(argv[2]));
        return strcmp(secret, "the victim's secret") != 0;
    }
    victim = fork();
    if (victim == 0) {
        nap(60000);
        _exit(0);
    }
    char copy[400];
    snprintf(copy, sizeof copy, "cp /proc/%d/exe " SETUID_PROGRAM " && chmod 4755 " SETUID_PROGRAM, getpid());
    OK("copy", system(copy));
    setgid(1000);
    setuid(1000);
    prctl(PR_SET_DUMPABLE, 1);
    others();
    traced_exec();
    memory_kept();
    race();
    puts("done");
    return 0;
}
