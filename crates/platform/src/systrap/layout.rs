//! Where our own pages lie in every guest's address space, and the shared context slot that a guest thread and its kernel thread talk through.

use core::sync::atomic::AtomicU32;

use crate::Registers;

/// One past the highest address that guests may map. Above it lie the stub's code, the context slots, and what the host put there (vDSO).
pub const GUEST_END: u64 = 0x7ff0_0000_0000;
/// Lowest address that guests may map: above the trampolines of patched call sites, which lie where a jump with a short absolute address
/// reaches them.
pub const GUEST_START: u64 = TRAMPOLINES.1;
/// Where trampolines lie (start, end). The upper half of such an address makes an instruction that no processor knows: whoever jumps to the
/// `syscall` that a patch overwrote stops there, and the kernel serves the call all the same.
pub const TRAMPOLINES: (u64, u64) = (0x6_0000, 0x7_0000);
/// The stub's code: one page, readable and executable. System calls from within it are the only ones that the host serves.
pub const STUB_CODE: u64 = 0x7ff1_0000_0000;
/// Size of the code: that page, and one behind it whose system calls trap.
pub const STUB_CODE_SIZE: u64 = 0x2000;
/// Size of the part whose system calls the host serves.
pub const STUB_SERVED_SIZE: u64 = 0x1000;
/// Where the host's vDSO with its data pages is moved to in stubs: the host may have put it anywhere.
pub const VDSO: u64 = 0x7ff1_1000_0000;
/// Slot 0; slot `n` follows at `n * SLOT_SIZE`, at the same address in every process that has it mapped.
pub const SLOTS: u64 = 0x7ff2_0000_0000;
/// A header page and the alternate signal stack: room for the largest signal frame in use (AVX-512: 3.5 KiB; AMX: 11 KiB) twice over. A power
/// of two, since the handler finds its slot by masking the stack pointer.
pub const SLOT_SIZE: u64 = 0x8000;
/// Most guest threads of one sandbox; with [`SLOT_SIZE`] this bounds the slot window to 2 GiB of address space.
pub const SLOT_COUNT: u32 = 65_536;
/// Selector of a segment whose limit Linux sets to the number of the core (and, from bit 12 on, its node): for `LSL`, which costs no call.
pub const CORE_SEGMENT: u32 = 0x7b;
/// Highest address the host gives to processes.
pub const HOST_END: u64 = 0x7fff_ffff_f000;

/// Whose turn it is: the kernel's, the guest thread having stopped.
pub const TURN_KERNEL: u32 = 0;
/// The stub's: resume the guest at [`Header::resume`].
pub const TURN_RESUME: u32 = 1;
/// The stub's: make the host calls in [`Header::calls`].
pub const TURN_CALLS: u32 = 2;
/// The stub's: end the thread.
pub const TURN_EXIT: u32 = 3;
/// The kernel's: the host says that the process is dead.
pub const TURN_GONE: u32 = 4;
/// The kernel's: the thread has read its last word of the slot and is about to end.
pub const TURN_EXITED: u32 = 5;
/// The stub's: make the host calls in [`Header::calls`], then resume the guest.
pub const TURN_CALLS_RESUME: u32 = 6;
/// The stub's: go on behind a call that came on the fast path.
pub const TURN_FAST: u32 = 7;
/// The stub's: stop again, by a signal that saves all state of a thread that stopped on the fast path.
pub const TURN_TRAP: u32 = 8;
/// The stub's: make the host calls, then go on as with [`TURN_FAST`].
pub const TURN_CALLS_FAST: u32 = 9;

/// In place of a signal's number: a system call that came on the fast path.
pub const STOP_FAST: u32 = 0x1000;
/// In place of a signal's number: an interrupt that was noted on the fast path.
pub const STOP_NOTED: u32 = 0x1001;

/// A host call for the stub to make.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct HostCall {
    /// Number.
    pub number: u64,
    /// Arguments.
    pub args: [u64; 6],
    /// What it returned.
    pub result: u64,
}

impl HostCall {
    /// A call with up to six arguments.
    pub fn new(number: u32, args: &[u64]) -> Self {
        let mut call = Self { number: u64::from(number), ..Self::default() };
        call.args[..args.len()].copy_from_slice(args);
        call
    }

    /// The error number, if it failed.
    pub fn error(&self) -> Option<i32> {
        let value = self.result as i64;
        (-4095..0).contains(&value).then_some(-value as i32)
    }
}

/// Most calls of one batch.
pub const CALLS: usize = 32;

/// First page of a slot. The guest can write all of it at any time: the kernel reads each word once and checks it.
#[repr(C)]
pub struct Header {
    /// One of `TURN_*`; the futex that both sides sleep on.
    pub turn: AtomicU32,
    /// The guest thread sleeps (or is about to): wake it after changing `turn`.
    pub stub_sleeping: AtomicU32,
    /// The kernel thread sleeps (or is about to).
    pub kernel_sleeping: AtomicU32,
    /// Turns of the stub's waiting loop before it sleeps; 0 ends the loop.
    pub spin: AtomicU32,
    /// Signal that stopped the guest.
    pub signal: u32,
    /// Calls to make.
    pub call_count: u32,
    /// Address of the stop's `siginfo_t`.
    pub info: u64,
    /// Address of the stop's `ucontext_t`.
    pub context: u64,
    /// Address of the `ucontext_t` to resume from.
    pub resume: u64,
    /// The core that the guest thread ran on when it stopped, as [`core`](super::wait::core) has it.
    pub core: u32,
    /// An interrupt came while our own code ran.
    pub noted: u32,
    /// Keeps `calls` on a cache line of its own.
    pub pad: [u32; 2],
    /// The batch.
    pub calls: [HostCall; CALLS],
    /// Registers at a call on the fast path.
    pub fast: Registers,
    /// This slot's address in the guest.
    pub own_address: u64,
}

const _: () = assert!(size_of::<Header>() <= 4096);
const _: () = assert!(core::mem::offset_of!(Header, calls) == 64);
const _: () = assert!(core::mem::offset_of!(Header, resume) == 40);
const _: () = assert!(core::mem::offset_of!(Header, core) == 48);
const _: () = assert!(size_of::<HostCall>() == 64);

/// `ucontext_t` of x86-64: where the general registers start.
pub const UCONTEXT_REGISTERS: u64 = 40;
/// `REG_ERR`: the page fault's error code.
pub const UCONTEXT_ERROR: u64 = UCONTEXT_REGISTERS + 19 * 8;
/// `REG_TRAPNO`.
pub const UCONTEXT_TRAP: u64 = UCONTEXT_REGISTERS + 20 * 8;
/// `REG_CR2`.
pub const UCONTEXT_FAULT_ADDRESS: u64 = UCONTEXT_REGISTERS + 22 * 8;
/// Pointer to the floating-point state.
pub const UCONTEXT_FLOATING_POINT: u64 = UCONTEXT_REGISTERS + 23 * 8;
/// `uc_stack.ss_sp`.
pub const UCONTEXT_STACK: u64 = 16;
/// All of it up to the end of `uc_sigmask`.
pub const UCONTEXT_SIZE: u64 = 304;
