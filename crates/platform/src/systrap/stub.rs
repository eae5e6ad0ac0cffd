//! The stub's code: the signal handler that every stop of the guest runs through. It lies alone in one page at [`STUB_CODE`], uses no
//! memory but its slot, and returns to the guest by `rt_sigreturn`.
//!
//! Beside it lies the fast path: system-call sites that the kernel patched jump there, and no signal is needed. It keeps the guest's general
//! registers in the slot and leaves all others alone, and it uses none of the guest's stack, below which code may keep data.

use core::arch::global_asm;
use core::mem::offset_of;

use super::layout::{CORE_SEGMENT, Header, SLOT_SIZE, STOP_FAST, STOP_NOTED, STUB_CODE, UCONTEXT_REGISTERS};

global_asm!(
    ".pushsection .text.cloudpilot_stub, \"ax\", @progbits",
    ".globl cloudpilot_stub_start",
    ".balign 4096",
    "cloudpilot_stub_start:",
    // Signal handler: rdi = signal, rsi = siginfo, rdx = ucontext; the stack is the slot's.
    "    mov rbx, rsp",
    "    and rbx, -{slot_size}",
    // An interrupt of our own code on the fast path: unless the guest is about to run on, only make a note of it. The kernel looks for work
    // before it lets the guest run; what comes later is found in the note.
    "    mov rax, [rdx + {context_rip}]",
    "    movabs rcx, {stub_code}",
    "    sub rax, rcx",
    "    cmp rax, 4096",
    "    jae 20f",
    "    cmp edi, {interrupt}",
    "    jne 20f",
    "    mov eax, [rbx]",
    "    cmp eax, 1",
    "    je 20f",
    "    cmp eax, 7",
    "    je 20f",
    "    mov dword ptr [rbx + {noted}], 1",
    "    mov rsp, rdx",
    "    mov eax, 15",
    "    syscall",
    "    ud2",
    "20: mov [rbx + 16], edi",
    "    mov [rbx + 24], rsi",
    "    mov [rbx + 32], rdx",
    "    mov eax, {core_segment}",
    "    lsl ecx, eax",
    "    mov [rbx + 48], ecx",
    "2:  xor eax, eax", // post: hand the turn to the kernel
    "    xchg [rbx], eax",
    "22: cmp dword ptr [rbx + 8], 0",
    "    je 3f",
    "    mov rdi, rbx",
    "    mov esi, 1", // FUTEX_WAKE
    "    mov edx, 1",
    "    mov eax, 202",
    "    syscall",
    "3:  xor ecx, ecx", // wait for the turn: spin a while, or until the kernel says that it takes longer
    "4:  mov eax, [rbx]",
    "    test eax, eax",
    "    jnz 7f",
    "    cmp ecx, [rbx + 12]",
    "    jae 5f",
    "    pause",
    "    inc ecx",
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
    "    cmp eax, 7",
    "    je 14f",
    "    cmp eax, 8",
    "    je 16f",
    "    cmp eax, 9",
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
    "9:  lea rsp, [rbx + {slot_size} - 64]", // calls: in our own slot, by which a new thread's stack is told from ours
    "    mov r12d, [rbx + 20]",
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
    "    cmp r15d, 9",
    "    jne 2b",
    "    mov dword ptr [rbx], 7", // from here on an interrupt stops the guest
    "14: cmp dword ptr [rbx + {noted}], 0", // resume behind a patched call
    "    jne 15f",
    "    mov r8, [rbx + {fast}]",
    "    mov r9, [rbx + {fast} + 8]",
    "    mov r10, [rbx + {fast} + 16]",
    "    mov r12, [rbx + {fast} + 32]",
    "    mov r13, [rbx + {fast} + 40]",
    "    mov r14, [rbx + {fast} + 48]",
    "    mov r15, [rbx + {fast} + 56]",
    "    mov rdi, [rbx + {fast} + 64]",
    "    mov rsi, [rbx + {fast} + 72]",
    "    mov rbp, [rbx + {fast} + 80]",
    "    mov rdx, [rbx + {fast} + 96]",
    "    mov rax, [rbx + {fast} + 104]",
    "    mov rsp, [rbx + {fast} + 120]",
    "    mov rcx, [rbx + {fast} + 128]",
    "    mov rbx, [rbx + {fast} + 88]",
    "    jmp rcx",
    "15: mov dword ptr [rbx + {noted}], 0", // there was an interrupt: stop
    "    mov dword ptr [rbx + 16], {stop_noted}",
    "    jmp 2b",
    "16: jmp cloudpilot_stub_trap", // stop again, by a signal: the kernel wants all of the guest's state
    // Where patched call sites lead: eax = number, rcx = where to go on, gs = the slot. Only rax, rcx and r11 may change for the guest.
    ".globl cloudpilot_stub_fast",
    "cloudpilot_stub_fast:",
    "    mov gs:[{fast}], r8",
    "    mov gs:[{fast} + 8], r9",
    "    mov gs:[{fast} + 16], r10",
    "    mov gs:[{fast} + 32], r12",
    "    mov gs:[{fast} + 40], r13",
    "    mov gs:[{fast} + 48], r14",
    "    mov gs:[{fast} + 56], r15",
    "    mov gs:[{fast} + 64], rdi",
    "    mov gs:[{fast} + 72], rsi",
    "    mov gs:[{fast} + 80], rbp",
    "    mov gs:[{fast} + 88], rbx",
    "    mov gs:[{fast} + 96], rdx",
    "    mov gs:[{fast} + 104], rax",
    "    mov gs:[{fast} + 120], rsp",
    "    mov gs:[{fast} + 128], rcx",
    ".globl cloudpilot_stub_fast_saved",
    "cloudpilot_stub_fast_saved:",
    "    mov rbx, gs:[{own_address}]",
    "    mov dword ptr [rbx + 16], {stop_fast}",
    "    mov eax, {core_segment}",
    "    lsl ecx, eax",
    "    mov [rbx + 48], ecx",
    "    xor eax, eax", // posted here rather than above, so that an interrupt's place says whether the kernel has the call already
    "    xchg [rbx], eax",
    ".globl cloudpilot_stub_fast_end",
    "cloudpilot_stub_fast_end:",
    "    jmp 22b",
    // The second page: system calls from here trap.
    ".balign 4096",
    "cloudpilot_stub_trap:",
    "    syscall",
    "    ud2",
    ".globl cloudpilot_stub_end",
    "cloudpilot_stub_end:",
    ".popsection",
    slot_size = const SLOT_SIZE,
    core_segment = const CORE_SEGMENT,
    stub_code = const STUB_CODE,
    context_rip = const UCONTEXT_REGISTERS + 16 * 8,
    interrupt = const super::thread::INTERRUPT,
    noted = const offset_of!(Header, noted),
    fast = const offset_of!(Header, fast),
    own_address = const offset_of!(Header, own_address),
    stop_fast = const STOP_FAST,
    stop_noted = const STOP_NOTED,
);

unsafe extern "C" {
    static cloudpilot_stub_start: u8;
    static cloudpilot_stub_end: u8;
    static cloudpilot_stub_fast: u8;
    static cloudpilot_stub_fast_saved: u8;
    static cloudpilot_stub_fast_end: u8;
}

/// Addresses in stubs of the fast path: where it begins, from where on all registers are saved, and from where on the kernel has the call.
pub fn fast_path() -> (u64, u64, u64) {
    let start = &raw const cloudpilot_stub_start;
    let place = |symbol: *const u8| {
        // SAFETY: the symbols lie in one section.
        STUB_CODE + unsafe { symbol.offset_from_unsigned(start) } as u64
    };
    (place(&raw const cloudpilot_stub_fast), place(&raw const cloudpilot_stub_fast_saved), place(&raw const cloudpilot_stub_fast_end))
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
