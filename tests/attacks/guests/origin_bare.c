/* Looks in what a first program is born with for traces of the process that its stub is a copy of: the thread pointer, the general registers
 * and the slot's page. Without a C library, which would have changed them. */
#include <stdint.h>

static long call(long number, long a, long b, long c) {
    long result;
    asm volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

static void say(const char *text) {
    long length = 0;
    while (text[length]) length++;
    call(1, 1, (long)text, length);
}

static void number(uint64_t value) {
    char text[20] = " 0x", *at = text + 3;
    for (int shift = 60; shift >= 0; shift -= 4) *at++ = "0123456789abcdef"[value >> shift & 15];
    *at++ = '\n';
    call(1, 1, (long)text, at - text);
}

/* Where Linux puts programs, their libraries and their stacks; our own guests' places are others. */
static int looks_like_the_hosts(uint64_t word, uint64_t stack) {
    if (word - stack + (64 << 20) < (128 << 20)) return 0;
    return (word >> 40 >= 0x55 && word >> 40 <= 0x56) || (word >= 0x7ff300000000 && word < 0x7fffffffffff);
}

void look(uint64_t *stack, uint64_t *registers) {
    uint64_t slot;
    asm volatile("rdgsbase %0" : "=r"(slot));
    uint64_t *page = (uint64_t *)slot;
    int found = 0;
    for (int i = 0; i < 0x8000 / 8; i++)
        if (looks_like_the_hosts(page[i], (uint64_t)stack)) found++, say("slot"), number(page[i]);
    for (int i = 0; i < 14; i++)
        if (registers[i]) found++, say("register"), number(registers[i]);
    uint64_t base = 1;
    call(158, 0x1003, (long)&base, 0);
    if (base) found++, say("thread pointer"), number(base);
    say(found ? "found\n" : "nothing\n");
    call(231, 0, 0, 0);
}

asm(".globl _start\n_start: movq %rsp, %xmm0\n"
    "push %r15\npush %r14\npush %r13\npush %r12\npush %r11\npush %r10\npush %r9\npush %r8\n"
    "push %rbp\npush %rdi\npush %rsi\npush %rdx\npush %rbx\npush %rax\n"
    "movq %xmm0, %rdi\nmov %rsp, %rsi\nand $-16, %rsp\ncall look\nhlt\n");
