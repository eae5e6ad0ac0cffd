//! Runs guest threads and reports why they stopped. [`systrap`] is the way without virtualization: guests are host processes whose every
//! system call traps. What stands above sees [`GuestThread`] alone.

use std::sync::Arc;

pub mod systrap;

/// General registers of a guest thread, in the order of `ucontext_t`'s `gregs`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[expect(missing_docs, reason = "the names are the processor's")]
pub struct Registers {
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rsp: u64,
    pub rip: u64,
    pub eflags: u64,
}

/// How memory was touched when it faulted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Load.
    Read,
    /// Store.
    Write,
    /// Instruction fetch.
    Execute,
}

/// Why a guest thread stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A system call: number in `rax`, arguments in `rdi`, `rsi`, `rdx`, `r10`, `r8`, `r9`; `rip` is behind the instruction.
    SystemCall,
    /// A page fault.
    Fault {
        /// Address touched.
        address: u64,
        /// How.
        access: Access,
    },
    /// Another processor exception, as the signal that Linux makes of it.
    Exception {
        /// `SIGILL`, `SIGFPE`, `SIGTRAP`, `SIGBUS`, `SIGSEGV`.
        signal: i32,
        /// `si_code`.
        code: i32,
        /// `si_addr`.
        address: u64,
        /// Exception vector.
        trap: u64,
    },
    /// [`Interrupter::interrupt`], or for no reason.
    Interrupted,
    /// The host ended the thread (its process was killed, or it broke its own stub).
    Gone,
}

/// Bytes of a patched call site: `mov eax, number; syscall` before, a jump through a short absolute address after.
pub const PATCH_LENGTH: u64 = 7;

/// How patched call sites reach the kernel without a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trampoline {
    /// Where code jumps with the call's number in `eax` and the address to go on at in `rcx`. `r11` and the arithmetic flags are lost.
    pub entry: u64,
    /// Range of addresses, the same in every address space, that is kept free for such code.
    pub start: u64,
    /// Its end.
    pub end: u64,
}

/// The guest thread is dead; only dropping it makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// Why a guest thread could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpawnError {
    /// The thread that should have made it is dead.
    Gone,
    /// The host refused, with this error number (`EAGAIN`, `ENOMEM`).
    Refused(i32),
}

impl From<Gone> for SpawnError {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

/// What a mapping shows.
#[derive(Clone, Copy, Debug)]
pub enum Backing {
    /// The memory file, from this offset.
    Memory(u64),
    /// A descriptor of the kernel process, mapped privately or shared.
    Host {
        /// Descriptor number.
        fd: i32,
        /// Offset in the file.
        offset: u64,
        /// `MAP_SHARED`.
        shared: bool,
    },
    /// Nothing: accesses fault.
    None,
}

/// `PROT_READ`, `PROT_WRITE`, `PROT_EXEC`.
pub type Protection = u32;

/// Changes of an address space; made by one of its own threads, since no other process can.
pub trait Executor {
    /// Maps `length` bytes at `address`, replacing what was there.
    fn map(&mut self, address: u64, length: u64, protection: Protection, backing: Backing) -> Result<(), Gone>;
    /// Unmaps.
    fn unmap(&mut self, address: u64, length: u64) -> Result<(), Gone>;
    /// Changes the protection of mapped pages; parts without a mapping are left alone.
    fn protect(&mut self, address: u64, length: u64, protection: Protection) -> Result<(), Gone>;
}

/// Makes a thread stop, from any other thread.
pub trait Interrupter: Send + Sync {
    /// The guest thread leaves the guest soon, or, if it is on its way there, right after.
    fn interrupt(&self);
    /// Ends the whole host process behind the address space, at once.
    fn kill(&self);
}

/// One thread of the guest.
pub trait GuestThread: Executor + Send {
    /// Lets the guest run with these registers until it stops; then they are those of the stop. `meanwhile` is called once the guest is on its way.
    fn run(&mut self, registers: &mut Registers, meanwhile: &mut dyn FnMut()) -> Stop;

    /// Where a patched call site may lead in place of the `syscall` instruction that the last stop came from; none if that came from a patched
    /// one already, or if this thread cannot use them.
    fn trampoline(&self) -> Option<Trampoline> {
        None
    }

    /// Floating-point and vector state of the last stop, in the layout of the signal frame (`struct _fpstate`, XSAVE).
    fn floating_point(&mut self) -> Vec<u8>;

    /// Replaces it; the bytes come from guest memory and are checked as `rt_sigreturn(2)` does. False when they are unusable.
    fn set_floating_point(&mut self, state: &[u8]) -> bool;

    /// Resets it to what exec gives a program.
    fn reset_floating_point(&mut self);

    /// Base of the `fs` segment.
    fn fs_base(&mut self) -> Result<u64, Gone>;

    /// Sets it.
    fn set_fs_base(&mut self, base: u64) -> Result<(), Gone>;

    /// Base of the `gs` segment.
    fn gs_base(&mut self) -> Result<u64, Gone>;

    /// Sets it.
    fn set_gs_base(&mut self, base: u64) -> Result<(), Gone>;

    /// A new thread in the same address space with the same floating-point state; it runs when somebody calls `run`.
    fn spawn_thread(&mut self) -> Result<Box<dyn GuestThread>, SpawnError>;

    /// A new thread alone in a copy of the address space: the same mappings of the same memory, so make private pages read-only first.
    fn fork(&mut self) -> Result<Box<dyn GuestThread>, SpawnError>;

    /// A new thread alone in an empty address space (exec while others share the present one).
    fn fork_empty(&mut self) -> Result<Box<dyn GuestThread>, SpawnError>;

    /// Removes every mapping (exec as the only user of the address space).
    fn clear(&mut self) -> Result<(), Gone>;

    /// Says that no other thread lives in this address space, until [`spawn_thread`](Self::spawn_thread): changes of mappings may then wait for the
    /// next [`run`](Self::run), and are made on the way.
    fn set_alone(&mut self) {}

    /// Says that the next [`run`](Self::run) is not to be expected soon: the stopped thread need not wait for it awake. `another` when another guest
    /// thread is about to run in its place: then its core is kept awake for that one.
    fn rest(&mut self, another: bool) {
        let _ = another;
    }

    /// For other threads to stop this one.
    fn interrupter(&self) -> Arc<dyn Interrupter>;

    /// Ends the host thread. `last` when no other thread lives in its address space: then the process ends with it.
    fn finish(self: Box<Self>, last: bool);
}

/// Bounds of what guests may map.
#[derive(Clone, Copy, Debug)]
pub struct AddressLimits {
    /// Lowest address (`vm.mmap_min_addr`).
    pub lowest: u64,
    /// One past the highest.
    pub highest: u64,
    /// Where the vDSO's data and code lie in every address space (start, end), and its ELF header.
    pub vdso: Option<(u64, u64, u64)>,
}

/// A way to run guests.
pub trait Platform: Send + Sync {
    /// The first thread of a new, empty address space.
    fn spawn(&self) -> Result<Box<dyn GuestThread>, SpawnError>;

    /// Waits until all is complete that was begun when the platform was made. Call before this process installs a filter of its own.
    fn settle(&self) -> std::io::Result<()> {
        Ok(())
    }

    /// Makes beforehand what the next [`spawn`](Self::spawn) needs, when there is time for it.
    fn prepare(&self) {}

    /// What guests may map.
    fn address_limits(&self) -> AddressLimits;
}
