//! Classic BPF as filters use it: which programs are let in, what they cost, and how they run.

use bytemuck::{Pod, Zeroable};
use cloudpilot_abi::Errno;

/// Most instructions of one filter, `BPF_MAXINSNS`.
pub const LONGEST: usize = 4096;
/// Words of scratch memory, `BPF_MEMWORDS`.
const SCRATCH: usize = 16;
/// Bytes of `struct seccomp_data`.
const DATA_SIZE: u32 = 64;
/// Instructions that Linux puts before each program when it translates it for its own machine.
const PROLOGUE: usize = 3;

/// `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    value: u32,
}

/// `struct seccomp_data` in words: number, architecture, address, arguments.
pub type Data = [u32; DATA_SIZE as usize / 4];

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

/// A program that [`Program::new`] let in: it always ends, and touches only its own data.
pub struct Program(Vec<Instruction>);

impl Program {
    /// Refuses, with `EINVAL`, what Linux refuses: bad instructions, jumps and places, and loads from scratch memory that may not have been stored
    /// to.
    pub fn new(program: Vec<Instruction>) -> Result<Self, Errno> {
        let fits = !program.is_empty() && program.len() <= LONGEST;
        let good = program.iter().enumerate().all(|(index, instruction)| is_good(instruction, program.len() - index - 1));
        let ends = program.last().is_some_and(|last| last.code & 7 == RET);
        if fits && good && ends && loads_what_it_stored(&program) { Ok(Self(program)) } else { Err(Errno::EINVAL) }
    }

    /// As it was given.
    pub fn instructions(&self) -> &[Instruction] {
        &self.0
    }

    /// What it counts for the limit of all filters: the instructions of its translation, which is what Linux counts.
    pub fn cost(&self) -> usize {
        PROLOGUE + self.0.iter().map(translated_length).sum::<usize>()
    }

    /// Its answer about a call.
    pub fn evaluate(&self, data: &Data) -> u32 {
        let (mut accumulator, mut index_register, mut scratch) = (0_u32, 0_u32, [0_u32; SCRATCH]);
        let mut at = 0;
        while let Some(instruction) = self.0.get(at) {
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
                    None => return super::KILL_THREAD,
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
        super::KILL_THREAD
    }
}

/// Whether an instruction may stand where `behind` others follow it.
fn is_good(instruction: &Instruction, behind: usize) -> bool {
    let Instruction { code, if_true, if_false, value } = *instruction;
    let in_scratch = (value as usize) < SCRATCH;
    match code & 7 {
        LD => match code {
            0x20 => value < DATA_SIZE && value.is_multiple_of(4),
            0x00 | 0x80 => true,
            0x60 => in_scratch,
            _ => false,
        },
        LDX => matches!(code, 0x01 | 0x81) || code == 0x61 && in_scratch,
        ST | STX => matches!(code, 0x02 | 0x03) && in_scratch,
        ALU => match code {
            0x34 => value != 0,
            0x64 | 0x74 => value < 32,
            0x04 | 0x0c | 0x14 | 0x1c | 0x24 | 0x2c | 0x3c | 0x44 | 0x4c | 0x54 | 0x5c | 0x6c | 0x7c | 0x84 | 0xa4 | 0xac => true,
            _ => false,
        },
        JMP => match code {
            0x05 => (value as usize) < behind,
            0x15 | 0x1d | 0x25 | 0x2d | 0x35 | 0x3d | 0x45 | 0x4d => usize::from(if_true.max(if_false)) < behind,
            _ => false,
        },
        RET => matches!(code, 0x06 | 0x16),
        _ => matches!(code, 0x07 | 0x87),
    }
}

/// Whether each load from scratch memory comes after a store to the same place, on every way that leads there. Jumps are known to be good.
fn loads_what_it_stored(program: &[Instruction]) -> bool {
    // What is stored to on all ways to an instruction that is jumped to.
    let mut arrivals = vec![u16::MAX; program.len()];
    let mut stored = 0_u16;
    for (index, instruction) in program.iter().enumerate() {
        let Instruction { code, if_true, if_false, value } = *instruction;
        stored &= arrivals[index];
        let mut jumps = |distance: usize| {
            if let Some(arrival) = arrivals.get_mut(index + 1 + distance) {
                *arrival &= stored;
            }
        };
        match code & 7 {
            ST | STX => stored |= 1 << value,
            LD | LDX if code & 0xe0 == MEM && stored & 1 << value == 0 => return false,
            JMP => {
                if code == 0x05 {
                    jumps(value as usize);
                } else {
                    jumps(usize::from(if_true));
                    jumps(usize::from(if_false));
                }
                // The next instruction is reached by jumps alone.
                stored = u16::MAX;
            }
            _ => {}
        }
    }
    true
}

/// How many instructions Linux translates one to.
fn translated_length(instruction: &Instruction) -> usize {
    let Instruction { code, if_true, if_false, value } = *instruction;
    match code {
        // A look at whether the divisor is zero.
        0x3c => 5,
        0x06 => 2,
        0x05 => 1,
        _ if code & 7 == JMP => {
            // Operands are signed there, and only jumps for equality and order have an opposite.
            let operand = usize::from(code & X == 0 && (value as i32) < 0);
            let ways = if if_false == 0 || if_true == 0 && code & 0xf0 != 0x40 { 1 } else { 2 };
            operand + ways
        }
        _ => 1,
    }
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
        // The machine looks at the lower five bits alone.
        0x60 => left.wrapping_shl(right),
        0x70 => left.wrapping_shr(right),
        0x80 => left.wrapping_neg(),
        _ => left ^ right,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::{ALLOW, ERRNO};

    fn instruction(code: u16, if_true: u8, if_false: u8, value: u32) -> Instruction {
        Instruction { code, if_true, if_false, value }
    }

    fn is_let_in(program: &[Instruction]) -> bool {
        Program::new(program.to_vec()).is_ok()
    }

    #[test]
    fn programs_are_checked() {
        let end = instruction(0x06, 0, 0, ALLOW);
        assert!(is_let_in(&[end]));
        assert!(!is_let_in(&[]));
        assert!(!is_let_in(&[instruction(0x20, 0, 0, 0)]), "no end");
        assert!(!is_let_in(&[instruction(0x20, 0, 0, 64), end]), "past the data");
        assert!(!is_let_in(&[instruction(0x15, 1, 0, 0), end]), "past the program");
        assert!(!is_let_in(&[instruction(0x05, 0, 0, 1), end]), "past the program");
        assert!(!is_let_in(&[instruction(0x34, 0, 0, 0), end]), "division by zero");
        assert!(!is_let_in(&[instruction(0x28, 0, 0, 0), end]), "half words");
        assert!(!is_let_in(&[instruction(0x94, 0, 0, 1), end]), "remainders");
        assert!(!is_let_in(&[instruction(0x60, 0, 0, 3), end]), "nothing stored");
        assert!(is_let_in(&[instruction(0x02, 0, 0, 3), instruction(0x60, 0, 0, 3), end]));
        let on_one_way = [instruction(0x15, 0, 1, 7), instruction(0x02, 0, 0, 3), instruction(0x60, 0, 0, 3), end];
        assert!(!is_let_in(&on_one_way), "stored on one way only");
    }

    #[test]
    fn programs_cost_what_their_translation_does() -> Result<(), Errno> {
        let end = instruction(0x06, 0, 0, ALLOW);
        assert_eq!(Program::new(vec![end])?.cost(), 5);
        assert_eq!(Program::new(vec![instruction(0x15, 0, 1, 7), end, end])?.cost(), 8);
        assert_eq!(Program::new(vec![instruction(0x45, 0, 1, 7), end, end])?.cost(), 9);
        assert_eq!(Program::new(vec![instruction(0x15, 1, 0, u32::MAX), end, end])?.cost(), 9);
        Ok(())
    }

    #[test]
    fn programs_are_run() -> Result<(), Errno> {
        let mut data = [0; 16];
        data[0] = 39;
        data[4] = 5;
        let program = Program::new(vec![
            instruction(0x20, 0, 0, 0),
            instruction(0x15, 0, 3, 39),
            instruction(0x20, 0, 0, 16),
            instruction(0x45, 0, 1, 4),
            instruction(0x06, 0, 0, ERRNO | 7),
            instruction(0x06, 0, 0, ALLOW),
        ])?;
        assert_eq!(program.evaluate(&data), ERRNO | 7);
        data[4] = 3;
        assert_eq!(program.evaluate(&data), ALLOW);
        data[0] = 1;
        assert_eq!(program.evaluate(&data), ALLOW);
        let arithmetic = Program::new(vec![
            instruction(0x00, 0, 0, 7),
            instruction(0x07, 0, 0, 0),
            instruction(0x2c, 0, 0, 0),
            instruction(0x02, 0, 0, 3),
            instruction(0x00, 0, 0, 0),
            instruction(0x60, 0, 0, 3),
            instruction(0x16, 0, 0, 0),
        ])?;
        assert_eq!(arithmetic.evaluate(&data), 49);
        Ok(())
    }
}
