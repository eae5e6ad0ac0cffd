/* CVE-2019-5736: whoever enters the sandbox is asked for the file that it executes, which is then overwritten. Runs for so many seconds. */
#include "case.h"

static int tried, written;

static void overwrite(const char *process) {
    char name[300];
    snprintf(name, sizeof name, "/proc/%s/exe", process);
    int fd = open(name, O_RDONLY);
    if (fd < 0) return;
    tried++;
    char magic[64] = "", link[40];
    /* Programs of this sandbox may be opened as any file; what is not one of them must not appear at all. */
    ssize_t length = readlink(name, magic, sizeof magic - 1);
    if (length > 0 && strstr(magic, "cloudpilot-sandbox")) printf("FAIL %s leads to %s\n", name, magic);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    for (int flags = O_WRONLY; flags <= O_RDWR; flags++) {
        int writable = open(link, flags | O_TRUNC);
        if (writable >= 0 && write(writable, "#!/bin/false\n", 13) > 0) written++;
        if (writable >= 0) close(writable);
    }
    close(fd);
}

int main(int argc, char **argv) {
    long long end = now_ms() + atoi(argv[1]) * 1000LL;
    puts("ready");
    fflush(stdout);
    while (now_ms() < end) {
        DIR *directory = opendir("/proc");
        for (struct dirent *entry; (entry = readdir(directory));)
            if (entry->d_name[0] >= '0' && entry->d_name[0] <= '9' && atoi(entry->d_name) != getpid()) overwrite(entry->d_name);
        closedir(directory);
        nap(1);
    }
    printf("done %d\n", tried);
    return 0;
}
