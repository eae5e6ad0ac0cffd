//! Namespaces, and the users that exist in them.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;

use crate::JailError;

/// First of the user numbers that kernel processes of sandboxes started by root run as: far above what distributions, systemd and container
/// engines hand out.
const SANDBOX_USERS: u32 = 0x7000_0000;
/// How many: two sandboxes that share a number share nothing else.
const SANDBOX_USER_COUNT: u32 = 0x10_0000;
/// `nobody`, where the numbers above do not exist (root of a container).
const NOBODY: u32 = 65_534;

/// `libc`'s constant of that name does not fit its type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which users exist in a namespace, and which of them the process becomes.
#[derive(Clone, Debug)]
pub struct Identity {
    /// User that the kernel process becomes.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Started by somebody who may map every user.
    pub privileged: bool,
    uid_map: String,
    gid_map: String,
}

impl Identity {
    /// For whoever calls. `unprivileged` asks root for a user number that owns nothing on this host, chosen by `seed`.
    pub fn choose(unprivileged: bool, seed: &str) -> Self {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        if uid != 0 {
            return Self { uid, gid, privileged: false, uid_map: format!("{uid} {uid} 1"), gid_map: format!("{gid} {gid} 1") };
        }
        let (uid_map, gid_map) = (own_map("/proc/self/uid_map"), own_map("/proc/self/gid_map"));
        let mut chosen = 0;
        if unprivileged {
            let hash = seed.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
            let number = SANDBOX_USERS + hash % SANDBOX_USER_COUNT;
            chosen = if maps(&uid_map, number) && maps(&gid_map, number) { number } else { NOBODY };
        }
        Self { uid: chosen, gid: chosen, privileged: true, uid_map: identity_map(&uid_map), gid_map: identity_map(&gid_map) }
    }

    /// Writes the maps of a child that was just cloned into a new user namespace.
    pub fn write_maps(&self, child: Pid) -> Result<(), JailError> {
        let directory = format!("/proc/{}", child.as_raw_nonzero());
        let steps = || -> Result<(), Errno> {
            let directory = rustix::fs::open(directory.as_str(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            if !self.privileged {
                // The host's condition for letting anybody map their own group.
                write_file(&directory, "setgroups", "deny")?;
            }
            write_file(&directory, "uid_map", &self.uid_map)?;
            write_file(&directory, "gid_map", &self.gid_map)
        };
        steps().map_err(|error| JailError::new("Cannot map users into the sandbox's namespace", error))
    }
}

fn write_file(directory: &OwnedFd, name: &str, contents: &str) -> Result<(), Errno> {
    let file = rustix::fs::openat(directory, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, contents.as_bytes()).map(|_| ())
}

/// The ranges of users that exist here, as (first, count).
fn own_map(path: &str) -> Vec<(u32, u32)> {
    let whole = vec![(0, u32::MAX)];
    let Ok(file) = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else { return whole };
    let mut buffer = [0; 4096];
    let length = rustix::io::read(&file, &mut buffer).unwrap_or(0);
    parse_map(&String::from_utf8_lossy(&buffer[..length])).unwrap_or(whole)
}

fn parse_map(text: &str) -> Option<Vec<(u32, u32)>> {
    text.lines()
        .map(|line| {
            let mut words = line.split_whitespace();
            let (first, _, count) = (words.next()?, words.next()?, words.next()?);
            Some((first.parse().ok()?, count.parse().ok()?))
        })
        .collect::<Option<Vec<_>>>()
        .filter(|ranges| !ranges.is_empty())
}

fn maps(ranges: &[(u32, u32)], number: u32) -> bool {
    ranges.iter().any(|&(first, count)| number >= first && number - first < count)
}

/// Every user under its own number: owners of host files are seen as they are.
fn identity_map(ranges: &[(u32, u32)]) -> String {
    ranges.iter().map(|(first, count)| format!("{first} {first} {count}\n")).collect()
}

/// Namespaces to be born into.
#[derive(Clone, Copy, Debug)]
pub struct Namespaces {
    /// A user namespace. Needed by everybody but root.
    pub user: bool,
    /// A network namespace with nothing in it, not even a loopback interface that is up.
    pub network: bool,
}

impl Namespaces {
    fn flags(self) -> i32 {
        let always = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        always | if self.user { libc::CLONE_NEWUSER } else { 0 }
    }

    /// In the child: enters its network namespace. The host takes as long for that one as for all others together, so that the parent goes on
    /// meanwhile.
    pub fn enter_network(self) -> Result<(), JailError> {
        // SAFETY: changes this one thread, the only one.
        if self.network && unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return Err(cannot_clone(self, std::io::Error::last_os_error()));
        }
        Ok(())
    }
}

/// A child in its namespaces.
#[derive(Debug)]
pub struct Child {
    /// Number, as the parent sees it.
    pub pid: Pid,
    /// Handle: readable once the child is dead.
    pub handle: OwnedFd,
}

/// Which side of a [`clone`] one is on.
#[derive(Debug)]
pub enum Side {
    /// The one that called.
    Parent(Child),
    /// The new process, first of its PID namespace.
    Child,
}

/// Makes a copy of this process in new namespaces (but for the network's, which it enters by [`Namespaces::enter_network`]), born into `cgroup` (version 2) if one is given.
///
/// # Safety
/// Only this thread may exist, since the child gets no other.
pub unsafe fn clone(namespaces: Namespaces, cgroup: Option<BorrowedFd<'_>>) -> Result<Side, JailError> {
    let mut handle = -1;
    // SAFETY: all zeros is a valid value of this plain structure.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    let mut flags = namespaces.flags() as u64 | libc::CLONE_PIDFD as u64;
    arguments.pidfd = (&raw mut handle) as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    if let Ok(Some(address)) = rustix::thread::get_clear_child_tid_address() {
        // libc keeps the thread's number there, and a child made behind its back would go on using the parent's.
        flags |= libc::CLONE_CHILD_SETTID as u64 | libc::CLONE_CHILD_CLEARTID as u64;
        arguments.child_tid = address.as_ptr() as u64;
    }
    if let Some(cgroup) = cgroup {
        flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    arguments.flags = flags;
    // SAFETY: without CLONE_VM this is a fork; the caller vouches for the single thread.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) };
    match result {
        0 => Ok(Side::Child),
        pid if pid > 0 => {
            let pid =
                Pid::from_raw(pid as i32).ok_or_else(|| JailError::plain("Cannot make the kernel process: the host answered nonsense"))?;
            // SAFETY: the host just opened it for us.
            Ok(Side::Parent(Child { pid, handle: unsafe { OwnedFd::from_raw_fd(handle) } }))
        }
        _ => Err(cannot_clone(namespaces, std::io::Error::last_os_error())),
    }
}

fn cannot_clone(namespaces: Namespaces, error: std::io::Error) -> JailError {
    let number = error.raw_os_error();
    let failure = JailError::new("Cannot make the namespaces of a sandbox", error);
    match number {
        Some(libc::EPERM) if namespaces.user => failure.hint(
            "this host does not let you make user namespaces: start as root, or allow them \
             (`sysctl kernel.unprivileged_userns_clone=1`, on Ubuntu `sysctl kernel.apparmor_restrict_unprivileged_userns=0`)",
        ),
        Some(libc::ENOSPC) => {
            failure.hint("the host's limit is reached: raise it by `sysctl user.max_user_namespaces=65536` (and its siblings)")
        }
        Some(libc::EAGAIN) => failure.hint("the limit of processes is reached (`ulimit -u`, or a cgroup's pids.max)"),
        Some(libc::ENOSYS) => failure.hint("Linux 5.12 or newer is needed, and whatever confines this process must allow clone3"),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_parsed_and_written_back_as_identity() {
        let ranges = parse_map("         0     100000      65536\n  65536 1000 1\n").unwrap();
        assert_eq!(ranges, [(0, 65_536), (65_536, 1)]);
        assert_eq!(identity_map(&ranges), "0 0 65536\n65536 65536 1\n");
        assert!(maps(&ranges, 65_536) && !maps(&ranges, 65_537));
        assert_eq!(parse_map(""), None);
    }
}
