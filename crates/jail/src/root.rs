//! Leaving the host's tree for an empty one.

use std::thread::JoinHandle;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags, fsconfig_create, fsmount, fsopen,
    mount_change, move_mount, unmount,
};

use crate::JailError;

/// The old tree on its way out of this process's namespace. Waiting for the host to have let go of it takes longer than anything else on the way to
/// jail, so that a thread does it, and must be waited for before the guest's first instruction.
#[must_use]
pub struct Leaving(JoinHandle<Result<(), Errno>>);

impl Leaving {
    /// Waits until the old tree is gone.
    pub fn finish(self) -> Result<(), JailError> {
        // A panic in there ends the process before it gets here.
        self.0.join().unwrap_or(Err(Errno::IO)).map_err(refused)
    }
}

/// Replaces the root of this process's own mount namespace by an empty, read-only tmpfs and lets go of everything else. `private` says that the
/// namespace belongs to a user namespace of ours: then the host has cut its ties to other namespaces already.
/// Nothing may be looked up by path until the answer has been finished: the old tree still lies upon the new one.
pub fn leave_host(private: bool) -> Result<Leaving, JailError> {
    /// It makes one call.
    const STACK: usize = 32 << 10;
    steps(private).map_err(refused)?;
    // The thread keeps the capabilities that this one drops meanwhile, for that one call.
    let thread = std::thread::Builder::new().name("leave".into()).stack_size(STACK);
    let thread = thread.spawn(|| unmount(".", UnmountFlags::DETACH));
    thread.map(Leaving).map_err(|error| JailError::new("Cannot make a thread that leaves the host's file system", error))
}

fn refused(error: Errno) -> JailError {
    JailError::new("Cannot leave the host's file system", error)
        .hint("the host forbids mounts in user namespaces (AppArmor or SELinux policy?); `pilot doctor` tells more, or start as root")
}

fn steps(private: bool) -> Result<(), Errno> {
    if !private {
        // What we unmount must stay mounted for everybody else.
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM)?;
    }
    let filesystem = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&filesystem)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let empty = fsmount(&filesystem, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    // Any directory that surely exists will do as the place to stand on; it is gone a moment later.
    move_mount(&empty, "", CWD, "/proc", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    rustix::process::fchdir(&empty)?;
    // Stacks the old root upon the new one, where it can be let go of without a directory to put it in.
    rustix::process::pivot_root(".", ".")
}
