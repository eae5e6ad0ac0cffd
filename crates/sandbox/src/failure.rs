//! Failures as users see them: one line of what was refused and why, one of what to do, and an exit status.

use std::fmt;
use std::io::Write;

use cloudpilot_jail::JailError;
use serde::{Deserialize, Serialize};

/// Exit status when the sandbox itself failed.
pub const STATUS_OURS: u8 = 125;
/// Exit status when the program cannot be executed, as shells have it.
pub const STATUS_NOT_EXECUTABLE: u8 = 126;
/// Exit status when the program was not found, as shells have it.
pub const STATUS_NOT_FOUND: u8 = 127;
/// Exit status after `--timeout`, as `timeout(1)` has it.
pub const STATUS_TIMEOUT: u8 = 124;

/// Kinds of failure, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// No such file, process, method.
    NotFound,
    /// A component of a path is none.
    NotADirectory,
    /// It is one.
    IsADirectory,
    /// It is there already.
    Exists,
    /// Not allowed to this user.
    PermissionDenied,
    /// Malformed or contradictory.
    InvalidArgument,
    /// A file that is no program.
    NotExecutable,
    /// One of our limits.
    Limit,
    /// The sandbox is about to end.
    Ended,
    /// The host refused, or a bug.
    Internal,
}

impl Code {
    /// What an error number means.
    pub fn of_errno(errno: u16) -> Self {
        match i32::from(errno) {
            libc::ENOENT | libc::ESRCH => Self::NotFound,
            libc::ENOTDIR => Self::NotADirectory,
            libc::EISDIR => Self::IsADirectory,
            libc::EEXIST | libc::ENOTEMPTY => Self::Exists,
            libc::EACCES | libc::EPERM | libc::EROFS => Self::PermissionDenied,
            libc::EINVAL | libc::ENAMETOOLONG | libc::ELOOP | libc::EBADF => Self::InvalidArgument,
            libc::ENOEXEC => Self::NotExecutable,
            libc::ENOMEM | libc::ENOSPC | libc::EMFILE | libc::ENFILE | libc::EAGAIN | libc::E2BIG => Self::Limit,
            _ => Self::Internal,
        }
    }
}

/// A failure.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    /// Kind.
    pub code: Code,
    /// What was refused and why.
    pub message: String,
    /// What to do.
    #[serde(default)]
    pub hint: Option<String>,
    /// Error number behind it.
    #[serde(default)]
    pub errno: Option<u16>,
}

impl Failure {
    /// Of a kind.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, errno: None }
    }

    /// A malformed request.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// A refusal by the host.
    pub fn host(what: impl Into<String>, error: impl Into<std::io::Error>) -> Self {
        JailError::new(what, error).into()
    }

    /// Adds the remedy.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Exit status of `run` when the program could not be started for this reason.
    pub fn status_of_start(&self) -> u8 {
        match self.code {
            Code::NotFound => STATUS_NOT_FOUND,
            Code::NotExecutable | Code::PermissionDenied | Code::IsADirectory => STATUS_NOT_EXECUTABLE,
            _ => STATUS_OURS,
        }
    }

    /// Tells the user. Whoever does not listen on standard error misses it.
    pub fn print(&self) {
        let mut text = format!("error: {}\n", self.message);
        if let Some(hint) = &self.hint {
            text += &format!("hint: {hint}\n");
        }
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl From<JailError> for Failure {
    fn from(error: JailError) -> Self {
        let errno = error.source.as_ref().and_then(std::io::Error::raw_os_error).map(|number| number as u16);
        Self { code: errno.map_or(Code::Internal, Code::of_errno), message: error.to_string(), hint: error.hint, errno }
    }
}
