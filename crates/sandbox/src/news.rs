//! What the kernel process tells its supervisor, and the supervisor whoever holds the lifeline.

use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// The supervisor's first packet: users are mapped, limits are set, go on.
pub const GO: &[u8] = b"go";

/// A piece of news.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum News {
    /// The sandbox is up; its program, if it has one, runs.
    Ready {
        /// The program's number inside.
        pid: Option<i32>,
        /// The supervisor.
        #[serde(default)]
        supervisor_pid: i32,
        /// The kernel process.
        #[serde(default)]
        kernel_pid: i32,
    },
    /// It could not start.
    Failed(Failure),
    /// It breaks off, for this reason.
    Broken(Failure),
    /// The kernel has something to say to the user: the out-of-memory killer did its work.
    Notice {
        /// In a sentence.
        message: String,
    },
    /// A program that was started over this connection ended.
    Exited {
        /// Its number.
        pid: i32,
        /// `exit(n)`.
        exit_code: Option<u8>,
        /// The signal that ended it.
        signal: Option<u8>,
    },
    /// The sandbox is gone, and nothing of it is left.
    Ended {
        /// Why: `exited`, `timeout`, `shutdown`, `starter_gone`, `killed`, `crashed`.
        reason: Reason,
        /// `exit(n)` of its program.
        exit_code: Option<u8>,
        /// The signal that ended its program.
        signal: Option<u8>,
        /// In a sentence, where there is something to say.
        message: Option<String>,
    },
}

/// Why a sandbox ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Its program did.
    Exited,
    /// Its time was up.
    Timeout,
    /// Somebody asked for it.
    Shutdown,
    /// Whoever started it is gone.
    StarterGone,
    /// The kernel process died.
    Crashed,
}
