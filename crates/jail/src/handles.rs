//! Host directories as handles to detached mounts: `..` from such a handle leads nowhere, since nothing lies above its root, and the host
//! itself refuses writes, devices, set-id bits and symbolic links on it.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;

use crate::JailError;

const MOUNT_ATTR_RDONLY: u64 = 0x1;
const MOUNT_ATTR_NOSUID: u64 = 0x2;
const MOUNT_ATTR_NODEV: u64 = 0x4;
/// The sandbox resolves symbolic links itself: on the host's side none is ever followed, not even by a bug of ours.
const MOUNT_ATTR_NOSYMFOLLOW: u64 = 0x20_0000;

/// `struct mount_attr`.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// A handle to a copy of the mount at `path` with all that is mounted beneath; for a regular file, the file itself, opened through such a
/// mount. Needs `CAP_SYS_ADMIN` over the mount namespace, and for files `/proc`.
pub fn open(path: &Path, read_only: bool) -> Result<OwnedFd, JailError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let handle = rustix::mount::open_tree(CWD, path, flags).map_err(|error| cannot_open(path, error))?;
    let set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSYMFOLLOW | if read_only { MOUNT_ATTR_RDONLY } else { 0 };
    match set_attributes(&handle, set) {
        // Linux before 5.14 does not know NOSYMFOLLOW here; it is the second lock on that door.
        Err(Errno::INVAL) => set_attributes(&handle, set & !MOUNT_ATTR_NOSYMFOLLOW),
        result => result,
    }
    .map_err(|error| JailError::new(format!("Cannot restrict the mount of `{}`", path.display()), error))?;
    let status = rustix::fs::fstat(&handle).map_err(|error| cannot_open(path, error))?;
    match FileType::from_raw_mode(status.st_mode) {
        FileType::Directory => Ok(handle),
        FileType::RegularFile => open_file(&handle, read_only).map_err(|error| cannot_open(path, error)),
        _ => {
            Err(JailError::plain(format!("Cannot show `{}` to the sandbox: it is neither a directory nor a regular file", path.display()))
                .hint("give the directory that holds it; devices, sockets and pipes of the host cannot be opened inside"))
        }
    }
}

/// A file without a name above it cannot be opened through a handle once `/proc` is left behind: it is opened here.
fn open_file(handle: &OwnedFd, read_only: bool) -> Result<OwnedFd, Errno> {
    let access = if read_only { OFlags::RDONLY } else { OFlags::RDWR };
    let flags = access | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    rustix::fs::open(format!("/proc/self/fd/{}", handle.as_raw_fd()), flags, Mode::empty())
}

fn cannot_open(path: &Path, error: Errno) -> JailError {
    let failure = JailError::new(format!("Cannot open `{}` for the sandbox", path.display()), error);
    match error {
        Errno::NOENT => failure.hint("check the path; it must exist on the host"),
        Errno::ACCESS => failure.hint("the path must be reachable for the user who starts the sandbox"),
        Errno::NOSYS => failure.hint("Linux 5.12 or newer is needed (open_tree, mount_setattr)"),
        _ => failure,
    }
}

fn set_attributes(handle: &OwnedFd, set: u64) -> Result<(), Errno> {
    let attributes = MountAttributes { set, clear: 0, propagation: 0, user_namespace: 0 };
    // SAFETY: the structure lives across the call and its size is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            handle.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)) }
}
