//! Filters that programs put on their own system calls, `seccomp(2)`: classic BPF over the call's number and arguments.
//!
//! They run before the call's handler. They protect the guest from itself; the sandbox does not rely on them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytemuck::{Pod, Zeroable};
use cloudpilot_abi::types::Siginfo;
use cloudpilot_abi::{Errno, raw};
use parking_lot::Mutex;

use crate::config::ExitStatus;
use crate::signal;
use crate::syscall::{Args, SysResult};
use crate::task::{Task, Work, exit};

/// Most instructions of one filter, `BPF_MAXINSNS`.
pub const LONGEST: usize = 4096;
/// Most instructions of all filters of a task, each counted with four more, `MAX_INSNS_PER_PATH`.
const LONGEST_CHAIN: usize = 32_768;
/// `AUDIT_ARCH_X86_64`.
const ARCHITECTURE: u32 = 0xc000_003e;
/// Words of scratch memory, `BPF_MEMWORDS`.
const SCRATCH: usize = 16;
/// Bytes of `struct seccomp_data`.
const DATA_SIZE: u32 = 64;

/// Actions, `SECCOMP_RET_*`; lower ones, as signed numbers, win.
pub const KILL_PROCESS: u32 = 0x8000_0000;
/// See [`KILL_PROCESS`].
pub const KILL_THREAD: u32 = 0;
/// See [`KILL_PROCESS`].
pub const TRAP: u32 = 0x0003_0000;
/// See [`KILL_PROCESS`].
pub const ERRNO: u32 = 0x0005_0000;
/// See [`KILL_PROCESS`].
pub const TRACE: u32 = 0x7ff0_0000;
/// See [`KILL_PROCESS`].
pub const LOG: u32 = 0x7ffc_0000;
/// See [`KILL_PROCESS`].
pub const ALLOW: u32 = 0x7fff_0000;
/// The part of an answer that says what to do.
const ACTION: u32 = 0xffff_0000;
/// The part that goes with it.
const DATA: u32 = 0xffff;

/// `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    value: u32,
}

/// What binds a task.
#[derive(Clone, Default)]
pub enum Mode {
    /// Nothing.
    #[default]
    Disabled,
    /// `read`, `write`, `exit` and `sigreturn` only.
    Strict,
    /// The newest filter, which knows the older ones.
    Filter(Arc<Filter>),
}

/// A task's state.
#[derive(Default)]
pub struct Seccomp(Mutex<Mode>);

/// A filter and those before it; all are asked.
pub struct Filter {
    program: Vec<Instruction>,
    before: Option<Arc<Filter>>,
    /// Instructions of the whole chain, as Linux counts them.
    cost: usize,
    /// Filters in the chain.
    depth: usize,
}

impl Drop for Filter {
    fn drop(&mut self) {
        // One after the other: a long chain must not end in a deep recursion.
        let mut before = self.before.take();
        while let Some(filter) = before {
            before = Arc::try_unwrap(filter).ok().and_then(|mut filter| filter.before.take());
        }
    }
}

impl Seccomp {
    /// A copy for a new task.
    pub fn inherit(&self, from: &Self) {
        let mode = from.0.lock().clone();
        *self.0.lock() = mode;
    }

    /// `PR_GET_SECCOMP`, and how many filters there are.
    pub fn summary(&self) -> (u32, usize) {
        match &*self.0.lock() {
            Mode::Disabled => (0, 0),
            Mode::Strict => (1, 0),
            Mode::Filter(filter) => (2, filter.depth),
        }
    }

    /// Enters strict mode.
    pub fn set_strict(&self) -> Result<(), Errno> {
        let mut mode = self.0.lock();
        if matches!(*mode, Mode::Filter(_)) {
            return Err(Errno::EINVAL);
        }
        *mode = Mode::Strict;
        Ok(())
    }

    fn filter(&self) -> Option<Arc<Filter>> {
        match &*self.0.lock() {
            Mode::Filter(filter) => Some(Arc::clone(filter)),
            _ => None,
        }
    }

    fn is_strict(&self) -> bool {
        matches!(*self.0.lock(), Mode::Strict)
    }
}

/// Adds a filter to the caller's, and with `everywhere` to those of all threads of its process; answers the thread whose filters differ, if one
/// keeps that from being done.
pub fn add(task: &Arc<Task>, program: Vec<Instruction>, everywhere: bool) -> Result<Option<i32>, Errno> {
    check(&program)?;
    if task.seccomp.is_strict() {
        return Err(Errno::EINVAL);
    }
    let before = task.seccomp.filter();
    let cost = program.len() + before.as_ref().map_or(0, |before| before.cost + 4);
    if cost > LONGEST_CHAIN {
        return Err(Errno::ENOMEM);
    }
    let depth = 1 + before.as_ref().map_or(0, |before| before.depth);
    let own = before.clone();
    let filter = Arc::new(Filter { program, before, cost, depth });
    // The family stays locked: no thread joins it meanwhile with the old filters.
    let family = task.process.family.lock();
    let others: Vec<&Arc<Task>> =
        if everywhere { family.tasks.iter().filter(|other| !Arc::ptr_eq(other, task)).collect() } else { Vec::new() };
    for other in &others {
        let theirs = other.seccomp.filter();
        if other.seccomp.is_strict() || !is_ancestor(theirs.as_ref(), own.as_ref()) {
            return Ok(Some(other.tid()));
        }
    }
    let no_new_privs = task.credentials().no_new_privs;
    for other in others {
        bind(other, &filter);
        if no_new_privs {
            let mut credentials = other.credentials.lock();
            Arc::make_mut(&mut credentials).no_new_privs = true;
        }
    }
    bind(task, &filter);
    Ok(None)
}

fn bind(task: &Task, filter: &Arc<Filter>) {
    *task.seccomp.0.lock() = Mode::Filter(Arc::clone(filter));
    task.is_filtered.store(true, Ordering::SeqCst);
}

/// Whether a chain of filters is a part of another.
fn is_ancestor(older: Option<&Arc<Filter>>, newer: Option<&Arc<Filter>>) -> bool {
    let Some(older) = older else { return true };
    let mut at = newer;
    while let Some(filter) = at {
        if Arc::ptr_eq(filter, older) {
            return true;
        }
        at = filter.before.as_ref();
    }
    false
}

/// Classes and parts of instruction codes, `bpf_common.h`.
const LD: u16 = 0;
const LDX: u16 = 1;
const ST: u16 = 2;
const STX: u16 = 3;
const ALU: u16 = 4;
const JMP: u16 = 5;
const RET: u16 = 6;
const MISC: u16 = 7;
const ABS: u16 = 0x20;
const MEM: u16 = 0x60;
const LEN: u16 = 0x80;
/// The operand is the index register.
const X: u16 = 0x08;

/// Refuses programs that could run out of their bounds: what is left always ends, and touches only its own data.
fn check(program: &[Instruction]) -> Result<(), Errno> {
    if program.is_empty() || program.len() > LONGEST {
        return Err(Errno::EINVAL);
    }
    let good = program.iter().enumerate().all(|(index, instruction)| {
        let Instruction { code, if_true, if_false, value } = *instruction;
        let reaches = |distance: usize| index + 1 + distance < program.len();
        match code & 7 {
            LD => match code {
                0x20 => value < DATA_SIZE && value.is_multiple_of(4),
                0x00 | 0x80 => true,
                0x60 => (value as usize) < SCRATCH,
                _ => false,
            },
            LDX => matches!(code, 0x01 | 0x81) || code == 0x61 && (value as usize) < SCRATCH,
            ST | STX => matches!(code, 0x02 | 0x03) && (value as usize) < SCRATCH,
            ALU => match code & 0xf0 {
                // Negation has no operand.
                0x80 => code == 0x84,
                0x30 | 0x90 if code & X == 0 => value != 0 && code & 0xf0 != 0x90,
                0x60 | 0x70 if code & X == 0 => value < 32,
                operation => operation <= 0xa0 && operation != 0x90 && code & 0xff00 == 0,
            },
            JMP => match code {
                0x05 => reaches(value as usize),
                0x15 | 0x1d | 0x25 | 0x2d | 0x35 | 0x3d | 0x45 | 0x4d => reaches(usize::from(if_true)) && reaches(usize::from(if_false)),
                _ => false,
            },
            RET => matches!(code, 0x06 | 0x16),
            _ => matches!(code, 0x07 | 0x87),
        }
    });
    let ends = program.last().is_some_and(|last| last.code & 7 == RET);
    if good && ends { Ok(()) } else { Err(Errno::EINVAL) }
}

/// Runs a program that [`check`] let through.
fn evaluate(program: &[Instruction], data: &[u32; 16]) -> u32 {
    let (mut accumulator, mut index_register, mut scratch) = (0_u32, 0_u32, [0_u32; SCRATCH]);
    let mut at = 0;
    while let Some(instruction) = program.get(at) {
        at += 1;
        let Instruction { code, if_true, if_false, value } = *instruction;
        let operand = if code & X != 0 { index_register } else { value };
        let place = value as usize % SCRATCH;
        match code & 7 {
            LD => {
                accumulator = match code & 0xe0 {
                    ABS => data[value as usize / 4 % data.len()],
                    MEM => scratch[place],
                    LEN => DATA_SIZE,
                    _ => value,
                }
            }
            LDX => {
                index_register = match code & 0xe0 {
                    MEM => scratch[place],
                    LEN => DATA_SIZE,
                    _ => value,
                }
            }
            ST => scratch[place] = accumulator,
            STX => scratch[place] = index_register,
            ALU => match calculate(code & 0xf0, accumulator, operand) {
                Some(result) => accumulator = result,
                None => return KILL_THREAD,
            },
            JMP => {
                let taken = match code & 0xf0 {
                    0x00 => {
                        at += value as usize;
                        continue;
                    }
                    0x10 => accumulator == operand,
                    0x20 => accumulator > operand,
                    0x30 => accumulator >= operand,
                    _ => accumulator & operand != 0,
                };
                at += usize::from(if taken { if_true } else { if_false });
            }
            RET => return if code & 0x10 != 0 { accumulator } else { value },
            MISC if code & 0x80 != 0 => accumulator = index_register,
            _ => index_register = accumulator,
        }
    }
    KILL_THREAD
}

/// None for a division by zero, which ends the program.
fn calculate(operation: u16, left: u32, right: u32) -> Option<u32> {
    Some(match operation {
        0x00 => left.wrapping_add(right),
        0x10 => left.wrapping_sub(right),
        0x20 => left.wrapping_mul(right),
        0x30 => left.checked_div(right)?,
        0x40 => left | right,
        0x50 => left & right,
        0x60 => left.checked_shl(right).unwrap_or(0),
        0x70 => left.checked_shr(right).unwrap_or(0),
        0x80 => left.wrapping_neg(),
        _ => left ^ right,
    })
}

/// Asks what binds the task about a call; an answer stands for the call's.
pub fn judge(task: &Arc<Task>, number: u32, args: &Args) -> Option<SysResult> {
    let mode = task.seccomp.0.lock().clone();
    let newest = match mode {
        Mode::Disabled => return None,
        Mode::Strict => {
            let allowed = matches!(number, raw::__NR_read | raw::__NR_write | raw::__NR_exit | raw::__NR_rt_sigreturn);
            return (!allowed).then(|| kill_thread(task, raw::SIGKILL));
        }
        Mode::Filter(filter) => filter,
    };
    let address = task.cpu.lock().registers.rip;
    let mut data = [0; 16];
    data[0] = number;
    data[1] = ARCHITECTURE;
    let words = std::iter::once(address).chain(args.0);
    for (place, word) in data[2..].chunks_exact_mut(2).zip(words) {
        place.copy_from_slice(&[word as u32, (word >> 32) as u32]);
    }
    let mut answer = ALLOW;
    let mut filter = Some(&newest);
    while let Some(at) = filter {
        let new = evaluate(&at.program, &data);
        if ((new & ACTION) as i32) < (answer & ACTION) as i32 {
            answer = new;
        }
        filter = at.before.as_ref();
    }
    match answer & ACTION {
        ALLOW | LOG => None,
        ERRNO => Some(match answer & DATA {
            0 => Ok(0),
            errno => Err(Errno(errno.min(4095) as u16)),
        }),
        TRAP => Some(trap(task, number, address, answer & DATA)),
        // Nobody traces or listens.
        TRACE | 0x7fc0_0000 => Some(Err(Errno::ENOSYS)),
        KILL_THREAD => Some(kill_thread(task, raw::SIGSYS)),
        _ => {
            exit::begin_group_exit(&task.process, ExitStatus::Signaled(raw::SIGSYS as u8));
            Some(Ok(number as usize))
        }
    }
}

/// Ends the thread; if it is the only one, the process as by this signal.
fn kill_thread(task: &Arc<Task>, number: u32) -> SysResult {
    let alone = task.process.family.lock().tasks.len() == 1;
    if alone {
        exit::begin_group_exit(&task.process, ExitStatus::Signaled(number as u8));
    } else {
        task.add_work(Work::EXIT);
    }
    Ok(0)
}

/// Raises `SIGSYS`; the registers stay as they were before the call.
fn trap(task: &Arc<Task>, number: u32, address: u64, data: u32) -> SysResult {
    let mut info: Siginfo = signal::info_from_kernel(raw::SIGSYS as i32);
    info.si_errno = data as i32;
    info.si_code = raw::SYS_SECCOMP as i32;
    info.fields[0] = address;
    info.fields[1] = u64::from(number) | u64::from(ARCHITECTURE) << 32;
    signal::force(task, &info);
    Ok(number as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instruction(code: u16, if_true: u8, if_false: u8, value: u32) -> Instruction {
        Instruction { code, if_true, if_false, value }
    }

    #[test]
    fn programs_are_checked() {
        assert!(check(&[instruction(0x06, 0, 0, ALLOW)]).is_ok());
        assert!(check(&[]).is_err());
        assert!(check(&[instruction(0x20, 0, 0, 0)]).is_err(), "no end");
        assert!(check(&[instruction(0x20, 0, 0, 64), instruction(0x06, 0, 0, 0)]).is_err(), "past the data");
        assert!(check(&[instruction(0x15, 1, 0, 0), instruction(0x06, 0, 0, 0)]).is_err(), "past the program");
        assert!(check(&[instruction(0x34, 0, 0, 0), instruction(0x06, 0, 0, 0)]).is_err(), "division by zero");
        assert!(check(&[instruction(0x28, 0, 0, 0), instruction(0x06, 0, 0, 0)]).is_err(), "half words");
    }

    #[test]
    fn programs_are_run() {
        let mut data = [0; 16];
        data[0] = 39;
        data[4] = 5;
        let program = [
            instruction(0x20, 0, 0, 0),
            instruction(0x15, 0, 3, 39),
            instruction(0x20, 0, 0, 16),
            instruction(0x45, 0, 1, 4),
            instruction(0x06, 0, 0, ERRNO | 7),
            instruction(0x06, 0, 0, ALLOW),
        ];
        assert!(check(&program).is_ok());
        assert_eq!(evaluate(&program, &data), ERRNO | 7);
        data[4] = 3;
        assert_eq!(evaluate(&program, &data), ALLOW);
        data[0] = 1;
        assert_eq!(evaluate(&program, &data), ALLOW);
        let arithmetic = [
            instruction(0x00, 0, 0, 7),
            instruction(0x07, 0, 0, 0),
            instruction(0x2c, 0, 0, 0),
            instruction(0x02, 0, 0, 3),
            instruction(0x00, 0, 0, 0),
            instruction(0x60, 0, 0, 3),
            instruction(0x16, 0, 0, 0),
        ];
        assert!(check(&arithmetic).is_ok());
        assert_eq!(evaluate(&arithmetic, &data), 49);
    }
}
