//! Leaving the host's tree for an empty one.

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags, fsconfig_create, fsmount, fsopen,
    mount_change, move_mount, unmount,
};

use crate::JailError;

/// Replaces the root of this process's own mount namespace by an empty, read-only tmpfs and lets go of everything else. `private` says that the
/// namespace belongs to a user namespace of ours: then the host has cut its ties to other namespaces already.
pub fn leave_host(private: bool) -> Result<(), JailError> {
    steps(private).map_err(|error| {
        JailError::new("Cannot leave the host's file system", error)
            .hint("the host forbids mounts in user namespaces (AppArmor or SELinux policy?); `pilot doctor` tells more, or start as root")
    })
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
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")
}
