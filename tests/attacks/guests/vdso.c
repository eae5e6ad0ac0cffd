/* Tries to change the code that every process maps to ask what time it is. */
#include "case.h"
#include <sys/auxv.h>
#include <sys/ptrace.h>

int main(void) {
    char *vdso = (char *)getauxval(AT_SYSINFO_EHDR), before[4096], after[4096];
    if (!vdso) return puts("ok there is none\ndone") < 0;
    memcpy(before, vdso, sizeof before);
    YES("it does not become writable", mprotect(vdso, 4096, PROT_READ | PROT_WRITE) == -1);
    int memory = open("/proc/self/mem", O_RDWR), status;
    pwrite(memory, "BROKEN", 6, (off_t)vdso);
    struct iovec own = {"BROKEN", 6}, other = {vdso, 6};
    process_vm_writev(getpid(), &own, 1, &other, 1, 0);
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        /* Whatever the tracer did to its own child's copy. */
        _exit(0);
    }
    waitpid(child, &status, 0);
    ptrace(PTRACE_POKETEXT, child, vdso + 64, 0x4141414141414141);
    kill(child, SIGKILL);
    ptrace(PTRACE_CONT, child, 0, 0);
    waitpid(child, &status, 0);
    CHILD(status, {
        munmap(vdso, 4096);
        mmap(vdso, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        mremap(vdso, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, 0x10000000);
        madvise(vdso, 4096, MADV_DONTNEED);
    });
    memcpy(after, vdso, sizeof after);
    EQ("its code is what it was", memcmp(before, after, sizeof before), 0);
    execl("/bin/date", "date", "+done", NULL);
    return 1;
}
