/* Maps every descriptor of the kernel process by the stub's own system call instruction, tries to change what is behind it, and at last
 * writes to it all. What it can reach that way is the sandbox's own memory. */
#include "case.h"

#define STUB ((uint8_t *)0x7ff100000000UL)
#define SLOTS 0x7ff200000000UL
#define PLACE 0x100000000000UL
#define LENGTH (1UL << 20)

static long result;

/* The instruction is followed by code of the stub, which goes on with the guest's registers: a call number that leads to `exit` ends the thread, so
 * each call is made in a process of its own, which says by a mapping that it shares how far it came. */
static volatile long *shared;

static uint8_t *instruction(void) {
    for (int i = 0; i < 4094; i++)
        if (STUB[i] == 0x0f && STUB[i + 1] == 0x05) return STUB + i;
    return 0;
}

/* Behind the first instruction there is `ud2` or a jump into a waiting loop; a handler for the former, a timer for the latter bring us back. */
static void back(int number) {
    shared[0]++;
    volatile char *at = (char *)PLACE;
    /* Where the mapping came to be it can be read now. */
    shared[1] = 1;
    for (unsigned long i = 0; i < LENGTH; i += 4096) {
        shared[2] += at[i] != 0;
        if (shared[3]) at[i] = 'X';
    }
    _exit(0);
}

static void map(uint8_t *place, int fd, int protection, int flags, long offset) {
    register long r10 asm("r10") = flags | MAP_FIXED;
    register long r8 asm("r8") = fd;
    register long r9 asm("r9") = offset;
    asm volatile("jmp *%[place]" : : [place] "r"(place), "a"(9L), "D"(PLACE), "S"(LENGTH), "d"((long)protection), "r"(r10), "r"(r8), "r"(r9)
                 : "memory", "rcx", "r11");
}

static int reached;

static void each(int writes) {
    for (int fd = 0; fd < 64; fd++) {
        shared[0] = shared[1] = shared[2] = 0, shared[3] = writes;
        pid_t pid = fork();
        if (pid == 0) {
            static char stack[65536];
            stack_t alternate = {stack, 0, sizeof stack};
            sigaltstack(&alternate, 0);
            struct sigaction action = {.sa_handler = back, .sa_flags = SA_ONSTACK | SA_NODEFER};
            for (int number = 1; number < 32; number++) sigaction(number, &action, 0);
            struct itimerval soon = {{0, 0}, {0, 20000}};
            setitimer(ITIMER_REAL, &soon, 0);
            map(instruction(), fd, writes ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, 0);
        }
        for (int i = 0; i < 100 && waitpid(pid, 0, WNOHANG) == 0; i++) {
            if (i == 99) kill(pid, SIGKILL), waitpid(pid, 0, 0);
            nap(1);
        }
        reached += shared[1] && shared[2];
    }
}

int main(void) {
    setvbuf(stdout, 0, _IOLBF, 0);
    shared = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    YES("the stub has a system call instruction", instruction());
    each(0);
    YES("by it the sandbox's own memory can be mapped", reached > 0);
    /* This breaks the sandbox's processes, ours among them. */
    each(1);
    puts("done");
    return 0;
}
