//! What the binary above hands over at boot: handles and numbers only, never host paths.

use std::os::fd::OwnedFd;

use cloudpilot_platform::systrap::OnInterference;

/// Everything the kernel is told at boot.
pub struct BootConfig {
    /// What `uname -n` says inside.
    pub hostname: String,
    /// The read-only lower layer of the root, entry by entry; a tmpfs overlay lies above it.
    pub root: Vec<RootEntry>,
    /// Host directories mounted into the guest's tree.
    pub volumes: Vec<Volume>,
    /// Limits that hold for the sandbox as a whole.
    pub limits: Limits,
    /// What the guest's sockets reach.
    pub network: Network,
    /// Contents of files that the sandbox provides itself, written into the overlay at boot (`/etc/hostname`, `/etc/hosts`, …).
    pub provided_files: Vec<ProvidedFile>,
    /// Patch system-call sites, so that calls need no signal; off for programs that check their own code.
    pub patches_calls: bool,
    /// Where `--strace` prints; none switches tracing off.
    pub strace: Option<OwnedFd>,
    /// Told when somebody on the host kills or stops a part of the sandbox.
    pub on_interference: OnInterference,
}

/// One entry of the root's lower layer.
#[derive(Debug)]
pub enum RootEntry {
    /// A directory of the host, by a handle to a detached read-only mount; `guest` is `/` for a whole root directory.
    Directory {
        /// Absolute path inside.
        guest: String,
        /// `O_PATH` handle; nothing above it can be reached through it.
        handle: OwnedFd,
        /// Hide whatever "others" may not read: for the host's own root, whose secrets are not the guest's.
        world_readable_only: bool,
        /// Table of what is different inside about owners and modes; see `fs::host::owners`.
        owners: Option<Vec<u8>>,
    },
    /// A symbolic link made in the lower layer (`/bin` -> `usr/bin`).
    Symlink {
        /// Absolute path inside.
        guest: String,
        /// What the link says.
        target: String,
    },
}

/// A host directory (or file) visible inside.
#[derive(Debug)]
pub struct Volume {
    /// Absolute path inside; made if missing.
    pub guest: String,
    /// `O_PATH` handle to a detached mount, or an open file.
    pub handle: OwnedFd,
    /// Refuse writes (the mount itself refuses them too).
    pub read_only: bool,
}

/// A file that the sandbox itself provides.
#[derive(Debug, Clone)]
pub struct ProvidedFile {
    /// Absolute path inside.
    pub guest: String,
    /// Contents.
    pub contents: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

/// Limits of the sandbox as a whole.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of guest memory (anonymous memory, tmpfs, pipes); past it the out-of-memory killer ends the largest process.
    pub memory_bytes: u64,
    /// Processes and threads together.
    pub processes: u32,
    /// `RLIMIT_NOFILE`'s hard value.
    pub open_files: u32,
    /// Bytes that one tmpfs may hold (the root overlay's upper layer included).
    pub tmpfs_bytes: u64,
    /// CPUs that the guest is told of (`sched_getaffinity`, `/proc/cpuinfo`).
    pub cpus: u32,
}

/// What the guest's sockets reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Loopback only.
    None,
    /// The host's own stack, through host sockets held by the kernel process.
    Host,
}

/// A program to start, at boot or later (`pilot exec`).
#[derive(Debug)]
pub struct Program {
    /// `argv`; the first is looked up along `PATH` of `env` unless it holds a slash.
    pub args: Vec<Vec<u8>>,
    /// `KEY=VALUE` strings.
    pub env: Vec<Vec<u8>>,
    /// Working directory; made by nobody, an error if missing.
    pub workdir: Vec<u8>,
    /// User and group; supplementary groups come from the guest's `/etc/group` when `user_name` is given.
    pub user: User,
    /// Standard input, output and error.
    pub stdio: Stdio,
}

/// Who a program runs as.
#[derive(Debug, Clone)]
pub enum User {
    /// Numbers as given.
    Ids {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// A name from the guest's `/etc/passwd`.
    Name(String),
}

/// Where a program's first three descriptors lead.
#[derive(Debug)]
pub enum Stdio {
    /// Host descriptors; none stands for `/dev/null`.
    Host([Option<OwnedFd>; 3]),
    /// A new guest pty as controlling terminal, bridged to a host input and output.
    Terminal {
        /// Bytes typed.
        input: OwnedFd,
        /// Bytes shown.
        output: OwnedFd,
        /// Window size.
        rows: u16,
        /// Window size.
        columns: u16,
    },
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// `exit(n)`.
    Exited(u8),
    /// By a signal.
    Signaled(u8),
}
