//! What goes through a socket beside the bytes: addresses, files, credentials, `MSG_*`.

use std::sync::{Arc, Weak};

use bytemuck::{Pod, Zeroable};
use cloudpilot_abi::{Errno, raw_net};

use super::options::SOL_SOCKET;
use super::rights::Rights;
use crate::task::{Process, Task};
use crate::vfs::file::File;

/// Urgent data.
pub const MSG_OOB: u32 = 0x1;
/// Leave the message where it is.
pub const MSG_PEEK: u32 = 0x2;
/// Do not route; nothing is routed here.
pub const MSG_DONTROUTE: u32 = 0x4;
/// Control data did not fit.
pub const MSG_CTRUNC: u32 = 0x8;
/// The message was longer than the buffer; asked for: answer its whole length.
pub const MSG_TRUNC: u32 = 0x20;
/// Do not wait.
pub const MSG_DONTWAIT: u32 = 0x40;
/// End of a record.
pub const MSG_EOR: u32 = 0x80;
/// Wait until the buffer is full.
pub const MSG_WAITALL: u32 = 0x100;
/// More is to come: hold it back.
pub const MSG_MORE: u32 = 0x8000;
/// Reports of errors rather than messages.
pub const MSG_ERRQUEUE: u32 = 0x2000;
/// No `SIGPIPE`.
pub const MSG_NOSIGNAL: u32 = 0x4000;
/// `recvmmsg(2)`: do not wait for a second message.
pub const MSG_WAITFORONE: u32 = 0x1_0000;
/// Connect by sending.
pub const MSG_FASTOPEN: u32 = 0x2000_0000;
/// Received descriptors get `FD_CLOEXEC`.
pub const MSG_CMSG_CLOEXEC: u32 = 0x4000_0000;

/// `struct ucred`: who sent a message.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Credentials {
    /// Process; like user and group by the kernel's number, but in what tasks say and hear.
    pub pid: i32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Default for Credentials {
    /// Nobody in particular: what Linux reports when it does not know.
    fn default() -> Self {
        Self { pid: 0, uid: 65534, gid: 65534 }
    }
}

impl Credentials {
    /// A task's, as `SCM_CREDENTIALS` carries them.
    pub fn of_task(task: &Task) -> Self {
        let credentials = task.credentials();
        Self { pid: task.process.pid, uid: credentials.ruid, gid: credentials.rgid }
    }

    /// As a task sees them.
    pub fn shown_to(self, task: &Task) -> Self {
        let users = &task.credentials().user;
        let nobody = u32::MAX;
        Self {
            pid: task.shows(self.pid),
            uid: if self.uid == nobody { nobody } else { users.show_user(self.uid) },
            gid: if self.gid == nobody { nobody } else { users.show_group(self.gid) },
        }
    }
}

/// Who made a connection or waits for some, as `SO_PEERCRED` and `SO_PEERGROUPS` tell.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// Process, effective user and group.
    pub credentials: Credentials,
    /// The process itself: its number may be another's once it is gone.
    pub process: Weak<Process>,
    /// Supplementary groups, shared with the task: there may be tens of thousands.
    pub groups: Arc<[u32]>,
}

impl Identity {
    /// A task's.
    pub fn of_task(task: &Task) -> Self {
        let own = task.credentials();
        let credentials = Credentials { pid: task.process.pid, uid: own.euid, gid: own.egid };
        Self { credentials, process: Arc::downgrade(&task.process), groups: Arc::clone(&own.groups) }
    }

    /// `getsockopt(2)` of what tells of the peer; none for other options. For groups that do not fit the answer is all of them: the caller
    /// says how much room they take.
    pub fn option(&self, level: i32, name: i32) -> Option<Result<Vec<u8>, Errno>> {
        match (level, name as u32) {
            (SOL_SOCKET, raw_net::SO_PEERCRED) => Some(Ok(bytemuck::bytes_of(&self.credentials).to_vec())),
            (SOL_SOCKET, raw_net::SO_PEERGROUPS) => Some(Ok(bytemuck::cast_slice(&self.groups).to_vec())),
            (SOL_SOCKET, raw_net::SO_PEERPIDFD) => Some(match self.process.upgrade() {
                Some(process) if !process.is_reaped() => Ok(process.pid.to_ne_bytes().to_vec()),
                _ => Err(Errno::ESRCH),
            }),
            _ => None,
        }
    }
}

/// A message to be sent.
pub struct Outgoing<'a> {
    /// Destination, as a `sockaddr`; none sends to the peer.
    pub address: Option<&'a [u8]>,
    /// `MSG_*`.
    pub flags: u32,
    /// Who sends.
    pub sender: Credentials,
    /// Files that go along; taken once they are on their way.
    pub rights: Option<Rights>,
    /// Other control data, for the protocol.
    pub controls: Vec<Control>,
    /// The sending task, where an address is a path to be walked.
    pub task: Option<&'a Arc<Task>>,
}

impl Outgoing<'_> {
    /// Bytes alone, to the peer.
    pub fn plain(sender: Credentials) -> Self {
        Self { address: None, flags: 0, sender, rights: None, controls: Vec::new(), task: None }
    }
}

/// Control data of the internet's protocols, ready for a `cmsghdr`.
#[derive(Clone, Debug)]
pub struct Control {
    /// `SOL_*`, `IPPROTO_*`.
    pub level: i32,
    /// What it is.
    pub kind: i32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A message that was received.
#[derive(Default)]
pub struct Incoming {
    /// Bytes stored.
    pub count: usize,
    /// Length of the message, or `count` for streams.
    pub length: usize,
    /// Sender's address, as a `sockaddr`; none on connections.
    pub address: Option<Vec<u8>>,
    /// Files that came along.
    pub files: Vec<Arc<File>>,
    /// Who sent it, if the receiver wants to know.
    pub credentials: Option<Credentials>,
    /// The sender's process, if the receiver wants a descriptor of it.
    pub process: Option<i32>,
    /// Other control data.
    pub controls: Vec<Control>,
    /// `MSG_TRUNC` and `MSG_EOR` of `msg_flags`.
    pub flags: u32,
}

impl Incoming {
    /// Bytes of a stream.
    pub fn bytes(count: usize) -> Self {
        Self { count, length: count, ..Self::default() }
    }
}
