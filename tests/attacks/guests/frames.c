/* Signal frames and instructions that make a processor or a kernel stumble on the way between privilege levels. Each in a child; whatever becomes
 * of it, everything else goes on. */
#include "case.h"
#include <ucontext.h>

#define STUB 0x7ff100000000UL
#define SLOTS 0x7ff200000000UL

static const uint64_t words[] = {0, 1, 0x2b, 0x33, 0x23, 0xffff, 0x7fffffffffff, 0x800000000000, 0xffff800000000000, -1UL,
                                 0xffffffffff600000, 0x7ffffffff000, STUB, STUB + 0x20, SLOTS, 0x60000, 0x202, 0x3000, 0x4102, 0x20000};
#define WORDS (sizeof words / sizeof *words)

static int place, value;

static void forge(int number, siginfo_t *info, void *context) {
    uint64_t *word = (uint64_t *)((ucontext_t *)context)->uc_mcontext.gregs;
    if (place < 23)
        word[place] = words[value];
    else if (place < 40) {
        /* The floating-point state: control words, the magic numbers and sizes behind it, the header of what is behind that. */
        char *state = (char *)((ucontext_t *)context)->uc_mcontext.fpregs;
        static const int offsets[] = {0, 24, 28, 464, 468, 472, 480, 484, 512, 520, 528, 536, 544, 576, 1024, 2048, 2692};
        if (state) memcpy(state + offsets[place - 23], &words[value], place - 23 < 4 ? 4 : 8);
    } else
        ((uint64_t *)context)[(place - 40) % 5] = words[value];
}

static void child_with_forged_frame(void) {
    struct sigaction action = {.sa_sigaction = forge, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &action, 0);
    alarm(2);
    raise(SIGUSR1);
    getppid();
    _exit(0);
}

/* Runs in a child that is killed after a while; what it does there is its own business. */
#define TRY(...)                                         \
    do {                                                 \
        fflush(stdout);                                  \
        pid_t pid_ = fork();                             \
        if (pid_ == 0) {                                 \
            alarm(1);                                    \
            __VA_ARGS__;                                     \
            _exit(0);                                    \
        }                                                \
        for (int i_ = 0; i_ < 1500; i_++) {              \
            if (waitpid(pid_, 0, WNOHANG)) break;        \
            if (i_ == 1499) kill(pid_, SIGKILL), waitpid(pid_, 0, 0); \
            nap(i_ < 10 ? 0 : 1);                        \
        }                                                \
    } while (0)

static void frames(void) {
    for (place = 0; place < 45; place++)
        for (value = 0; value < WORDS; value++) TRY(child_with_forged_frame());
    puts("ok forged frames");
}

/* The same in the memory that the thread shares with the kernel, which the host itself restores registers from. */
static void slots(void) {
    for (int word = 0; word < 512; word += 3)
        for (value = 0; value < WORDS; value += 4) TRY({
            uint64_t slot;
            asm volatile("rdgsbase %0" : "=r"(slot));
            volatile uint64_t *stack = (uint64_t *)(slot + 0x8000 - 0x1000);
            stack[word] = words[value];
            getppid();
            getppid();
            raise(SIGURG);
        });
    puts("ok forged slots");
}

/* Changes the sizes that a saved floating-point state tells of itself, wherever in the slot there is one. */
static void *change_sizes(void *given) {
    uint64_t slot = ((uint64_t *)given)[0], size = ((uint64_t *)given)[1];
    for (;;)
        for (uint64_t at = slot + 0x1000; at < slot + 0x8000 - 512; at += 64)
            if (*(volatile uint32_t *)(at + 464) == 0x46505853) {
                *(volatile uint32_t *)(at + 468) = size;
                *(volatile uint32_t *)(at + 480) = size;
            }
}

/* What the kernel of the sandbox copies from there has sizes that the guest chose, and that change while it looks. */
static void sizes(void) {
    for (int size = 500; size < 700; size += size > 510 && size < 580 ? 1 : 13) TRY({
        uint64_t arguments[2] = {0, size};
        asm volatile("rdgsbase %0" : "=r"(arguments[0]));
        struct sigaction action = {.sa_sigaction = forge, .sa_flags = SA_SIGINFO};
        place = 44, value = 0;
        sigaction(SIGUSR1, &action, 0);
        pthread_t thread;
        pthread_create(&thread, 0, change_sizes, arguments);
        for (int i = 0; i < 300; i++) raise(SIGUSR1);
    });
    puts("ok forged sizes");
}

static void instructions(void) {
    TRY(asm volatile("syscall" : : "a"(0x40000000L | 39)));
    TRY(asm volatile("syscall" : : "a"(-1L)));
    TRY(asm volatile("syscall" : : "a"(1L << 40 | 39)));
    TRY(asm volatile("int $0x80" : : "a"(20)));
    TRY(asm volatile("int $3"));
    TRY(asm volatile("int $4"));
    TRY(asm volatile("int $0x82"));
    TRY(asm volatile("sysenter"));
    TRY(asm volatile("sysret"));
    TRY(asm volatile("hlt"));
    TRY(asm volatile("cli"));
    TRY(asm volatile("rdmsr" : : "c"(0xc0000101)));
    TRY(asm volatile("wrmsr" : : "c"(0xc0000101), "a"(0), "d"(0)));
    TRY(asm volatile("rdpmc" : : "c"(0)));
    TRY(asm volatile("out %%al, $0x80" : : "a"(0)));
    TRY(asm volatile("in $0x60, %%al" : : : "rax"));
    TRY(asm volatile("mov %%cr0, %%rax" : : : "rax"));
    TRY(asm volatile("mov %%rax, %%dr7" : : "a"(0x401)));
    TRY(asm volatile("lgdt (%%rsp)" : : : "memory"));
    TRY(asm volatile("swapgs"));
    TRY(asm volatile("vmcall"));
    TRY(asm volatile("vmmcall"));
    TRY(asm volatile("ud2"));
    TRY(asm volatile("pushf; orl $0x100, (%%rsp); popf; nop; syscall; nop" : : "a"(39) : "rcx", "r11", "memory"));
    TRY(asm volatile("pushf; orl $0x40000, (%%rsp); popf; mov 1(%%rsp), %%rax; syscall" : : "a"(39) : "rcx", "r11", "memory"));
    TRY(asm volatile("pushf; orl $0x4000, (%%rsp); popf; syscall; iretq" : : "a"(39) : "rcx", "r11", "memory"));
    TRY(asm volatile("std; syscall" : : "a"(39) : "rcx", "r11", "memory"));
    TRY(asm volatile("push $0x2b; push $0; pushf; push $0x23; push $0x400000; iretq"));
    TRY(asm volatile("push $0; push $0; pushf; push $0; push $0; iretq"));
    TRY(asm volatile("push $0x23; push $0x400000; lretq"));
    TRY(asm volatile("mov %%rax, %%rsp; syscall" : : "a"(0x800000000000)));
    TRY(asm volatile("xor %%rsp, %%rsp; push %%rax" : :));
    TRY(asm volatile("jmp *%0" : : "r"(0x800000000000)));
    TRY(asm volatile("jmp *%0" : : "r"(0x7ffffffffffeUL)));
    TRY(asm volatile("call *%0" : : "r"(0xffffffffff600000), "D"(0), "S"(0)));
    puts("ok instructions");
}

static void segments(void) {
    static const uint64_t bases[] = {0, 1, 0x7fffffffffff, 0x7ff000000000, SLOTS, SLOTS + 0x8000, STUB};
    for (int i = 0; i < 7; i++) {
        TRY({ for (int j = 0; j < 200; j++) getppid(); asm volatile("wrgsbase %0" : : "r"(bases[i])); for (int j = 0; j < 200; j++) getppid(); });
        TRY({ for (int j = 0; j < 200; j++) getppid(); asm volatile("wrfsbase %0; syscall" : : "r"(bases[i]), "a"(39) : "rcx", "r11"); });
        TRY({ syscall(SYS_arch_prctl, 0x1001, bases[i]); for (int j = 0; j < 200; j++) getppid(); });
    }
    TRY({ asm volatile("wrgsbase %0" : : "r"(0x800000000000)); });
    for (int selector = 0; selector < 256; selector += 3) {
        TRY({ asm volatile("mov %0, %%gs" : : "r"(selector)); for (int j = 0; j < 100; j++) getppid(); });
        TRY({ asm volatile("mov %0, %%fs; syscall" : : "r"(selector), "a"(39) : "rcx", "r11"); });
        TRY({ asm volatile("mov %0, %%ds; mov %0, %%es; syscall" : : "r"(selector), "a"(39) : "rcx", "r11"); });
        TRY({ asm volatile("mov %0, %%ss; syscall" : : "r"(selector), "a"(39) : "rcx", "r11"); });
    }
    YES("modify_ldt is refused", syscall(SYS_modify_ldt, 1, words, 16) == -1);
    YES("set_thread_area is refused", syscall(SYS_set_thread_area, words) == -1);
    YES("iopl is refused", syscall(SYS_iopl, 3) == -1);
    YES("ioperm is refused", syscall(SYS_ioperm, 0, 16, 1) == -1);
}

int main(void) {
    setvbuf(stdout, 0, _IOLBF, 0);
    frames();
    slots();
    sizes();
    instructions();
    segments();
    int status;
    CHILD(status, getppid());
    EQ("all else goes on", status, 0);
    puts("done");
    return 0;
}
