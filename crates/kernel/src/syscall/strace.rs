//! `--strace`: one line a call, with decoded arguments.

use std::fmt::Write;
use std::sync::Arc;

use cloudpilot_abi::syscall::NAMES;
use cloudpilot_abi::{Errno, raw};

use super::{Arg, Args, Call, SysResult};
use crate::task::Task;

/// Bytes of a buffer or string that are shown.
const SHOWN: usize = 48;

/// A call under way. What goes in is decoded before it runs, what comes out after.
pub struct Line {
    text: String,
    /// Addresses of buffers to be filled, and where in the text they go.
    outputs: Vec<(usize, u64, u64)>,
}

impl Line {
    /// Decodes what goes in.
    pub fn begin(task: &Arc<Task>, number: u32, call: Option<&Call>, args: &Args) -> Self {
        let mut line = Self { text: format!("[{:5}] ", task.tid()), outputs: Vec::new() };
        match NAMES.binary_search_by_key(&number, |entry| entry.0) {
            Ok(index) => line.text.push_str(NAMES[index].1),
            Err(_) => {
                let _ = write!(line.text, "syscall_{number}");
            }
        }
        line.text.push('(');
        let kinds = call.map_or(&[][..], |call| call.args);
        for (index, kind) in kinds.iter().enumerate() {
            if index > 0 {
                line.text.push_str(", ");
            }
            line.argument(task, *kind, args.raw(index), args.0.get(index + 1).copied().unwrap_or(0));
        }
        line
    }

    fn argument(&mut self, task: &Task, kind: Arg, value: u64, next: u64) {
        let text = &mut self.text;
        // Writing to a string does not fail.
        let _ = match kind {
            Arg::Fd if value as i32 == raw::AT_FDCWD => write!(text, "AT_FDCWD"),
            Arg::Fd | Arg::Int => write!(text, "{}", value as i32),
            Arg::Size => write!(text, "{value}"),
            Arg::Ptr | Arg::Flags if value == 0 => write!(text, "{}", if kind == Arg::Ptr { "NULL" } else { "0" }),
            Arg::Ptr | Arg::Flags => write!(text, "{value:#x}"),
            Arg::Mode => write!(text, "{:#o}", value as u32),
            Arg::Signal => write!(text, "{}", signal_name(value as i32)),
            Arg::Path => match task.read_string(value, 4096, Errno::ENAMETOOLONG) {
                Ok(string) => write!(text, "{}", quoted(&string)),
                Err(_) => write!(text, "{value:#x}"),
            },
            Arg::In => write!(text, "{}", buffer(task, value, next)),
            Arg::Out => {
                self.outputs.push((text.len(), value, next));
                Ok(())
            }
        };
    }

    /// Prints the line.
    pub fn end(mut self, task: &Task, result: &SysResult) {
        for (place, address, length) in self.outputs.iter().rev() {
            let shown = match result {
                Ok(count) => buffer(task, *address, (*count as u64).min(*length)),
                Err(_) => format!("{address:#x}"),
            };
            self.text.insert_str(*place, &shown);
        }
        let _ = match result {
            Ok(value) if *value > 0xffff_ffff => writeln!(self.text, ") = {value:#x}"),
            Ok(value) => writeln!(self.text, ") = {}", *value as i64),
            Err(errno) => writeln!(self.text, ") = -1 {}", errno.name()),
        };
        if let Some(output) = &task.kernel.strace {
            // Whoever does not listen misses it.
            let _ = rustix::io::write(output, self.text.as_bytes());
        }
    }
}

fn buffer(task: &Task, address: u64, length: u64) -> String {
    let mut bytes = vec![0; length.min(SHOWN as u64) as usize];
    match task.read_bytes(address, &mut bytes) {
        Ok(()) => quoted(&bytes) + if length > SHOWN as u64 { "..." } else { "" },
        Err(_) => format!("{address:#x}"),
    }
}

fn quoted(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.escape_ascii())
}

fn signal_name(signal: i32) -> String {
    const FIRST: [&str; 32] = [
        "0",
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGILL",
        "SIGTRAP",
        "SIGABRT",
        "SIGBUS",
        "SIGFPE",
        "SIGKILL",
        "SIGUSR1",
        "SIGSEGV",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGSTKFLT",
        "SIGCHLD",
        "SIGCONT",
        "SIGSTOP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGVTALRM",
        "SIGPROF",
        "SIGWINCH",
        "SIGIO",
        "SIGPWR",
        "SIGSYS",
    ];
    usize::try_from(signal).ok().and_then(|index| FIRST.get(index)).map_or_else(|| format!("SIG{signal}"), |name| (*name).to_owned())
}
