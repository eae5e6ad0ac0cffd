//! What a sandbox is to be: JSON from the descriptor that `--config-fd` names. Unknown fields are refused.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use crate::failure::Failure;

/// A sandbox.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Unique name of the sandbox's state directory and control group.
    pub id: String,
    /// The user's name for it.
    #[serde(default)]
    pub name: Option<String>,
    /// Program to start; none leaves that to `exec` on the control socket.
    #[serde(default)]
    pub args: Option<Vec<String>>,
    /// Environment of that program.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Its working directory.
    #[serde(default = "default_workdir")]
    pub workdir: String,
    /// Who it runs as, inside.
    #[serde(default)]
    pub user: User,
    /// `uname -n` inside.
    #[serde(default = "default_hostname")]
    pub hostname: String,
    /// What the root shows.
    pub root: Root,
    /// Host directories and files shown inside.
    #[serde(default)]
    pub volumes: Vec<Volume>,
    /// Limits; what is not given has the defaults of `boot`.
    #[serde(default)]
    pub limits: Limits,
    /// What sockets reach.
    #[serde(default)]
    pub network: Network,
    /// Give the program a terminal, bridged to standard input and output.
    #[serde(default)]
    pub tty: bool,
    /// `run`: print the id and return once the program has started.
    #[serde(default)]
    pub detach: bool,
    /// `run`: end everything after this time, with status 124.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// Patch system-call sites of programs, so that calls cost less.
    #[serde(default = "yes")]
    pub patch_calls: bool,
    /// Print each system call on standard error.
    #[serde(default)]
    pub strace: bool,
    /// This sandbox's own directory; its parent holds those of all sandboxes of the user.
    pub state_dir: PathBuf,
    /// `create`: a `SOCK_SEQPACKET` (or stream) socket. News come on it; when its other end closes, the sandbox ends.
    #[serde(default)]
    pub lifeline_fd: Option<i32>,
}

fn yes() -> bool {
    true
}

fn default_workdir() -> String {
    "/".to_owned()
}

fn default_hostname() -> String {
    "cloudpilot".to_owned()
}

/// User and group numbers inside.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What the root shows, read-only under an in-memory overlay.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Root {
    /// The host's programs and what of `/etc` anybody may read.
    Host,
    /// A directory.
    Directory {
        /// On the host.
        path: PathBuf,
        /// File that says what is different inside about owners and modes of the directory's files, which are all readable on the host.
        #[serde(default)]
        owners: Option<PathBuf>,
    },
}

/// A host directory or file shown inside.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// On the host.
    pub host: PathBuf,
    /// Inside.
    pub guest: String,
    /// Refuse writes.
    #[serde(default)]
    pub readonly: bool,
}

/// Limits of the sandbox as a whole.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Guest memory.
    pub memory_bytes: Option<u64>,
    /// CPUs' worth of time.
    pub cpus: Option<f64>,
    /// Processes and threads.
    pub processes: Option<u32>,
    /// Open files per process.
    pub open_files: Option<u32>,
    /// Bytes in one in-memory filesystem.
    pub tmpfs_bytes: Option<u64>,
}

/// What sockets reach.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Loopback only.
    #[default]
    None,
    /// The host's network.
    Host,
}

/// Smallest guest memory with which a program can start at all.
pub const SMALLEST_MEMORY: u64 = 4 << 20;
/// Longest host name, `HOST_NAME_MAX`.
const LONGEST_HOSTNAME: usize = 64;

impl Config {
    /// Reads and checks it.
    pub fn parse(text: &[u8]) -> Result<Self, Failure> {
        let config: Self = serde_json::from_slice(text).map_err(|error| Failure::invalid(format!("Malformed configuration: {error}")))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), Failure> {
        let plain = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
        if self.id.is_empty() || self.id.starts_with('.') || !self.id.chars().all(plain) {
            return Err(Failure::invalid(format!("The id `{}` is not made of letters, digits, `-`, `_` and `.`", self.id)));
        }
        if self.hostname.is_empty() || self.hostname.len() > LONGEST_HOSTNAME || !self.hostname.chars().all(plain) {
            let message =
                format!("The host name `{}` is not made of 1 to {LONGEST_HOSTNAME} letters, digits, `-`, `_` and `.`", self.hostname);
            return Err(Failure::invalid(message));
        }
        if let Some(volume) = self.volumes.iter().find(|volume| !volume.guest.starts_with('/')) {
            return Err(Failure::invalid(format!("The volume's place inside, `{}`, is not an absolute path", volume.guest)));
        }
        if self.args.as_ref().is_some_and(Vec::is_empty) {
            return Err(Failure::invalid("There is no program to run").hint("give one after the options"));
        }
        self.limits.check()
    }
}

impl Limits {
    fn check(&self) -> Result<(), Failure> {
        if self.memory_bytes.is_some_and(|bytes| bytes < SMALLEST_MEMORY) {
            return Err(Failure::invalid("The memory limit is too small for any program")
                .hint(format!("give at least {} MiB", SMALLEST_MEMORY >> 20)));
        }
        if self.cpus.is_some_and(|cpus| !cpus.is_finite() || cpus < 0.01) {
            return Err(Failure::invalid("The CPU limit is too small").hint("give at least 0.01 CPUs"));
        }
        if self.processes == Some(0) || self.open_files.is_some_and(|files| files < 3) {
            return Err(Failure::invalid("The limit of processes or open files is too small").hint("give at least 1 process and 3 files"));
        }
        Ok(())
    }
}
