//! The filter of host calls: [`calls::CALLS`](crate::calls::CALLS) as a program that the host runs at each of them.

use libc::sock_filter;

use crate::JailError;
use crate::calls::{CALLS, Call, Needs, Rule};

/// Where `struct seccomp_data` has number and architecture of a call, and the low half of its first argument; each argument has 8 bytes.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;
const ARGUMENT_SIZE: u32 = 8;
/// `AUDIT_ARCH_X86_64`.
const X86_64: u32 = 0xc000_003e;

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Calls that are not on the list end the process; in debug builds they raise SIGSYS instead, so that [`name_violations`] can tell which it was.
const VIOLATION: sock_filter = give(if cfg!(debug_assertions) { libc::SECCOMP_RET_TRAP } else { libc::SECCOMP_RET_KILL_PROCESS });

const fn step(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

const fn give(verdict: u32) -> sock_filter {
    step(RETURN, verdict)
}

/// Builds the filter for a sandbox that has this.
///
/// It is a tree over the sorted numbers: when it is installed the host tries it out on each number that there is, which for a list from top to bottom
/// was a good part of a sandbox's start.
pub fn program(needs: Needs) -> Vec<sock_filter> {
    let mut wanted: Vec<&Call> = CALLS.iter().filter(|call| needs.include(call)).collect();
    wanted.sort_unstable_by_key(|call| call.number);
    let equal = |value| sock_filter { jt: 1, ..step(JUMP_IF_EQUAL, value) };
    let mut program = vec![step(LOAD, ARCHITECTURE), equal(X86_64), give(libc::SECCOMP_RET_KILL_PROCESS), step(LOAD, NUMBER)];
    branch(&wanted, &mut program);
    program
}

/// The part of the tree that decides about these calls.
fn branch(calls: &[&Call], program: &mut Vec<sock_filter>) {
    let (below, from) = calls.split_at(calls.len() / 2);
    match (below, from) {
        ([], []) => program.push(VIOLATION),
        ([], [call, ..]) => {
            program.push(sock_filter { jt: 1, ..step(JUMP_IF_EQUAL, call.number as u32) });
            program.push(VIOLATION);
            decide(call.rule, program);
        }
        (_, [first, ..]) => {
            program.push(sock_filter { jf: 1, ..step(JUMP_IF_AT_LEAST, first.number as u32) });
            let skip = program.len();
            program.push(step(JUMP, 0));
            branch(below, program);
            program[skip].k = (program.len() - skip - 1) as u32;
            branch(from, program);
        }
        (_, []) => unreachable!("the upper half is the larger one"),
    }
}

/// What is done about a call of the right number.
fn decide(rule: Rule, program: &mut Vec<sock_filter>) {
    match rule {
        Rule::Always => program.push(give(libc::SECCOMP_RET_ALLOW)),
        Rule::Refused(errno) => program.push(give(libc::SECCOMP_RET_ERRNO | errno as u32)),
        Rule::OneOf(argument, mask, values) => {
            program.push(step(LOAD, ARGUMENTS + ARGUMENT_SIZE * argument as u32));
            program.push(step(AND, mask));
            for (index, value) in values.iter().enumerate() {
                // Over the other values and the violation.
                program.push(sock_filter { jt: (values.len() - index) as u8, ..step(JUMP_IF_EQUAL, value & mask) });
            }
            program.push(VIOLATION);
            program.push(give(libc::SECCOMP_RET_ALLOW));
        }
    }
}

/// Puts every thread of this process under the filter, for good.
pub fn install(program: &[sock_filter]) -> Result<(), JailError> {
    let length = program.len() as libc::c_ushort;
    let filter = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_TSYNC);
    // SAFETY: the program lives across the call; the host only reads it.
    match unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const filter) } {
        0 => Ok(()),
        thread if thread > 0 => Err(JailError::plain(format!("Cannot install the filter of host calls: thread {thread} has another"))),
        _ => Err(JailError::new("Cannot install the filter of host calls", std::io::Error::last_os_error())
            .hint("the host needs seccomp filters (CONFIG_SECCOMP_FILTER)")),
    }
}

/// Exit status after a violation that said which call it was.
pub const STATUS_NAMED_VIOLATION: i32 = 128 + libc::SIGSYS;

/// Exit status after a fault, as after a panic.
pub const STATUS_FAULT: i32 = 101;

/// Makes faults say where they were on descriptor 2 before the process ends, and in debug builds forbidden calls their number. The handlers never
/// return, so that no call for that need be let through.
pub fn name_last_words() {
    handle(libc::SIGSEGV, on_fault);
    handle(libc::SIGBUS, on_fault);
    if cfg!(debug_assertions) {
        handle(libc::SIGSYS, on_violation);
    }
}

type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);

fn handle(signal: libc::c_int, handler: Handler) {
    // SAFETY: all zeros is a valid value; the handlers below make async-signal-safe calls only.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(signal, &raw const action, std::ptr::null_mut());
    }
}

/// Writes a line and ends the process; `number` goes to the end of the line, in a base.
fn end_with(line: &mut [u8], mut number: u64, base: u64, status: i32) -> ! {
    let mut at = line.len() - 2;
    while number > 0 && line[at] == b' ' {
        line[at] = b"0123456789abcdef"[(number % base) as usize];
        number /= base;
        at -= 1;
    }
    // SAFETY: writes from a buffer of our own, and ends the process.
    unsafe {
        libc::write(2, line.as_ptr().cast(), line.len());
        libc::_exit(status);
    }
}

extern "C" fn on_fault(signal: libc::c_int, information: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the host filled the structure in.
    let address = unsafe { (*information).si_addr() } as u64;
    if signal == libc::SIGBUS {
        end_with(
            &mut b"the host has no memory for what the guest was promised, at                 \n".to_owned(),
            address,
            16,
            STATUS_FAULT,
        )
    }
    end_with(&mut b"memory fault at                 \n".to_owned(), address, 16, STATUS_FAULT)
}

extern "C" fn on_violation(_signal: libc::c_int, information: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    /// Where `siginfo_t` has `si_syscall`.
    const NUMBER: usize = 24;
    // SAFETY: the host filled the structure in.
    let number = unsafe { information.cast::<u8>().add(NUMBER).cast::<i32>().read() }.unsigned_abs();
    end_with(&mut b"forbidden host call number     \n".to_owned(), u64::from(number), 10, STATUS_NAMED_VIOLATION)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the host would; answers its return value.
    fn verdict(program: &[sock_filter], number: i64, args: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend((number as u32).to_le_bytes());
        data.extend(0xc000_003e_u32.to_le_bytes());
        data.extend(0_u64.to_le_bytes());
        args.iter().for_each(|arg| data.extend(arg.to_le_bytes()));
        run(program, &data)
    }

    fn run(program: &[sock_filter], data: &[u8]) -> u32 {
        let (mut accumulator, mut at) = (0_u32, 0);
        loop {
            let step = &program[at];
            at += 1;
            let jump = |condition: bool| usize::from(if condition { step.jt } else { step.jf });
            match step.code {
                LOAD => accumulator = u32::from_le_bytes(data[step.k as usize..step.k as usize + 4].try_into().unwrap()),
                JUMP_IF_EQUAL => at += jump(accumulator == step.k),
                JUMP_IF_AT_LEAST => at += jump(accumulator >= step.k),
                JUMP => at += step.k as usize,
                AND => accumulator &= step.k,
                RETURN => return step.k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn arguments_decide() {
        let allow = libc::SECCOMP_RET_ALLOW;
        let program = program(Needs { writable_volume: true, network: false });
        let with = |number, index: usize, value: u64| {
            let mut args = [0; 6];
            args[index] = value;
            verdict(&program, number, args)
        };
        assert_eq!(with(libc::SYS_read, 0, 0), allow);
        assert_eq!(with(libc::SYS_mmap, 2, 3), allow);
        assert_ne!(with(libc::SYS_mmap, 2, 7), allow);
        assert_ne!(with(libc::SYS_mprotect, 2, 5), allow);
        assert_eq!(with(libc::SYS_clone, 0, 0x3d_0f00), allow);
        assert_ne!(with(libc::SYS_clone, 0, 0x11), allow);
        assert_ne!(with(libc::SYS_clone, 0, 0x3d_0f00 | libc::CLONE_NEWUSER as u64), allow);
        assert_eq!(with(libc::SYS_futex, 1, 0x81), allow);
        assert_eq!(with(libc::SYS_futex, 1, 0x189), allow);
        assert_ne!(with(libc::SYS_futex, 1, 0x86), allow);
        assert_ne!(with(libc::SYS_ioctl, 1, libc::TIOCSTI), allow);
        assert_ne!(with(libc::SYS_mknodat, 2, u64::from(libc::S_IFCHR | 0o600)), allow);
        assert_eq!(with(libc::SYS_fchmodat2, 3, libc::AT_EMPTY_PATH as u64), allow);
        assert_ne!(with(libc::SYS_fchmodat2, 3, 0), allow);
        assert_ne!(with(libc::SYS_linkat, 4, libc::AT_SYMLINK_FOLLOW as u64), allow);
        assert_ne!(with(libc::SYS_renameat2, 4, u64::from(libc::RENAME_WHITEOUT)), allow);
        assert_eq!(with(libc::SYS_clone3, 0, 0), libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
        assert_ne!(with(libc::SYS_execve, 0, 0), allow);
        assert_ne!(with(libc::SYS_socket, 0, libc::AF_INET as u64), allow);
    }

    #[test]
    fn every_number_gets_what_the_list_says() {
        /// Beyond any that Linux has, those of the x32 ABI included.
        const NUMBERS: [std::ops::Range<i64>; 2] = [0..1024, 0x4000_0000..0x4000_0400];
        for (writable_volume, network) in [(false, false), (true, false), (false, true), (true, true)] {
            let needs = Needs { writable_volume, network };
            let program = program(needs);
            for number in NUMBERS.into_iter().flatten() {
                let entry = CALLS.iter().find(|call| call.number == number && needs.include(call));
                let expected = match entry.map(|call| call.rule) {
                    Some(Rule::Always) => vec![libc::SECCOMP_RET_ALLOW],
                    Some(Rule::Refused(errno)) => vec![libc::SECCOMP_RET_ERRNO | errno as u32],
                    Some(Rule::OneOf(..)) => vec![libc::SECCOMP_RET_ALLOW, VIOLATION.k],
                    None => vec![VIOLATION.k],
                };
                assert!(expected.contains(&verdict(&program, number, [0; 6])), "number {number}");
            }
        }
    }

    #[test]
    fn numbers_of_other_architectures_are_the_end() {
        let program = program(Needs::default());
        let mut data = vec![0_u8; 64];
        data[4..8].copy_from_slice(&0x4000_0003_u32.to_le_bytes());
        assert_eq!(run(&program, &data), libc::SECCOMP_RET_KILL_PROCESS);
    }

    #[test]
    fn the_network_is_the_internet_alone() {
        let program = program(Needs { writable_volume: false, network: true });
        let socket = |family: i32| verdict(&program, libc::SYS_socket, [family as u64, 0, 0, 0, 0, 0]);
        assert_eq!(socket(libc::AF_INET6), libc::SECCOMP_RET_ALLOW);
        assert_ne!(socket(libc::AF_NETLINK), libc::SECCOMP_RET_ALLOW);
        assert_ne!(socket(libc::AF_UNIX), libc::SECCOMP_RET_ALLOW);
        assert_ne!(verdict(&program, libc::SYS_unlinkat, [0; 6]), libc::SECCOMP_RET_ALLOW);
    }
}
