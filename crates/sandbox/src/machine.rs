//! What the binary needs of a kernel: the seam between process management here and [`cloudpilot_kernel`], and the place for a stand-in in tests.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use cloudpilot_abi::Errno;
use cloudpilot_kernel::config::{BootConfig, ExitStatus, Program, User};
use serde::Serialize;
use serde_json::Value;

use crate::failure::Failure;

/// Boots one; called once, in the jail, before the filter of host calls.
pub type Boot = fn(BootConfig) -> Result<Arc<dyn Machine>, Failure>;

/// Called with the status of a program that ended.
pub type OnExit = Box<dyn FnOnce(ExitStatus) + Send>;

/// Called with a line for the user.
pub type OnNotice = Box<dyn Fn(&str) + Send + Sync>;

/// Called with the name and the kind (`create`, `write`, `remove`, `rename`, `chmod`) of a change; answers whether to go on.
pub type OnChange = Box<dyn Fn(&str, &'static str) -> bool + Send + Sync>;

/// A running kernel.
pub trait Machine: Send + Sync {
    /// Starts a program; answers its number.
    fn spawn(&self, program: Program) -> Result<i32, Failure>;
    /// A request has started a program, and more may come: what the next needs is made beforehand, when there is time for it.
    fn expect_more(&self) {}
    /// Calls back when a process has ended, at once if it has already. `ESRCH` if there is none.
    fn on_exit(&self, pid: i32, then: OnExit) -> Result<(), Errno>;
    /// Sets who hears what the kernel has to say to the user; only the first counts.
    fn on_notice(&self, then: OnNotice);
    /// Sends a signal to a process, or, negative, to a group.
    fn signal(&self, pid: i32, signal: i32) -> Result<(), Errno>;
    /// Changes the size of the terminal that a program was started with.
    fn resize(&self, pid: i32, rows: u16, columns: u16) -> Result<(), Errno>;
    /// Joins a stream socket of the host with a port inside; `over` is dropped once the connection has ended.
    fn connect(&self, port: u16, host: OwnedFd, over: Box<dyn Send>) -> Result<(), Failure>;
    /// Listens on a port inside for the outside, from now on.
    fn listen(&self, port: u16) -> Result<(), Failure>;
    /// Waits for a program to connect to a port inside, and joins that connection likewise.
    fn accept(&self, port: u16, host: OwnedFd, over: Box<dyn Send>) -> Result<(), Failure>;
    /// Processes, for `pilot exec … ps` and the like.
    fn processes(&self) -> Vec<Value>;
    /// Figures of the sandbox.
    fn stats(&self) -> Value;
    /// Its files.
    fn files(&self) -> &dyn Files;
}

/// One entry of a directory.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// Last component.
    pub name: String,
    /// Absolute.
    pub path: String,
    /// `file`, `directory`, `symlink`, `fifo`, `socket`, `character_device`, `block_device`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the contents, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Where a symbolic link leads.
    pub target: Option<String>,
}

/// Files inside, with the rights of a user inside. Paths are absolute.
pub trait Files: Send + Sync {
    /// Copies a file out; answers how many bytes.
    fn read_file(&self, user: &User, path: &[u8], to: OwnedFd) -> Result<u64, Errno>;
    /// Copies everything there is to read into a file, made or emptied first.
    fn write_file(&self, user: &User, path: &[u8], mode: u32, from: OwnedFd) -> Result<u64, Errno>;
    /// Entries of a directory and of those beneath it, `depth` levels.
    fn list_directory(&self, user: &User, path: &[u8], depth: u32) -> Result<Vec<Entry>, Errno>;
    /// One file's attributes; the last component is not followed.
    fn stat(&self, user: &User, path: &[u8]) -> Result<Entry, Errno>;
    /// Makes a directory and those above it; answers whether it is new.
    fn make_directory(&self, user: &User, path: &[u8]) -> Result<bool, Errno>;
    /// Removes a file, or a directory with everything in it.
    fn remove(&self, user: &User, path: &[u8]) -> Result<(), Errno>;
    /// Renames.
    fn rename(&self, user: &User, from: &[u8], to: &[u8]) -> Result<(), Errno>;
    /// Writes what was changed about the root as a tar archive with whiteouts, but for some paths; answers its length.
    fn write_layer(&self, left_out: &[Vec<u8>], to: OwnedFd) -> Result<u64, Errno>;
    /// Reports changes in a directory until `then` answers false, or the watch is dropped.
    fn watch(&self, user: &User, path: &[u8], recursive: bool, then: OnChange) -> Result<Box<dyn Send>, Errno>;
}
