//! Users, capabilities, limits and descriptors: giving up what a process has.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::JailError;
use crate::namespaces::Identity;

/// Highest capability number that any Linux knows so far, with room; unknown ones are skipped.
const CAPABILITIES: u32 = 63;

/// Becomes the identity's user without supplementary groups, then drops every capability for good. `may_set_groups` is false where an
/// unprivileged starter made the user namespace: there the host forbids it, and the starter's groups stay.
pub fn drop_all(identity: &Identity) -> Result<(), JailError> {
    become_user(identity).map_err(|error| JailError::new(format!("Cannot become user {}", identity.uid), error))?;
    drop_capabilities().map_err(|error| JailError::new("Cannot drop capabilities", error))
}

fn become_user(identity: &Identity) -> Result<(), Errno> {
    use rustix::process::{Gid, Uid};
    if identity.privileged {
        rustix::thread::set_thread_groups(&[])?;
    }
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    rustix::thread::set_thread_res_gid(Some(gid), Some(gid), Some(gid))?;
    rustix::thread::set_thread_res_uid(Some(uid), Some(uid), Some(uid))
}

fn drop_capabilities() -> Result<(), Errno> {
    for capability in 0..=CAPABILITIES {
        // SAFETY: takes plain numbers. Fails for numbers that this host does not know, and where it was dropped before.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) } != 0 {
            break;
        }
    }
    rustix::thread::clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    rustix::thread::set_no_new_privs(true)?;
    // Other processes of the same user must not read our memory or trace us.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
}

/// Makes the host kill this process when the thread that made it dies. A change of user undoes it: call it again then, and check that the
/// parent is alive still.
pub fn die_with_parent() -> Result<(), JailError> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| JailError::new("Cannot tie the kernel process to its supervisor", error))
}

/// Memory of its own that a kernel process may take beyond what its guests may have: its objects, and the stacks of threads apart from theirs.
const OWN_MEMORY: u64 = 256 << 20;
/// The same for each guest thread: the stack of its kernel thread with room, most of which is never touched.
const MEMORY_PER_GUEST: u64 = 512 << 10;
/// Host threads per guest thread (its stub's and our kernel's), and those of a kernel process without guests: clients, transfers, connections.
const THREADS_PER_GUEST: u64 = 2;
const THREADS_OWN: u64 = 512;
/// The first Linux that counts processes per user namespace. Before, all processes of the starter count, and a limit would be hit by others.
const COUNTS_BY_NAMESPACE: (u32, u32) = (5, 14);

/// What the guests of a kernel process may have.
#[derive(Clone, Copy, Debug)]
pub struct GuestLimits {
    /// Processes and threads.
    pub processes: u32,
    /// Memory, bytes.
    pub memory_bytes: u64,
}

/// Limits of a kernel process, by the host: no core dumps (they would hold the guest's secrets), as many descriptors as its starter may have,
/// since each file that the guest opens on the host costs one. Private memory and processes are limited as the guest's are, with room: control
/// groups do that better, but not everybody has them, and stubs, which inherit this, can make both without our kernel's knowledge. And no umask: each
/// guest process has its own.
pub fn set_limits(guest: GuestLimits) -> Result<(), JailError> {
    rustix::process::umask(rustix::fs::Mode::empty());
    let set = |resource, current, maximum| {
        rustix::process::setrlimit(resource, Rlimit { current: Some(current), maximum: Some(maximum) })
            .map_err(|error| JailError::new("Cannot set resource limits", error))
    };
    set(Resource::Core, 0, 0)?;
    if let Rlimit { maximum: Some(maximum), .. } = rustix::process::getrlimit(Resource::Nofile) {
        set(Resource::Nofile, maximum, maximum)?;
    }
    let lower = |resource, wanted: u64| {
        let limit = rustix::process::getrlimit(resource).maximum.map_or(wanted, |maximum| maximum.min(wanted));
        set(resource, limit, limit)
    };
    let processes = u64::from(guest.processes);
    lower(Resource::Data, guest.memory_bytes.saturating_add(OWN_MEMORY).saturating_add(processes * MEMORY_PER_GUEST))?;
    if linux_version().is_some_and(|version| version >= COUNTS_BY_NAMESPACE) {
        lower(Resource::Nproc, processes * THREADS_PER_GUEST + THREADS_OWN)?;
    }
    Ok(())
}

/// Major and minor number of the host's kernel.
fn linux_version() -> Option<(u32, u32)> {
    let system = rustix::system::uname();
    let mut numbers = system.release().to_str().ok()?.split(['.', '-']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Closes every descriptor but those given: whatever the starter had open is none of the sandbox's business.
pub fn close_all_except(kept: &[BorrowedFd<'_>]) -> Result<(), JailError> {
    let mut numbers: Vec<RawFd> = kept.iter().map(AsRawFd::as_raw_fd).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut from = 0;
    for number in numbers.into_iter().map(|number| number as u32).chain([u32::MAX]) {
        // SAFETY: closes descriptors that nobody owns any more: the process was just cloned, and what it goes on using is in `kept`.
        if from < number && unsafe { libc::syscall(libc::SYS_close_range, from, number - 1, 0) } != 0 {
            return Err(JailError::new("Cannot close inherited descriptors", std::io::Error::last_os_error()));
        }
        from = number.saturating_add(1);
    }
    Ok(())
}
