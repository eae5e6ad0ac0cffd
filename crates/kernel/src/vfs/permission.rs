//! Who may do what with an inode: mode bits and capabilities, `path_resolution(7)`.

use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};

use super::acl;
use super::inode::{Attributes, FileType, Inode};
use super::name::Path;
use crate::task::Credentials;

/// Read, as in `access(2)`.
pub const READ: u32 = 4;
/// Write.
pub const WRITE: u32 = 2;
/// Execute, or search for directories.
pub const EXECUTE: u32 = 1;

/// Whether `credentials` may access an inode with these attributes; `EACCES` if not.
pub fn check_attributes(attributes: &Attributes, credentials: &Credentials, wanted: u32) -> Result<(), Errno> {
    judge(attributes, credentials, wanted, None)
}

/// The same where an access control list may have judged already.
fn judge(attributes: &Attributes, credentials: &Credentials, wanted: u32, listed: Option<bool>) -> Result<(), Errno> {
    let shift = if credentials.fsuid == attributes.uid {
        6
    } else if credentials.in_group(attributes.gid) {
        3
    } else {
        0
    };
    let granted = attributes.permissions >> shift & 7;
    if listed.unwrap_or(granted & wanted == wanted) {
        return Ok(());
    }
    let directory = attributes.file_type == FileType::Directory;
    if credentials.has_over(attributes, raw::CAP_DAC_OVERRIDE)
        && (wanted & EXECUTE == 0 || directory || attributes.permissions & 0o111 != 0)
    {
        return Ok(());
    }
    if credentials.has_over(attributes, raw::CAP_DAC_READ_SEARCH) && (wanted == READ || directory && wanted & WRITE == 0) {
        return Ok(());
    }
    Err(Errno::EACCES)
}

/// The same for an inode.
pub fn check(inode: &Arc<dyn Inode>, credentials: &Credentials, wanted: u32) -> Result<(), Errno> {
    let attributes = inode.attributes()?;
    let listed = acl::judge(inode, &attributes, credentials, wanted);
    judge(&attributes, credentials, wanted, listed)
}

/// Whether a place may be written to at all: `EROFS` on a read-only mount.
pub fn check_writable_mount(path: &Path) -> Result<(), Errno> {
    if path.mount.read_only() { Err(Errno::EROFS) } else { Ok(()) }
}

/// Whether names may be made in or removed from a directory.
pub fn check_directory_change(directory: &Path, credentials: &Credentials) -> Result<(), Errno> {
    check_writable_mount(directory)?;
    if directory.name.is_deleted() {
        return Err(Errno::ENOENT);
    }
    check(directory.inode(), credentials, WRITE | EXECUTE)
}

/// The sticky bit: in such a directory only the owner of a file, of the directory, or a capable one removes or renames it.
pub fn check_sticky(directory: &Arc<dyn Inode>, target: &Arc<dyn Inode>, credentials: &Credentials) -> Result<(), Errno> {
    let directory = directory.attributes()?;
    if directory.permissions & 0o1000 == 0 || directory.uid == credentials.fsuid {
        return Ok(());
    }
    if is_owner(&target.attributes()?, credentials) { Ok(()) } else { Err(Errno::EPERM) }
}

/// Whether `credentials` own an inode or may act as if.
pub fn is_owner(attributes: &Attributes, credentials: &Credentials) -> bool {
    credentials.fsuid == attributes.uid || credentials.has_over(attributes, raw::CAP_FOWNER)
}
