//! The stub's seccomp filter: a system call from the stub's own page is served by the host if it is one of the few that a stub makes;
//! every other one, from wherever, traps to our kernel.
//!
//! The guest can jump to the stub's `syscall` instructions with registers of its choice. What it reaches that way is listed in [`CALLS`]: it can
//! rearrange its own address space from the descriptors at hand, wait, and end itself. It can reach no file by name, no other process, no device.

use cloudpilot_abi::raw;

use super::layout::STUB_CODE;

/// `seccomp_data.nr`, `.arch`, and the halves of `.instruction_pointer`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const POINTER_LOW: u32 = 8;
const POINTER_HIGH: u32 = 12;
const ARCH_X86_64: u32 = 0xc000_003e;

/// Flags of a clone that makes a process: a child of the kernel process that shares its descriptors.
pub const FORK_FLAGS: u32 = raw::CLONE_FILES | raw::CLONE_PARENT | raw::SIGCHLD;
/// Flags of a clone that makes a thread.
pub const THREAD_FLAGS: u32 =
    raw::CLONE_VM | raw::CLONE_FS | raw::CLONE_FILES | raw::CLONE_SIGHAND | raw::CLONE_THREAD | raw::CLONE_SYSVSEM;

/// A host call that a stub may make, with the values that one argument may have (its index; none for any).
pub struct AllowedCall {
    /// Number.
    pub number: u32,
    /// Argument to check.
    pub argument: Option<usize>,
    /// Values that pass.
    pub values: &'static [u32],
}

const fn any(number: u32) -> AllowedCall {
    AllowedCall { number, argument: None, values: &[] }
}

const fn checked(number: u32, argument: usize, values: &'static [u32]) -> AllowedCall {
    AllowedCall { number, argument: Some(argument), values }
}

/// What a stub may ask of the host.
pub const CALLS: &[AllowedCall] = &[
    any(raw::__NR_futex),
    any(raw::__NR_rt_sigreturn),
    // Fixed addresses only; shared or private.
    checked(
        raw::__NR_mmap,
        3,
        &[raw::MAP_FIXED | raw::MAP_SHARED, raw::MAP_FIXED | raw::MAP_PRIVATE, raw::MAP_FIXED | raw::MAP_SHARED | raw::MAP_NORESERVE],
    ),
    any(raw::__NR_munmap),
    any(raw::__NR_mprotect),
    checked(raw::__NR_clone, 0, &[FORK_FLAGS, THREAD_FLAGS]),
    checked(raw::__NR_madvise, 2, &[raw::MADV_DONTFORK]),
    checked(raw::__NR_arch_prctl, 0, &[0x1001, 0x1002, 0x1003, 0x1004]),
    any(raw::__NR_exit),
];

const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

fn instruction(code: u16, k: u32, if_true: u8, if_false: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt: if_true, jf: if_false, k }
}

/// The filter as a BPF program.
pub fn program() -> Vec<libc::sock_filter> {
    let trap = instruction(RETURN, libc::SECCOMP_RET_TRAP, 0, 0);
    let allow = instruction(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0);
    let kill = instruction(RETURN, libc::SECCOMP_RET_KILL_PROCESS, 0, 0);
    let mut program = vec![
        instruction(LOAD, ARCH, 0, 0),
        instruction(JUMP_EQUAL, ARCH_X86_64, 1, 0),
        trap,
        instruction(LOAD, POINTER_HIGH, 0, 0),
        instruction(JUMP_EQUAL, (STUB_CODE >> 32) as u32, 1, 0),
        trap,
        instruction(LOAD, POINTER_LOW, 0, 0),
        instruction(JUMP_GREATER_EQUAL, STUB_CODE as u32 + super::layout::STUB_SERVED_SIZE as u32, 0, 1),
        trap,
        instruction(LOAD, NUMBER, 0, 0),
    ];
    for call in CALLS {
        match call.argument {
            None => program.extend([instruction(JUMP_EQUAL, call.number, 0, 1), allow]),
            Some(argument) => {
                let body = 2 + 2 * call.values.len() as u8;
                program.push(instruction(JUMP_EQUAL, call.number, 0, body));
                // The low half is enough: the host ignores or refuses what the upper halves of these could say.
                program.push(instruction(LOAD, 16 + 8 * argument as u32, 0, 0));
                for value in call.values {
                    program.extend([instruction(JUMP_EQUAL, *value, 0, 1), allow]);
                }
                program.push(kill);
            }
        }
    }
    program.push(kill);
    program
}
