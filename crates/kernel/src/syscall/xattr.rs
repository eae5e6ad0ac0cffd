//! Extended attributes, `xattr(7)`.

use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};

use super::at;
use super::{Arg, Args, Call, SysResult};
use crate::task::{Credentials, Task};
use crate::vfs::acl::{self, Acl};
use crate::vfs::inode::{Attributes, FileType};
use crate::vfs::{Path as Place, permission, watch};

use Arg::{Fd, Flags, Path, Ptr, Size};

/// The family.
pub const CALLS: &[Call] = &[
    Call::full(raw::__NR_setxattr, |task, args| set(task, &by_path(task, args, true)?, args), &[Path, Path, Ptr, Size, Flags]),
    Call::full(raw::__NR_lsetxattr, |task, args| set(task, &by_path(task, args, false)?, args), &[Path, Path, Ptr, Size, Flags]),
    Call::full(raw::__NR_fsetxattr, |task, args| set(task, &by_fd(task, args)?, args), &[Fd, Path, Ptr, Size, Flags]),
    Call::full(raw::__NR_getxattr, |task, args| get(task, &by_path(task, args, true)?, args), &[Path, Path, Ptr, Size]),
    Call::full(raw::__NR_lgetxattr, |task, args| get(task, &by_path(task, args, false)?, args), &[Path, Path, Ptr, Size]),
    Call::full(raw::__NR_fgetxattr, |task, args| get(task, &by_fd(task, args)?, args), &[Fd, Path, Ptr, Size]),
    Call::full(raw::__NR_listxattr, |task, args| list(task, &by_path(task, args, true)?, args), &[Path, Ptr, Size]),
    Call::full(raw::__NR_llistxattr, |task, args| list(task, &by_path(task, args, false)?, args), &[Path, Ptr, Size]),
    Call::full(raw::__NR_flistxattr, |task, args| list(task, &by_fd(task, args)?, args), &[Fd, Ptr, Size]),
    Call::full(raw::__NR_removexattr, |task, args| remove(task, &by_path(task, args, true)?, args), &[Path, Path]),
    Call::full(raw::__NR_lremovexattr, |task, args| remove(task, &by_path(task, args, false)?, args), &[Path, Path]),
    Call::full(raw::__NR_setxattrat, setxattrat, &[Fd, Path, Flags, Path, Ptr, Size]),
    Call::full(raw::__NR_getxattrat, getxattrat, &[Fd, Path, Flags, Path, Ptr, Size]),
    Call::full(raw::__NR_listxattrat, |task, args| list(task, &by_path_at(task, args)?, &shifted(args, 2)), &[Fd, Path, Flags, Ptr, Size]),
    Call::full(raw::__NR_removexattrat, |task, args| remove(task, &by_path_at(task, args)?, &shifted(args, 2)), &[Fd, Path, Flags, Path]),
    Call::full(raw::__NR_fremovexattr, |task, args| remove(task, &by_fd(task, args)?, args), &[Fd, Path]),
];

/// Longest name and largest value, `limits.h`.
const XATTR_NAME_MAX: usize = 255;
const XATTR_SIZE_MAX: usize = 65_536;

fn by_path(task: &Arc<Task>, args: &Args, follow: bool) -> Result<Place, Errno> {
    at::lookup(task, at::CWD, args.raw(0), 0, follow)
}

fn by_fd(task: &Arc<Task>, args: &Args) -> Result<Place, Errno> {
    Ok(at::place(&task.file(args.int(0))?, task))
}

fn by_path_at(task: &Arc<Task>, args: &Args) -> Result<Place, Errno> {
    at::check_flags(args.uint(2), raw::AT_SYMLINK_NOFOLLOW | raw::AT_EMPTY_PATH)?;
    at::lookup_flags(task, args.int(0), args.raw(1), args.uint(2))
}

/// The arguments of a newer form as the older one has them: `by` fewer in front.
fn shifted(args: &Args, by: usize) -> Args {
    let mut older = Args::default();
    older.0[..6 - by].copy_from_slice(&args.0[by..]);
    older
}

/// `struct xattr_args`: place, size and flags of the value.
fn value_arguments(task: &Arc<Task>, args: &Args) -> Result<Args, Errno> {
    const SIZE: usize = 16;
    let size = args.size(5);
    if size < SIZE {
        return Err(Errno::EINVAL);
    }
    if size > cloudpilot_abi::PAGE_SIZE as usize {
        return Err(Errno::E2BIG);
    }
    let bytes: Vec<u8> = task.read_slice(args.raw(4), size)?;
    if bytes[SIZE..].iter().any(|byte| *byte != 0) {
        return Err(Errno::E2BIG);
    }
    let [value, lengths]: [u64; 2] = bytemuck::pod_read_unaligned(&bytes[..SIZE]);
    Ok(Args([0, args.raw(3), value, lengths & 0xffff_ffff, lengths >> 32, 0]))
}

fn setxattrat(task: &Arc<Task>, args: &Args) -> SysResult {
    let place = by_path_at(task, args)?;
    set(task, &place, &value_arguments(task, args)?)
}

fn getxattrat(task: &Arc<Task>, args: &Args) -> SysResult {
    let place = by_path_at(task, args)?;
    let older = value_arguments(task, args)?;
    if older.uint(4) != 0 {
        return Err(Errno::EINVAL);
    }
    get(task, &place, &older)
}

fn read_name(task: &Arc<Task>, args: &Args) -> Result<Vec<u8>, Errno> {
    let name = task.read_string(args.raw(1), XATTR_NAME_MAX + 1, Errno::ERANGE)?;
    if name.is_empty() { Err(Errno::ERANGE) } else { Ok(name) }
}

/// Judges access to an attribute by its namespace.
fn check(task: &Arc<Task>, place: &Place, name: &[u8], write: bool) -> Result<(), Errno> {
    if write {
        permission::check_writable_mount(place)?;
    }
    if [&b"user."[..], b"trusted.", b"security."].contains(&name) {
        return Err(Errno::EINVAL);
    }
    let credentials = task.credentials();
    let attributes = place.inode().attributes()?;
    if name.starts_with(b"user.") {
        if !matches!(attributes.file_type, FileType::Regular | FileType::Directory) {
            return Err(if write { Errno::EPERM } else { Errno::ENODATA });
        }
        return permission::check_attributes(&attributes, &credentials, if write { permission::WRITE } else { permission::READ });
    }
    if name == acl::ACCESS || name == acl::DEFAULT {
        return check_list(&attributes, &credentials, name, write);
    }
    if name.starts_with(b"trusted.") {
        return match (credentials.has(raw::CAP_SYS_ADMIN), write) {
            (true, _) => Ok(()),
            (false, true) => Err(Errno::EPERM),
            (false, false) => Err(Errno::ENODATA),
        };
    }
    if name.starts_with(b"security.") {
        return if write && !credentials.has(raw::CAP_SYS_ADMIN) { Err(Errno::EPERM) } else { Ok(()) };
    }
    Err(Errno::EOPNOTSUPP)
}

/// Lists are for the owner to change; everybody may read them.
fn check_list(attributes: &Attributes, credentials: &Credentials, name: &[u8], write: bool) -> Result<(), Errno> {
    if attributes.file_type == FileType::Symlink {
        return Err(Errno::EOPNOTSUPP);
    }
    if write && name == acl::DEFAULT && attributes.file_type != FileType::Directory {
        return Err(Errno::EACCES);
    }
    if write && !permission::is_owner(attributes, credentials) { Err(Errno::EPERM) } else { Ok(()) }
}

/// Which list an attribute holds, if one: whether it is the default one.
fn list_named(name: &[u8]) -> Option<bool> {
    if name == acl::ACCESS { Some(false) } else { (name == acl::DEFAULT).then_some(true) }
}

fn set(task: &Arc<Task>, place: &Place, args: &Args) -> SysResult {
    let (size, flags) = (args.size(3), args.uint(4));
    if flags & !(raw::XATTR_CREATE | raw::XATTR_REPLACE) != 0 {
        return Err(Errno::EINVAL);
    }
    let name = read_name(task, args)?;
    if size > XATTR_SIZE_MAX {
        return Err(Errno::E2BIG);
    }
    let value: Vec<u8> = task.read_slice(args.raw(2), size)?;
    check(task, place, &name, true)?;
    match list_named(&name) {
        Some(default) => set_list(task, place, default, &value)?,
        None => place.inode().set_xattr(&name, &value, flags)?,
    }
    watch::name_event(&place.name, raw::IN_ATTRIB);
    Ok(0)
}

fn set_list(task: &Arc<Task>, place: &Place, default: bool, value: &[u8]) -> Result<(), Errno> {
    let credentials = task.credentials();
    let list = Acl::parse(value, &credentials.user)?;
    place.inode().set_acl(default, list)?;
    let attributes = place.inode().attributes()?;
    if !default && attributes.permissions & raw::S_ISGID != 0 && !credentials.in_group(attributes.gid) {
        super::blocking::drop_set_id(&**place.inode(), &credentials);
    }
    Ok(())
}

/// Answers a value or a list: its size alone when no room is given.
fn answer(task: &Arc<Task>, buffer: u64, room: usize, bytes: &[u8]) -> SysResult {
    if room != 0 {
        if bytes.len() > room {
            return Err(Errno::ERANGE);
        }
        task.write_bytes(buffer, bytes)?;
    }
    Ok(bytes.len())
}

fn get(task: &Arc<Task>, place: &Place, args: &Args) -> SysResult {
    let name = read_name(task, args)?;
    check(task, place, &name, false)?;
    let value = match list_named(&name) {
        Some(default) => place.inode().acl(default).ok_or(Errno::ENODATA)?.value(&task.credentials().user),
        None => place.inode().get_xattr(&name)?,
    };
    answer(task, args.raw(2), args.size(3), &value)
}

fn list(task: &Arc<Task>, place: &Place, args: &Args) -> SysResult {
    let privileged = task.credentials().has(raw::CAP_SYS_ADMIN);
    let mut names = place.inode().list_xattrs()?;
    names.retain(|name| privileged || !name.starts_with(b"trusted."));
    let lists = [(false, acl::ACCESS), (true, acl::DEFAULT)];
    names.extend(lists.iter().filter(|(default, _)| place.inode().acl(*default).is_some()).map(|(_, name)| name.to_vec()));
    let bytes: Vec<u8> = names.into_iter().flat_map(|name| name.into_iter().chain([0])).collect();
    answer(task, args.raw(1), args.size(2), &bytes)
}

fn remove(task: &Arc<Task>, place: &Place, args: &Args) -> SysResult {
    let name = read_name(task, args)?;
    check(task, place, &name, true)?;
    match list_named(&name) {
        Some(default) => remove_list(place, default)?,
        None => place.inode().remove_xattr(&name)?,
    }
    watch::name_event(&place.name, raw::IN_ATTRIB);
    Ok(0)
}

/// Without its list a file keeps the bits that stood for it.
fn remove_list(place: &Place, default: bool) -> Result<(), Errno> {
    match place.inode().acl(default) {
        Some(_) => place.inode().set_acl(default, None),
        None => Ok(()),
    }
}
