//! Why a jail could not be built.

use std::fmt;
use std::io;

/// What was refused, why, and what to do about it.
#[derive(Debug)]
pub struct JailError {
    /// What could not be done, as the start of a sentence: "Cannot …".
    pub what: String,
    /// The host's answer.
    pub source: Option<io::Error>,
    /// What to do.
    pub hint: Option<String>,
}

impl JailError {
    /// A refusal by the host. Where the host has run out of something, the remedy is to give it more, whatever was about to be done.
    pub fn new(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        let hint = source.raw_os_error().and_then(exhausted).map(str::to_owned);
        Self { what: what.into(), source: Some(source), hint }
    }

    /// A refusal of our own.
    pub fn plain(what: impl Into<String>) -> Self {
        Self { what: what.into(), source: None, hint: None }
    }

    /// Adds the remedy, if there is none yet.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }
}

impl fmt::Display for JailError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.what)?;
        match &self.source {
            Some(source) => write!(formatter, ": {}", text(source)),
            None => Ok(()),
        }
    }
}

impl std::error::Error for JailError {}

/// What to raise when an error number says that the host has no more of something.
fn exhausted(number: i32) -> Option<&'static str> {
    match number {
        libc::EAGAIN => Some(
            "the host's limit of processes and threads is reached: raise `ulimit -u`, the pids.max of the control group that you are in, or \
             `sysctl kernel.threads-max kernel.pid_max`; a sandbox takes about ten",
        ),
        libc::EMFILE => Some("this process may have no more open files: raise `ulimit -n`; a sandbox takes about 70"),
        libc::ENFILE => Some("the host may have no more open files: raise `sysctl fs.file-max`"),
        libc::ENOMEM => Some("the host has no memory left: end something, or raise the memory limit of the control group that you are in"),
        _ => None,
    }
}

/// The message of an error number without "(os error 28)".
fn text(error: &io::Error) -> String {
    let whole = error.to_string();
    match whole.find(" (os error ") {
        Some(end) => whole[..end].to_owned(),
        None => whole,
    }
}
