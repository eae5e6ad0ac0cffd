//! The stub's code: the signal handler that every stop of the guest runs through. It lies alone in one page at [`STUB_CODE`], uses no
//! memory but its slot, and never returns except by `rt_sigreturn` to the guest.

use core::arch::global_asm;

use super::layout::{CORE_SEGMENT, SLOT_SIZE, STUB_CODE};

global_asm!(
    ".pushsection .text.cloudpilot_stub, \"ax\", @progbits",
    ".globl cloudpilot_stub_start",
    "cloudpilot_stub_start:",
    // Signal handler: rdi = signal, rsi = siginfo, rdx = ucontext; the stack is the slot's.
    "    mov rbx, rsp",
    "    and rbx, -{slot_size}",
    "    mov [rbx + 16], edi",
    "    mov [rbx + 24], rsi",
    "    mov [rbx + 32], rdx",
    "    mov eax, {core_segment}",
    "    lsl ecx, eax",
    "    mov [rbx + 48], ecx",
    "2:  xor eax, eax", // post: hand the turn to the kernel
    "    xchg [rbx], eax",
    "    cmp dword ptr [rbx + 8], 0",
    "    je 3f",
    "    mov rdi, rbx",
    "    mov esi, 1", // FUTEX_WAKE
    "    mov edx, 1",
    "    mov eax, 202",
    "    syscall",
    "3:  mov ecx, [rbx + 12]", // wait for the turn: spin a while
    "4:  mov eax, [rbx]",
    "    test eax, eax",
    "    jnz 7f",
    "    test ecx, ecx",
    "    jz 5f",
    "    pause",
    "    dec ecx",
    "    jmp 4b",
    "5:  mov eax, 1", // then sleep
    "    xchg [rbx + 4], eax",
    "6:  mov eax, [rbx]",
    "    test eax, eax",
    "    jnz 66f",
    "    mov rdi, rbx",
    "    xor esi, esi", // FUTEX_WAIT
    "    xor edx, edx",
    "    xor r10d, r10d",
    "    mov eax, 202",
    "    syscall",
    "    jmp 6b",
    "66: mov dword ptr [rbx + 4], 0",
    "7:  cmp eax, 1",
    "    je 8f",
    "    mov r15d, eax",
    "    cmp eax, 2",
    "    je 9f",
    "    cmp eax, 6",
    "    je 9f",
    "    mov dword ptr [rbx], 5", // exit: the last access to the slot
    "    xor edi, edi",
    "    mov eax, 60",
    "    syscall",
    "    ud2",
    "8:  mov rsp, [rbx + 40]", // resume
    "    mov eax, 15",
    "    syscall",
    "    ud2",
    "9:  mov r12d, [rbx + 20]", // calls
    "    lea r13, [rbx + 64]",
    "10: test r12d, r12d",
    "    jz 13f",
    "    mov rax, [r13]",
    "    mov rdi, [r13 + 8]",
    "    mov rsi, [r13 + 16]",
    "    mov rdx, [r13 + 24]",
    "    mov r10, [r13 + 32]",
    "    mov r8, [r13 + 40]",
    "    mov r9, [r13 + 48]",
    "    syscall",
    "    mov r14, rsp", // a new thread or process wakes up here on a stack in its own slot
    "    and r14, -{slot_size}",
    "    cmp r14, rbx",
    "    jne 12f",
    "    mov [r13 + 56], rax",
    "    add r13, 64",
    "    dec r12d",
    "    jmp 10b",
    "12: mov rbx, r14",
    "    jmp 3b",
    "13: cmp r15d, 6", // calls are done: post, or resume at once
    "    je 8b",
    "    jmp 2b",
    ".globl cloudpilot_stub_end",
    "cloudpilot_stub_end:",
    ".popsection",
    slot_size = const SLOT_SIZE,
    core_segment = const CORE_SEGMENT,
);

unsafe extern "C" {
    static cloudpilot_stub_start: u8;
    static cloudpilot_stub_end: u8;
}

/// The code's bytes, to be copied to [`STUB_CODE`].
pub fn code() -> &'static [u8] {
    let start = &raw const cloudpilot_stub_start;
    let end = &raw const cloudpilot_stub_end;
    // SAFETY: both symbols bound one section of this program's own text.
    unsafe { core::slice::from_raw_parts(start, end.offset_from_unsigned(start)) }
}

/// Address of the signal handler in every stub.
pub const HANDLER: u64 = STUB_CODE;
