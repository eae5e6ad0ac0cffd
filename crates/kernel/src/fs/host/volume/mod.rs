//! Writable host directories, or single files, as filesystems.
//!
//! The host may change things beneath us at any time, and other sandboxes may share the directory: nothing is remembered but which inode is
//! which. Each look-up asks the host for one component; a file is opened again by its last known name and then compared with what it ought
//! to be. Symbolic links are text that our own walk follows inside the guest's tree. Devices, FIFOs and sockets of the host are seen, never
//! opened. FIFOs and sockets that are made are names on the host and nothing more: what goes through them stays in this kernel.
//!
//! Lock order: `Volume::nodes` and a node's `place` and `opened` are each locked alone; no [`Node`] is let go of with one of them locked.

mod directory;
mod file;
mod node;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use cloudpilot_abi::Errno;
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};

use crate::host::within_limit;
use crate::vfs::inode::{Attributes, FileType, Inode};

use node::{Node, Place};

/// Minor device numbers of volumes, `st_dev`: from 256 on, past those of the other filesystems. The host's own numbers could be the same as
/// theirs, and programs take files of equal device and inode for one.
static NEXT_DEVICE: AtomicU32 = AtomicU32::new(256);

/// One volume.
struct Volume {
    nodes: Mutex<Nodes>,
    /// Nothing may be changed. The host sees to that, too: its mount is read-only, whatever the guest makes of ours, and the filter of host calls
    /// lets no such change through.
    read_only: bool,
}

/// The inodes that somebody holds. Each holds a handle, so that the host cannot give its number to another file meanwhile.
#[derive(Default)]
struct Nodes {
    /// By the host's device and inode.
    known: HashMap<(u64, u64), Weak<Node>>,
    /// Our number for each of the host's filesystems in the volume.
    devices: HashMap<u64, u64>,
}

/// The filesystem behind a handle to a detached mount: an `O_PATH` handle to a directory, or an open regular file (which cannot be opened
/// again without a name, so that its access mode is the volume's).
pub fn root(handle: OwnedFd, read_only: bool) -> Result<Arc<dyn Inode>, Errno> {
    let attributes = super::statx(handle.as_fd(), c"")?;
    let opened = match attributes.file_type {
        FileType::Directory => None,
        FileType::Regular => {
            let flags = rustix::fs::fcntl_getfl(&handle).map_err(failure)?;
            if flags.contains(OFlags::PATH) {
                return Err(Errno::EBADF);
            }
            Some((flags & OFlags::RWMODE == OFlags::RDWR, Arc::new(handle.try_clone().map_err(|_| Errno::ENFILE)?)))
        }
        _ => return Err(Errno::ENXIO),
    };
    let volume = Arc::new(Volume { nodes: Mutex::default(), read_only });
    Ok(volume.adopt(handle, &attributes, None, opened))
}

/// The host's error as the guest sees it: that our process is out of descriptors is not the guest process's fault.
fn failure(error: rustix::io::Errno) -> Errno {
    match super::errno(error) {
        Errno::EMFILE => Errno::ENFILE,
        errno => errno,
    }
}

/// A handle to an entry, links not followed.
fn handle_of(directory: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let name = super::host_name(name)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    within_limit(rustix::fs::openat2(directory, &name, flags, Mode::empty(), super::resolve()).map_err(failure)?)
}

impl Volume {
    /// The node of a handle: the one that exists if there is one. `opened` is a descriptor kept for the first open, with whether it writes.
    fn adopt(
        self: &Arc<Self>,
        handle: OwnedFd,
        attributes: &Attributes,
        place: Option<Place>,
        opened: Option<(bool, Arc<OwnedFd>)>,
    ) -> Arc<Node> {
        let key = (attributes.device, attributes.inode);
        let mut nodes = self.nodes.lock();
        if let Some(node) = nodes.known.get(&key).and_then(Weak::upgrade) {
            drop(nodes);
            node.set_place(place);
            return node;
        }
        let device =
            *nodes.devices.entry(attributes.device).or_insert_with(|| rustix::fs::makedev(0, NEXT_DEVICE.fetch_add(1, Ordering::Relaxed)));
        let node = Node::new(self, handle, key, device, attributes.file_type, place, opened);
        nodes.known.insert(key, Arc::downgrade(&node));
        node
    }

    /// The node with the host's numbers, if somebody holds it.
    fn known(&self, key: (u64, u64)) -> Option<Arc<Node>> {
        self.nodes.lock().known.get(&key).and_then(Weak::upgrade)
    }

    /// A node is gone.
    fn forget(&self, key: (u64, u64)) {
        let mut nodes = self.nodes.lock();
        if nodes.known.get(&key).is_some_and(|node| node.strong_count() == 0) {
            nodes.known.remove(&key);
        }
    }
}
