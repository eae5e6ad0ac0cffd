//! The filter of host calls: [`calls::CALLS`](crate::calls::CALLS) as a program that the host runs at each of them.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch, sock_filter,
};

use crate::JailError;
use crate::calls::{CALLS, Call, Rule};

/// Builds the filter. `network` adds the calls for the host's network. Calls that are not on the list end the process; in debug builds they
/// raise SIGSYS instead, so that [`name_violations`] can tell which it was.
pub fn program(network: bool) -> Result<BpfProgram, JailError> {
    let wanted = || CALLS.iter().filter(|call| network || !call.network);
    let mut rules = BTreeMap::new();
    for call in wanted() {
        if let Some(rule) = compile_rule(call)? {
            rules.insert(call.number, rule);
        }
    }
    let violation = if cfg!(debug_assertions) { SeccompAction::Trap } else { SeccompAction::KillProcess };
    let filter = SeccompFilter::new(rules, violation, SeccompAction::Allow, TargetArch::x86_64).map_err(invalid)?;
    let list: BpfProgram = filter.try_into().map_err(invalid)?;
    let mut program = vec![LOAD_NUMBER];
    for call in wanted() {
        if let Rule::Refused(errno) = call.rule {
            program.push(sock_filter { code: JUMP_IF_EQUAL, jt: 0, jf: 1, k: call.number as u32 });
            program.push(sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ERRNO | errno as u32 });
        }
    }
    program.extend(list);
    Ok(program)
}

/// Loads `seccomp_data.nr`. A call of another architecture that happens to have the number of a refused one is refused, not ended: as safe.
const LOAD_NUMBER: sock_filter = sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 };
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

fn compile_rule(call: &Call) -> Result<Option<Vec<SeccompRule>>, JailError> {
    let Rule::OneOf(argument, mask, values) = call.rule else {
        return Ok(matches!(call.rule, Rule::Always).then(Vec::new));
    };
    values
        .iter()
        .map(|value| {
            let operator = SeccompCmpOp::MaskedEq(u64::from(mask));
            let condition = SeccompCondition::new(argument as u8, SeccompCmpArgLen::Dword, operator, u64::from(*value)).map_err(invalid)?;
            SeccompRule::new(vec![condition]).map_err(invalid)
        })
        .collect::<Result<Vec<_>, _>>()
        .map(Some)
}

fn invalid(error: seccompiler::BackendError) -> JailError {
    JailError::plain(format!("The list of host calls cannot be compiled: {error}"))
}

/// Puts every thread of this process under the filter, for good.
pub fn install(program: &BpfProgram) -> Result<(), JailError> {
    let length = program.len() as libc::c_ushort;
    let filter = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
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

/// In debug builds, makes a forbidden call say its number on descriptor 2 before the process ends.
pub fn name_violations() {
    if cfg!(debug_assertions) {
        // SAFETY: all zeros is a valid value; the handler below makes async-signal-safe calls only.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_violation as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut());
        }
    }
}

extern "C" fn on_violation(_signal: libc::c_int, information: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    /// Where `siginfo_t` has `si_syscall`.
    const NUMBER: usize = 24;
    // SAFETY: the host filled the structure in.
    let mut number = unsafe { information.cast::<u8>().add(NUMBER).cast::<i32>().read() }.unsigned_abs();
    let mut text = *b"forbidden host call number     0\n";
    let mut at = text.len() - 2;
    while number > 0 && at > 26 {
        text[at] = b'0' + (number % 10) as u8;
        number /= 10;
        at -= 1;
    }
    // SAFETY: writes from a buffer of our own, and ends the process.
    unsafe {
        libc::write(2, text.as_ptr().cast(), text.len());
        libc::_exit(STATUS_NAMED_VIOLATION);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the host would; answers its return value.
    fn verdict(program: &BpfProgram, number: i64, args: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend((number as u32).to_le_bytes());
        data.extend(0xc000_003e_u32.to_le_bytes());
        data.extend(0_u64.to_le_bytes());
        args.iter().for_each(|arg| data.extend(arg.to_le_bytes()));
        let (mut accumulator, mut at) = (0_u32, 0);
        loop {
            let step = &program[at];
            at += 1;
            let jump = |condition: bool| usize::from(if condition { step.jt } else { step.jf });
            match step.code {
                0x20 => accumulator = u32::from_le_bytes(data[step.k as usize..step.k as usize + 4].try_into().unwrap()),
                0x15 => at += jump(accumulator == step.k),
                0x05 => at += step.k as usize,
                0x54 => accumulator &= step.k,
                0x06 => return step.k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn arguments_decide() {
        let allow = libc::SECCOMP_RET_ALLOW;
        let program = program(false).unwrap();
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
    fn the_network_is_the_internet_alone() {
        let program = program(true).unwrap();
        let socket = |family: i32| verdict(&program, libc::SYS_socket, [family as u64, 0, 0, 0, 0, 0]);
        assert_eq!(socket(libc::AF_INET6), libc::SECCOMP_RET_ALLOW);
        assert_ne!(socket(libc::AF_NETLINK), libc::SECCOMP_RET_ALLOW);
        assert_ne!(socket(libc::AF_UNIX), libc::SECCOMP_RET_ALLOW);
    }
}
