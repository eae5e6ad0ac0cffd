//! Programs of system calls from the engine's bytes: calls of our own table with arguments of the kinds that it names, whose results flow into later
//! ones, in up to three threads.

use arbitrary::{Result, Unstructured};
use cloudpilot_kernel::syscall::table::table;
use cloudpilot_kernel::syscall::{Arg, Call, Support};

/// Most operations of a program, as in the executor.
const MOST_OPERATIONS: usize = 64;
/// Most bytes of its data.
const MOST_DATA: usize = 2048;
const HEADER: usize = 16;
const OPERATION: usize = 8 + 6 * 16;
/// Bytes of a program on its way to the executor.
pub const PROGRAM_SIZE: usize = HEADER + MOST_OPERATIONS * OPERATION + MOST_DATA;
/// Where the data lies in the executor's scratch memory, and how many prepared structures of 256 bytes lie before it.
const DATA: u64 = 0x8000;
const STRUCTURES: u64 = 16;
/// Number of the operation that writes a word to memory.
const POKE: u16 = 0xffff;

/// An argument, as in the executor.
#[derive(Clone, Copy)]
pub enum Argument {
    Constant(u64),
    /// What an earlier operation returned.
    Result(u64),
    /// A place in scratch memory.
    Memory(u64),
    OwnPid(u64),
    /// A place in the slot that the thread shares with the kernel.
    Slot(u64),
    /// One of the executor's names.
    Path(u64),
}

/// What a program may consist of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any call.
    Calls,
    /// Calls that take names.
    Paths,
    /// Writes to the slots of threads between calls.
    Context,
}

/// A program under construction.
#[derive(Default)]
pub struct Program {
    operations: Vec<(u16, u16, [Argument; 6])>,
    data: Vec<u8>,
    as_user: bool,
}

/// Calls that end others, the executor among them, or that say nothing: `kill` and its kin get only the caller's own number.
const KILLS: &[&str] = &["kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "process_mrelease", "setpriority", "prlimit64"];
/// Calls that only end the program.
const ENDS: &[&str] = &["exit", "exit_group", "pause", "rt_sigsuspend", "reboot"];

fn name(call: &Call) -> &'static str {
    cloudpilot_abi::syscall::NAMES.iter().find(|(number, _)| *number == call.number).map_or("", |(_, name)| name)
}

fn candidates(kind: Kind) -> Vec<&'static Call> {
    let takes_names = |call: &Call| call.args.iter().any(|arg| matches!(arg, Arg::Path | Arg::Fd));
    table()
        .iter()
        .filter(|call| matches!(call.support, Support::Full | Support::Partial) && !ENDS.contains(&name(call)))
        .filter(|call| kind != Kind::Paths || takes_names(call))
        .collect()
}

impl Program {
    /// Makes one from bytes.
    pub fn arbitrary(kind: Kind, bytes: &mut Unstructured<'_>) -> Result<Self> {
        static CANDIDATES: std::sync::OnceLock<[Vec<&'static Call>; 3]> = std::sync::OnceLock::new();
        let calls = &CANDIDATES.get_or_init(|| [Kind::Calls, Kind::Paths, Kind::Context].map(candidates))[kind as usize];
        let mut program = Self { as_user: bytes.ratio(1, 4)?, ..Self::default() };
        while !bytes.is_empty() && program.operations.len() < MOST_OPERATIONS - 1 {
            let thread = if bytes.ratio(1, 3)? { bytes.int_in_range(1..=2)? } else { 0 };
            if bytes.ratio(if kind == Kind::Context { 2 } else { 1 }, 8)? {
                program.poke(kind, thread, bytes)?;
            }
            let call = bytes.choose(calls)?;
            let mut arguments = [Argument::Constant(0); 6];
            for (index, argument) in arguments.iter_mut().enumerate() {
                let wanted = call.args.get(index).copied();
                *argument =
                    if index == 0 && KILLS.contains(&name(call)) { Argument::OwnPid(0) } else { program.argument(wanted, bytes)? };
            }
            program.operations.push((call.number as u16, thread, arguments));
        }
        Ok(program)
    }

    fn poke(&mut self, kind: Kind, thread: u16, bytes: &mut Unstructured<'_>) -> Result<()> {
        let place = if kind == Kind::Context {
            // Mostly the words by which the two sides talk.
            Argument::Slot(u64::from(if bytes.ratio(3, 4)? { bytes.int_in_range(0..=63)? * 4 } else { bytes.arbitrary::<u16>()? & !7 }))
        } else {
            Argument::Constant(bytes.int_in_range(0..=STRUCTURES * 256 / 8)? * 8)
        };
        let value = self.argument(None, bytes)?;
        let nothing = Argument::Constant(0);
        self.operations.push((POKE, thread, [place, value, nothing, nothing, nothing, nothing]));
        Ok(())
    }

    fn argument(&self, wanted: Option<Arg>, bytes: &mut Unstructured<'_>) -> Result<Argument> {
        // Now and then anything at all.
        if bytes.ratio(1, 16)? {
            return self.anything(bytes);
        }
        Ok(match wanted {
            Some(Arg::Fd) => self.descriptor(bytes)?,
            Some(Arg::Path) => Argument::Path(bytes.int_in_range(0..=31)?),
            Some(Arg::In | Arg::Out | Arg::Ptr) => match bytes.int_in_range(0..=9)? {
                0 => Argument::Constant(0),
                1 => Argument::Memory(u64::from(bytes.arbitrary::<u16>()?) * 2),
                2 => Argument::Memory(DATA),
                _ => Argument::Memory(bytes.int_in_range(0..=STRUCTURES - 1)? * 256),
            },
            Some(Arg::Int | Arg::Size) => Argument::Constant(match bytes.int_in_range(0..=7)? {
                0..=3 => bytes.int_in_range(0..=16)?,
                4 => bytes.int_in_range(0..=8192)?,
                5 => 1 << bytes.int_in_range(0..=63)?,
                6 => u64::MAX - bytes.int_in_range(0..=16)?,
                _ => u64::from(bytes.arbitrary::<u32>()?),
            }),
            Some(Arg::Flags) => Argument::Constant(match bytes.int_in_range(0..=3)? {
                0 => 0,
                1 => 1 << bytes.int_in_range(0..=31)?,
                2 => 1 << bytes.int_in_range(0..=31)? | 1 << bytes.int_in_range(0..=31)?,
                _ => bytes.int_in_range(0..=63)?,
            }),
            Some(Arg::Mode) => Argument::Constant(u64::from(bytes.arbitrary::<u16>()?)),
            Some(Arg::Signal) => Argument::Constant(bytes.int_in_range(0..=65)?),
            None => Argument::Constant(bytes.int_in_range(0..=3)?),
        })
    }

    fn descriptor(&self, bytes: &mut Unstructured<'_>) -> Result<Argument> {
        Ok(match bytes.int_in_range(0..=7)? {
            0..=4 if !self.operations.is_empty() => Argument::Result(bytes.int_in_range(0..=self.operations.len() as u64 - 1)?),
            5 => Argument::Constant(-100_i64 as u64),
            _ => Argument::Constant(bytes.int_in_range(0..=12)?),
        })
    }

    fn anything(&self, bytes: &mut Unstructured<'_>) -> Result<Argument> {
        Ok(match bytes.int_in_range(0..=6)? {
            0 => Argument::Constant(bytes.arbitrary()?),
            1 => Argument::Constant(u64::from(bytes.arbitrary::<u8>()?)),
            2 => Argument::Result(bytes.int_in_range(0..=63)?),
            3 => Argument::Memory(bytes.arbitrary::<u16>()?.into()),
            4 => Argument::OwnPid(bytes.int_in_range(0..=2)?),
            5 => Argument::Slot(bytes.arbitrary::<u16>()?.into()),
            _ => Argument::Path(bytes.int_in_range(0..=31)?),
        })
    }

    /// Adds a call; answers its index.
    pub fn call(&mut self, number: u32, arguments: &[Argument]) -> u64 {
        let mut all = [Argument::Constant(0); 6];
        all[..arguments.len()].copy_from_slice(arguments);
        self.operations.push((number as u16, 0, all));
        self.operations.len() as u64 - 1
    }

    /// Sets the data, which calls find at [`Program::data`].
    pub fn set_data(&mut self, data: &[u8]) {
        self.data = data[..data.len().min(MOST_DATA)].to_vec();
    }

    /// Where the data lies, and its length.
    pub fn data(&self) -> (Argument, Argument) {
        (Argument::Memory(DATA), Argument::Constant(self.data.len() as u64))
    }

    /// As the executor reads it.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(PROGRAM_SIZE);
        for word in [self.operations.len().min(MOST_OPERATIONS) as u32, self.data.len() as u32, u32::from(self.as_user), 0] {
            bytes.extend(word.to_le_bytes());
        }
        for (number, thread, arguments) in self.operations.iter().take(MOST_OPERATIONS) {
            bytes.extend(number.to_le_bytes());
            bytes.extend(thread.to_le_bytes());
            bytes.extend([0; 4]);
            for argument in arguments {
                let (kind, value) = match *argument {
                    Argument::Constant(value) => (0_u64, value),
                    Argument::Result(value) => (1, value),
                    Argument::Memory(value) => (2, value),
                    Argument::OwnPid(value) => (3, value),
                    Argument::Slot(value) => (4, value),
                    Argument::Path(value) => (5, value),
                };
                bytes.extend(kind.to_le_bytes());
                bytes.extend(value.to_le_bytes());
            }
        }
        bytes.resize(HEADER + MOST_OPERATIONS * OPERATION, 0);
        bytes.extend(&self.data);
        bytes.resize(PROGRAM_SIZE, 0);
        bytes
    }
}
