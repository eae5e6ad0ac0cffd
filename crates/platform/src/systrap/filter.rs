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
    /// Name.
    pub name: &'static str,
    /// Number.
    pub number: u32,
    /// Argument to check.
    pub argument: Option<usize>,
    /// Values that pass.
    pub values: &'static [u32],
    /// What it is needed for.
    pub why: &'static str,
}

const fn any(name: &'static str, number: u32, why: &'static str) -> AllowedCall {
    AllowedCall { name, number, argument: None, values: &[], why }
}

const fn checked(name: &'static str, number: u32, argument: usize, values: &'static [u32], why: &'static str) -> AllowedCall {
    AllowedCall { name, number, argument: Some(argument), values, why }
}

/// Plain waiting and waking. Without the others (priority inheritance, requeueing), which have been the way into Linux more than once.
const FUTEX_OPERATIONS: &[u32] = &[raw::FUTEX_WAIT, raw::FUTEX_WAKE];

/// Fixed addresses only; of descriptors only, since anonymous memory would count for nobody.
const MAPPINGS: &[u32] =
    &[raw::MAP_FIXED | raw::MAP_SHARED, raw::MAP_FIXED | raw::MAP_PRIVATE, raw::MAP_FIXED | raw::MAP_SHARED | raw::MAP_NORESERVE];

/// `ARCH_SET_GS`, `ARCH_SET_FS`, `ARCH_GET_FS`, `ARCH_GET_GS`.
const SEGMENTS: &[u32] = &[0x1001, 0x1002, 0x1003, 0x1004];

/// What a stub may ask of the host.
pub const CALLS: &[AllowedCall] = &[
    checked(
        "futex",
        raw::__NR_futex,
        1,
        FUTEX_OPERATIONS,
        "passing the turn to the kernel process and waiting for it; without other operations",
    ),
    any("rt_sigreturn", raw::__NR_rt_sigreturn, "letting the guest run on after a stop; the host restores no privileged state"),
    checked("mmap", raw::__NR_mmap, 3, MAPPINGS, "the guest's areas, at fixed addresses, from open descriptors"),
    any("munmap", raw::__NR_munmap, "removing the guest's areas"),
    any("mprotect", raw::__NR_mprotect, "protection of the guest's areas"),
    checked("clone", raw::__NR_clone, 0, &[FORK_FLAGS, THREAD_FLAGS], "processes and threads of the guest"),
    checked("madvise", raw::__NR_madvise, 2, &[raw::MADV_DONTFORK], "keeping a slot from children"),
    checked("arch_prctl", raw::__NR_arch_prctl, 0, SEGMENTS, "bases of the `fs` and `gs` segments"),
    any("exit", raw::__NR_exit, "end of a thread"),
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
