//! Attributes: asking for them and changing them.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use cloudpilot_abi::types::{Stat, Timespec, Timeval};
use cloudpilot_abi::{Errno, raw};

use super::at;
use super::{Arg, Args, Call, SysResult};
use crate::task::{Credentials, Task};
use crate::vfs::inode::{Attributes, FileType, FilesystemFigures, SetAttributes, SetTime};
use crate::vfs::mount::NO_LINKS;
use crate::vfs::write_access::WriteAccess;
use crate::vfs::{Path as Place, leases, permission, watch};

use Arg::{Fd, Flags, Int, Mode, Path, Ptr, Size};

/// The family.
pub const CALLS: &[Call] = &[
    Call::partial(
        raw::__NR_name_to_handle_at,
        name_to_handle_at,
        &[Arg::Fd, Arg::Path, Arg::Ptr, Arg::Ptr, Arg::Flags],
        "handles tell files apart; open_by_handle_at is refused",
    ),
    Call::full(raw::__NR_stat, |task, args| stat(task, at::CWD, args.raw(0), 0, args.raw(1)), &[Path, Ptr]),
    Call::full(raw::__NR_lstat, |task, args| stat(task, at::CWD, args.raw(0), raw::AT_SYMLINK_NOFOLLOW, args.raw(1)), &[Path, Ptr]),
    Call::full(raw::__NR_fstat, fstat, &[Fd, Ptr]),
    Call::full(raw::__NR_newfstatat, newfstatat, &[Fd, Path, Ptr, Flags]),
    Call::full(raw::__NR_statx, statx, &[Fd, Path, Flags, Flags, Ptr]),
    Call::full(raw::__NR_access, |task, args| access(task, at::CWD, args.raw(0), args.uint(1), 0), &[Path, Flags]),
    Call::full(raw::__NR_faccessat, |task, args| access(task, args.int(0), args.raw(1), args.uint(2), 0), &[Fd, Path, Flags]),
    Call::full(
        raw::__NR_faccessat2,
        |task, args| access(task, args.int(0), args.raw(1), args.uint(2), args.uint(3)),
        &[Fd, Path, Flags, Flags],
    ),
    Call::full(raw::__NR_chmod, |task, args| chmod(task, at::CWD, args.raw(0), args.uint(1), 0), &[Path, Mode]),
    Call::full(raw::__NR_fchmod, fchmod, &[Fd, Mode]),
    Call::full(raw::__NR_fchmodat, |task, args| chmod(task, args.int(0), args.raw(1), args.uint(2), 0), &[Fd, Path, Mode]),
    Call::full(
        raw::__NR_fchmodat2,
        |task, args| chmod(task, args.int(0), args.raw(1), args.uint(2), args.uint(3)),
        &[Fd, Path, Mode, Flags],
    ),
    Call::full(raw::__NR_chown, |task, args| chown(task, at::CWD, args.raw(0), args.uint(1), args.uint(2), 0), &[Path, Int, Int]),
    Call::full(
        raw::__NR_lchown,
        |task, args| chown(task, at::CWD, args.raw(0), args.uint(1), args.uint(2), raw::AT_SYMLINK_NOFOLLOW),
        &[Path, Int, Int],
    ),
    Call::full(raw::__NR_fchown, fchown, &[Fd, Int, Int]),
    Call::full(
        raw::__NR_fchownat,
        |task, args| chown(task, args.int(0), args.raw(1), args.uint(2), args.uint(3), args.uint(4)),
        &[Fd, Path, Int, Int, Flags],
    ),
    Call::full(raw::__NR_utime, utime, &[Path, Ptr]),
    Call::full(raw::__NR_utimes, |task, args| utimes(task, at::CWD, args.raw(0), args.raw(1)), &[Path, Ptr]),
    Call::full(raw::__NR_futimesat, |task, args| utimes(task, args.int(0), args.raw(1), args.raw(2)), &[Fd, Path, Ptr]),
    Call::full(raw::__NR_utimensat, utimensat, &[Fd, Path, Ptr, Flags]),
    Call::full(raw::__NR_truncate, truncate, &[Path, Size]),
    Call::full(raw::__NR_ftruncate, ftruncate, &[Fd, Size]),
    Call::full(raw::__NR_statfs, statfs, &[Path, Ptr]),
    Call::full(raw::__NR_fstatfs, fstatfs, &[Fd, Ptr]),
];

/// Owner and group as the caller's user namespace shows them.
fn shown(task: &Task, mut attributes: Attributes) -> Attributes {
    let own = task.credentials();
    attributes.uid = own.user.show_user(attributes.uid);
    attributes.gid = own.user.show_group(attributes.gid);
    attributes
}

fn pack(attributes: &Attributes) -> Stat {
    Stat {
        st_dev: attributes.device,
        st_ino: attributes.inode,
        st_nlink: attributes.links,
        st_mode: attributes.mode(),
        st_uid: attributes.uid,
        st_gid: attributes.gid,
        st_rdev: attributes.device_type,
        st_size: attributes.size as i64,
        st_blksize: attributes.block_size as i64,
        st_blocks: attributes.blocks as i64,
        st_atim: attributes.accessed,
        st_mtim: attributes.modified,
        st_ctim: attributes.changed,
        ..Stat::default()
    }
}

fn stat(task: &Arc<Task>, fd: i32, address: u64, flags: u32, buffer: u64) -> SysResult {
    let place = at::lookup_flags(task, fd, address, flags)?;
    task.write(buffer, &pack(&shown(task, place.inode().attributes()?)))?;
    Ok(0)
}

fn fstat(task: &Arc<Task>, args: &Args) -> SysResult {
    let file = task.files().get(args.int(0))?;
    task.write(args.raw(1), &pack(&shown(task, file.inode.attributes()?)))?;
    Ok(0)
}

fn newfstatat(task: &Arc<Task>, args: &Args) -> SysResult {
    at::check_flags(args.uint(3), raw::AT_SYMLINK_NOFOLLOW | raw::AT_EMPTY_PATH | raw::AT_NO_AUTOMOUNT)?;
    stat(task, args.int(0), args.raw(1), args.uint(3), args.raw(2))
}

#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct StatxTime {
    seconds: i64,
    nanoseconds: u32,
    reserved: i32,
}

/// `struct statx`, `statx(2)`.
#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct Statx {
    mask: u32,
    block_size: u32,
    attributes: u64,
    links: u32,
    uid: u32,
    gid: u32,
    mode: u16,
    pad: u16,
    inode: u64,
    size: u64,
    blocks: u64,
    attributes_mask: u64,
    accessed: StatxTime,
    created: StatxTime,
    changed: StatxTime,
    modified: StatxTime,
    device_type: [u32; 2],
    device: [u32; 2],
    mount: u64,
    spare: [u64; 13],
}

const _: () = assert!(size_of::<Statx>() == 256);

fn statx(task: &Arc<Task>, args: &Args) -> SysResult {
    const STATX_MNT_ID: u32 = 0x1000;
    const STATX_ATTR_MOUNT_ROOT: u64 = 0x2000;
    let flags = args.uint(2);
    at::check_flags(flags, raw::AT_SYMLINK_NOFOLLOW | raw::AT_EMPTY_PATH | raw::AT_NO_AUTOMOUNT | raw::AT_STATX_SYNC_TYPE)?;
    if flags & raw::AT_STATX_SYNC_TYPE == raw::AT_STATX_SYNC_TYPE || args.uint(3) & 0x8000_0000 != 0 {
        return Err(Errno::EINVAL);
    }
    let place = at::lookup_flags(task, args.int(0), args.raw(1), flags)?;
    let found = shown(task, place.inode().attributes()?);
    let time = |time: Timespec| StatxTime { seconds: time.tv_sec, nanoseconds: time.tv_nsec as u32, reserved: 0 };
    let halves = |device: u64| [rustix::fs::major(device), rustix::fs::minor(device)];
    let result = Statx {
        mask: raw::STATX_BASIC_STATS | STATX_MNT_ID | if found.created.is_some() { raw::STATX_BTIME } else { 0 },
        block_size: found.block_size as u32,
        attributes: if Arc::ptr_eq(&place.name, &place.mount.root) { STATX_ATTR_MOUNT_ROOT } else { 0 },
        links: found.links as u32,
        uid: found.uid,
        gid: found.gid,
        mode: found.mode() as u16,
        inode: found.inode,
        size: found.size,
        blocks: found.blocks,
        attributes_mask: STATX_ATTR_MOUNT_ROOT,
        accessed: time(found.accessed),
        created: found.created.map_or_else(StatxTime::default, time),
        changed: time(found.changed),
        modified: time(found.modified),
        device_type: halves(found.device_type),
        device: halves(found.device),
        mount: place.mount.id,
        ..Statx::default()
    };
    task.write(args.raw(4), &result)?;
    Ok(0)
}

fn access(task: &Arc<Task>, fd: i32, address: u64, wanted: u32, flags: u32) -> SysResult {
    const AT_EACCESS: u32 = 0x200;
    at::check_flags(flags, AT_EACCESS | raw::AT_SYMLINK_NOFOLLOW | raw::AT_EMPTY_PATH)?;
    if wanted & !7 != 0 {
        return Err(Errno::EINVAL);
    }
    let effective = task.credentials();
    let credentials = if flags & AT_EACCESS != 0 { Credentials::clone(&effective) } else { real(&effective) };
    let path = if flags & raw::AT_EMPTY_PATH != 0 && address == 0 { Vec::new() } else { task.read_path(address)? };
    let place = if path.is_empty() && flags & raw::AT_EMPTY_PATH != 0 {
        at::lookup_flags(task, fd, address, flags)?
    } else {
        let mut walk = at::walk(task, fd, &path)?;
        walk.credentials = Arc::new(credentials.clone());
        walk.lookup(&path, flags & raw::AT_SYMLINK_NOFOLLOW == 0)?
    };
    if wanted & permission::WRITE != 0 && matches!(place.inode().file_type(), FileType::Regular | FileType::Directory) {
        permission::check_writable_mount(&place)?;
    }
    permission::check(place.inode(), &credentials, wanted)?;
    Ok(0)
}

/// The credentials that `access(2)` asks with: the real user's, with the capabilities that user would have.
fn real(credentials: &Credentials) -> Credentials {
    let mut real = credentials.clone();
    real.fsuid = credentials.ruid;
    real.fsgid = credentials.rgid;
    real.effective = if credentials.user.is_root(credentials.ruid) { credentials.permitted } else { 0 };
    real
}

/// Changes attributes of a place after `may` has judged the present ones.
fn change(task: &Arc<Task>, place: &Place, decide: impl FnOnce(&Attributes, &Credentials) -> Result<SetAttributes, Errno>) -> SysResult {
    permission::check_writable_mount(place)?;
    let present = place.inode().attributes()?;
    let changes = decide(&present, &task.credentials())?;
    place.inode().set_attributes(&changes)?;
    // One time alone looks like what would have set it.
    let event = match (changes.accessed, changes.modified) {
        _ if changes.permissions.is_some() || changes.uid.is_some() || changes.gid.is_some() => raw::IN_ATTRIB,
        (Some(_), None) => raw::IN_ACCESS,
        (None, Some(_)) => raw::IN_MODIFY,
        _ => raw::IN_ATTRIB,
    };
    watch::name_event(&place.name, event);
    Ok(0)
}

fn change_mode(task: &Arc<Task>, place: &Place, mode: u32) -> SysResult {
    if place.inode().file_type() == FileType::Symlink {
        return Err(Errno::EOPNOTSUPP);
    }
    change(task, place, |present, credentials| {
        if !permission::is_owner(present, credentials) {
            return Err(Errno::EPERM);
        }
        let mut permissions = mode & 0o7777;
        if !credentials.in_group(present.gid) && !credentials.has_over(present, raw::CAP_FSETID) {
            permissions &= !raw::S_ISGID;
        }
        Ok(SetAttributes { permissions: Some(permissions), ..SetAttributes::default() })
    })
}

fn chmod(task: &Arc<Task>, fd: i32, address: u64, mode: u32, flags: u32) -> SysResult {
    at::check_flags(flags, raw::AT_SYMLINK_NOFOLLOW | raw::AT_EMPTY_PATH)?;
    change_mode(task, &at::lookup_flags(task, fd, address, flags)?, mode)
}

fn fchmod(task: &Arc<Task>, args: &Args) -> SysResult {
    let file = task.file(args.int(0))?;
    change_mode(task, &at::place(&file, task), args.uint(1))
}

fn change_owner(task: &Arc<Task>, place: &Place, uid: u32, gid: u32) -> SysResult {
    const UNCHANGED: u32 = u32::MAX;
    let own = task.credentials();
    let uid = if uid == UNCHANGED { uid } else { own.user.user(uid).ok_or(Errno::EINVAL)? };
    let gid = if gid == UNCHANGED { gid } else { own.user.group(gid).ok_or(Errno::EINVAL)? };
    change(task, place, |present, credentials| {
        let capable = credentials.has_over(present, raw::CAP_CHOWN);
        let owner = credentials.fsuid == present.uid;
        if uid != UNCHANGED && !(capable || owner && uid == present.uid) {
            return Err(Errno::EPERM);
        }
        if gid != UNCHANGED && !(capable || owner && (credentials.in_group(gid) || gid == present.gid)) {
            return Err(Errno::EPERM);
        }
        let mut changes =
            SetAttributes { uid: (uid != UNCHANGED).then_some(uid), gid: (gid != UNCHANGED).then_some(gid), ..SetAttributes::default() };
        if present.file_type != FileType::Directory && (uid != UNCHANGED || gid != UNCHANGED) {
            // Set-id bits must not pass to another owner; set-group-id without group execution means locking, and stays.
            let group = if present.permissions & 0o010 != 0 { raw::S_ISGID } else { 0 };
            changes.permissions = Some(present.permissions & !(raw::S_ISUID | group));
        }
        Ok(changes)
    })
}

fn chown(task: &Arc<Task>, fd: i32, address: u64, uid: u32, gid: u32, flags: u32) -> SysResult {
    at::check_flags(flags, raw::AT_SYMLINK_NOFOLLOW | raw::AT_EMPTY_PATH)?;
    change_owner(task, &at::lookup_flags(task, fd, address, flags)?, uid, gid)
}

fn fchown(task: &Arc<Task>, args: &Args) -> SysResult {
    let file = task.file(args.int(0))?;
    change_owner(task, &at::place(&file, task), args.uint(1), args.uint(2))
}

/// Sets times; none means now, which whoever may write may set too.
fn change_times(task: &Arc<Task>, place: &Place, times: Option<[Option<SetTime>; 2]>) -> SysResult {
    change(task, place, |present, credentials| {
        let both_now = matches!(times, None | Some([Some(SetTime::Now), Some(SetTime::Now)]));
        if !permission::is_owner(present, credentials) {
            if !both_now {
                return Err(if matches!(times, Some([None, None])) { return Ok(SetAttributes::default()) } else { Errno::EPERM });
            }
            permission::check_attributes(present, credentials, permission::WRITE)?;
        }
        let [accessed, modified] = times.unwrap_or([Some(SetTime::Now); 2]);
        Ok(SetAttributes { accessed, modified, ..SetAttributes::default() })
    })
}

fn utime(task: &Arc<Task>, args: &Args) -> SysResult {
    let times = if args.raw(1) == 0 {
        None
    } else {
        let [accessed, modified]: [i64; 2] = task.read(args.raw(1))?;
        Some([accessed, modified].map(|tv_sec| Some(SetTime::At(Timespec { tv_sec, tv_nsec: 0 }))))
    };
    change_times(task, &at::lookup(task, at::CWD, args.raw(0), 0, true)?, times)
}

fn utimes(task: &Arc<Task>, fd: i32, address: u64, times: u64) -> SysResult {
    let times = if times == 0 {
        None
    } else {
        let times: [Timeval; 2] = [task.read(times)?, task.read(times + 16)?];
        if times.iter().any(|time| !(0..1_000_000).contains(&time.tv_usec)) {
            return Err(Errno::EINVAL);
        }
        Some(times.map(|time| Some(SetTime::At(Timespec { tv_sec: time.tv_sec, tv_nsec: time.tv_usec * 1000 }))))
    };
    let place = if address == 0 { at::place(&task.file(fd)?, task) } else { at::lookup(task, fd, address, 0, true)? };
    change_times(task, &place, times)
}

fn utimensat(task: &Arc<Task>, args: &Args) -> SysResult {
    const UTIME_NOW: i64 = 0x3fff_ffff;
    const UTIME_OMIT: i64 = 0x3fff_fffe;
    at::check_flags(args.uint(3), raw::AT_SYMLINK_NOFOLLOW | raw::AT_EMPTY_PATH)?;
    let times = if args.raw(2) == 0 {
        None
    } else {
        let mut result = [None; 2];
        for (index, slot) in result.iter_mut().enumerate() {
            let time: Timespec = task.read(args.raw(2) + 16 * index as u64)?;
            *slot = match time.tv_nsec {
                UTIME_NOW => Some(SetTime::Now),
                UTIME_OMIT => None,
                _ => Some(SetTime::At(time)),
            };
        }
        // Nothing to do: the path is not even looked at.
        if result.iter().all(Option::is_none) {
            return Ok(0);
        }
        Some(result)
    };
    let place = if args.raw(1) == 0 {
        if args.uint(3) != 0 {
            return Err(Errno::EINVAL);
        }
        at::place(&task.file(args.int(0))?, task)
    } else {
        at::lookup_flags(task, args.int(0), args.raw(1), args.uint(3))?
    };
    let is_bad = |time: &Option<SetTime>| matches!(time, Some(SetTime::At(time)) if !(0..1_000_000_000).contains(&time.tv_nsec));
    if times.iter().flatten().any(is_bad) {
        return Err(Errno::EINVAL);
    }
    change_times(task, &place, times)
}

fn resize(task: &Arc<Task>, inode: &Arc<dyn crate::vfs::Inode>, size: i64) -> SysResult {
    let size = u64::try_from(size).map_err(|_| Errno::EINVAL)?;
    if size > task.process.limits.lock().soft(raw::RLIMIT_FSIZE) {
        super::blocking::send_to_self(task, raw::SIGXFSZ as i32);
        return Err(Errno::EFBIG);
    }
    inode.set_attributes(&SetAttributes { size: Some(size), ..SetAttributes::default() })?;
    task.kernel.settle_mappings();
    super::blocking::drop_set_id(&**inode, &task.credentials());
    Ok(0)
}

fn truncate(task: &Arc<Task>, args: &Args) -> SysResult {
    if args.long(1) < 0 {
        return Err(Errno::EINVAL);
    }
    let place = at::lookup(task, at::CWD, args.raw(0), 0, true)?;
    match place.inode().file_type() {
        FileType::Directory => return Err(Errno::EISDIR),
        FileType::Regular => {}
        _ => return Err(Errno::EINVAL),
    }
    permission::check_writable_mount(&place)?;
    permission::check(place.inode(), &task.credentials(), permission::WRITE)?;
    let _access = WriteAccess::take(place.inode())?;
    leases::break_leases(task, place.inode(), true, false)?;
    resize(task, place.inode(), args.long(1))?;
    watch::name_event(&place.name, raw::IN_MODIFY);
    Ok(0)
}

fn ftruncate(task: &Arc<Task>, args: &Args) -> SysResult {
    if args.long(1) < 0 {
        return Err(Errno::EINVAL);
    }
    let file = task.file(args.int(0))?;
    if !file.writable() || file.inode.file_type() != FileType::Regular {
        return Err(Errno::EINVAL);
    }
    resize(task, &file.inode, args.long(1))?;
    watch::file_event(&file, raw::IN_MODIFY);
    Ok(0)
}

/// `struct statfs`, `statfs(2)`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Statfs {
    kind: i64,
    block_size: i64,
    blocks: u64,
    free: u64,
    available: u64,
    inodes: u64,
    free_inodes: u64,
    id: [i32; 2],
    name_length: i64,
    fragment: i64,
    flags: i64,
    spare: [i64; 4],
}

fn write_figures(task: &Arc<Task>, figures: &FilesystemFigures, mount_flags: u32, buffer: u64) -> SysResult {
    const ST_VALID: i64 = 0x20;
    /// `MS_*` whose `ST_*` are other bits, `statfs(2)`.
    const MOVED: [(u32, i64); 4] = [(raw::MS_NOATIME, 0x400), (raw::MS_NODIRATIME, 0x800), (raw::MS_RELATIME, 0x1000), (NO_LINKS, 0x2000)];
    let moved = MOVED.iter().filter(|(flag, _)| mount_flags & flag != 0).fold(0, |sum, (_, reported)| sum | reported);
    let result = Statfs {
        kind: figures.magic,
        block_size: figures.block_size,
        blocks: figures.blocks,
        free: figures.free_blocks,
        available: figures.free_blocks,
        inodes: figures.inodes,
        free_inodes: figures.free_inodes,
        id: [0; 2],
        name_length: figures.name_length,
        fragment: figures.block_size,
        flags: ST_VALID | i64::from(mount_flags & 0xf) | moved,
        spare: [0; 4],
    };
    task.write(buffer, &result)?;
    Ok(0)
}

fn statfs(task: &Arc<Task>, args: &Args) -> SysResult {
    let place = at::lookup(task, at::CWD, args.raw(0), 0, true)?;
    write_figures(task, &place.inode().statfs()?, place.mount.shown_flags(), args.raw(1))
}

fn fstatfs(task: &Arc<Task>, args: &Args) -> SysResult {
    let file = task.files().get(args.int(0))?;
    let flags = file.path.as_ref().map_or(0, |path| path.mount.shown_flags());
    write_figures(task, &file.inode.statfs()?, flags, args.raw(1))
}

fn name_to_handle_at(task: &Arc<Task>, args: &Args) -> SysResult {
    const AT_HANDLE_FID: u32 = 0x200;
    /// `FILEID_INO64_GEN` with a device number in front.
    const KIND: u32 = 0x81;
    const LENGTH: u32 = 16;
    let flags = args.uint(4);
    at::check_flags(flags, raw::AT_SYMLINK_FOLLOW | raw::AT_EMPTY_PATH | AT_HANDLE_FID)?;
    let place = at::lookup(task, args.int(0), args.raw(1), flags, flags & raw::AT_SYMLINK_FOLLOW != 0)?;
    let room: u32 = task.read(args.raw(2))?;
    if room > 128 {
        return Err(Errno::EINVAL);
    }
    task.write(args.raw(3), &(place.mount.id as i32))?;
    if room < LENGTH {
        task.write(args.raw(2), &LENGTH)?;
        return Err(Errno::EOVERFLOW);
    }
    let attributes = place.inode().attributes()?;
    task.write(args.raw(2), &[LENGTH, KIND])?;
    task.write(args.raw(2).wrapping_add(8), &[attributes.device, attributes.inode])?;
    Ok(0)
}
