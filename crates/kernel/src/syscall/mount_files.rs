//! Mounts by descriptors: `fsopen(2)`, `fsconfig(2)`, `fsmount(2)`, `open_tree(2)`, `move_mount(2)`, `mount_setattr(2)`; and lists of mounts,
//! `statmount(2)`, `listmount(2)`.

use std::any::Any;
use std::sync::{Arc, Weak};

use bytemuck::{Pod, Zeroable};
use cloudpilot_abi::{Errno, raw};
use parking_lot::Mutex;

use super::mount::{ACCESS_TIMES, PROPAGATION, check_capable, graft, is_own, move_mount};
use super::{Arg, Args, Call, SysResult, at};
use crate::fs::mountable;
use crate::io::Destination;
use crate::task::Task;
use crate::vfs::file::{File, FileOps};
use crate::vfs::inode::{FileType, Inode};
use crate::vfs::mount::NO_LINKS;
use crate::vfs::{Mount, Mounts, Name, anonymous, open as vfs_open};

use Arg::{Fd, Flags, Int, Path, Ptr, Size};

/// The family.
pub const CALLS: &[Call] = &[
    Call::partial(raw::__NR_fsopen, fsopen, &[Path, Flags], "the filesystems that mount(2) knows"),
    Call::partial(raw::__NR_fsconfig, fsconfig, &[Fd, Int, Path, Ptr, Int], "flags and strings"),
    Call::full(raw::__NR_fsmount, fsmount, &[Fd, Flags, Flags]),
    Call::partial(raw::__NR_fspick, fspick, &[Fd, Path, Flags], "what is mounted takes no new options"),
    Call::full(raw::__NR_open_tree, open_tree, &[Fd, Path, Flags]),
    Call::partial(raw::__NR_move_mount, move_mount_call, &[Fd, Path, Fd, Path, Flags], "not beneath other mounts, no sharing of groups"),
    Call::partial(raw::__NR_mount_setattr, mount_setattr, &[Fd, Path, Flags, Ptr, Size], "no mapping of owners"),
    Call::partial(raw::__NR_statmount, statmount, &[Ptr, Ptr, Size, Flags], "mounts of the own namespace; no options"),
    Call::partial(raw::__NR_listmount, listmount, &[Ptr, Ptr, Size, Flags], "mounts of the own namespace"),
];

/// Most options of one filesystem to be made.
const MOST_OPTIONS: usize = 64;
/// `AT_RECURSIVE`.
const AT_RECURSIVE: u32 = 0x8000;

/// A filesystem to be made, or that was made and is to be mounted.
struct Context {
    kind: Vec<u8>,
    state: Mutex<Making>,
}

#[derive(Default)]
struct Making {
    source: Option<Vec<u8>>,
    options: Vec<Vec<u8>>,
    read_only: bool,
    root: Option<Arc<dyn Inode>>,
    mounted: bool,
}

impl FileOps for Context {
    fn as_any(&self) -> &dyn Any {
        self
    }

    /// Its log, which is always empty.
    fn read(&self, _file: &File, _destination: &mut Destination<'_>, _offset: u64) -> Result<usize, Errno> {
        Err(Errno::ENODATA)
    }
}

fn install(task: &Task, file: Arc<File>, close_on_exec: bool) -> SysResult {
    task.install(file, close_on_exec).map(|fd| fd as usize)
}

fn context(task: &Task, kind: Vec<u8>, state: Making, close_on_exec: bool) -> SysResult {
    let ops = Context { kind, state: Mutex::new(state) };
    install(task, anonymous::open("anon_inode:[fscontext]", FileType::Regular, Arc::new(ops), raw::O_RDWR), close_on_exec)
}

fn fsopen(task: &Arc<Task>, args: &Args) -> SysResult {
    check_capable(task)?;
    at::check_flags(args.uint(1), 1)?;
    let kind = task.read_path(args.raw(0))?;
    if !mountable::exists(&kind) {
        return Err(Errno::ENODEV);
    }
    context(task, kind, Making::default(), args.uint(1) & 1 != 0)
}

fn fspick(task: &Arc<Task>, args: &Args) -> SysResult {
    const SYMLINK_NOFOLLOW: u32 = 2;
    const EMPTY_PATH: u32 = 8;
    check_capable(task)?;
    let flags = args.uint(2);
    at::check_flags(flags, 0xf)?;
    let empty = if flags & EMPTY_PATH != 0 { raw::AT_EMPTY_PATH } else { 0 };
    let place = at::lookup(task, args.int(0), args.raw(1), empty, flags & SYMLINK_NOFOLLOW == 0)?;
    if !Arc::ptr_eq(&place.name, &place.mount.root) {
        return Err(Errno::EINVAL);
    }
    let state = Making { root: Some(Arc::clone(place.inode())), mounted: true, ..Making::default() };
    context(task, place.mount.kind.clone().into_bytes(), state, flags & 1 != 0)
}

fn fsconfig(task: &Arc<Task>, args: &Args) -> SysResult {
    const SET_FLAG: u32 = 0;
    const SET_STRING: u32 = 1;
    const SET_FD: u32 = 5;
    const CREATE: u32 = 6;
    const RECONFIGURE: u32 = 7;
    const CREATE_EXCLUSIVELY: u32 = 8;
    let command = args.uint(1);
    let (has_key, has_value, auxiliary) = (args.raw(2) != 0, args.raw(3) != 0, args.int(4));
    let well_formed = match command {
        SET_FLAG => has_key && !has_value && auxiliary == 0,
        SET_STRING => has_key && has_value && auxiliary == 0,
        2..=SET_FD => has_key,
        CREATE | RECONFIGURE | CREATE_EXCLUSIVELY => !has_key && !has_value && auxiliary == 0,
        _ => return Err(Errno::EOPNOTSUPP),
    };
    if !well_formed || args.int(0) < 0 {
        return Err(Errno::EINVAL);
    }
    let file = task.file(args.int(0))?;
    let context = file.ops_as::<Context>().ok_or(Errno::EINVAL)?;
    let mut state = context.state.lock();
    match command {
        SET_FLAG | SET_STRING => {
            let key = task.read_string(args.raw(2), 256, Errno::EINVAL)?;
            let value = if command == SET_STRING { Some(task.read_string(args.raw(3), 256, Errno::EINVAL)?) } else { None };
            if state.root.is_some() && !state.mounted {
                return Err(Errno::EBUSY);
            }
            state.set(key, value).map(|()| 0)
        }
        CREATE | CREATE_EXCLUSIVELY => {
            if state.root.is_some() {
                return Err(Errno::EBUSY);
            }
            check_capable(task)?;
            let options = state.options.join(&b',');
            state.root = Some(mountable::make(task, &context.kind, &options)?);
            Ok(0)
        }
        RECONFIGURE => {
            if !state.mounted {
                return Err(Errno::EBUSY);
            }
            check_capable(task).map(|()| 0)
        }
        _ => Err(Errno::EINVAL),
    }
}

impl Making {
    fn set(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) -> Result<(), Errno> {
        match (key.as_slice(), value) {
            (b"source", Some(source)) if self.source.is_none() => self.source = Some(source),
            (b"source", _) => return Err(Errno::EINVAL),
            (b"ro", None) => self.read_only = true,
            (b"rw", None) => self.read_only = false,
            (b"sync" | b"async" | b"dirsync" | b"lazytime" | b"nolazytime" | b"silent", None) => {}
            (_, value) => {
                if self.options.len() >= MOST_OPTIONS {
                    return Err(Errno::ENOMEM);
                }
                let option = value.map_or(key.clone(), |value| [&key, &b"="[..], &value].concat());
                self.options.push(option);
            }
        }
        Ok(())
    }
}

/// `MOUNT_ATTR_*` as `MS_*`; none for unknown ones.
fn flags_of(attributes: u64) -> Option<u32> {
    let known = [
        (raw::MOUNT_ATTR_RDONLY, raw::MS_RDONLY),
        (raw::MOUNT_ATTR_NOSUID, raw::MS_NOSUID),
        (raw::MOUNT_ATTR_NODEV, raw::MS_NODEV),
        (raw::MOUNT_ATTR_NOEXEC, raw::MS_NOEXEC),
        (raw::MOUNT_ATTR_NOATIME, raw::MS_NOATIME),
        (raw::MOUNT_ATTR_STRICTATIME, raw::MS_STRICTATIME),
        (raw::MOUNT_ATTR_NODIRATIME, raw::MS_NODIRATIME),
        (raw::MOUNT_ATTR_NOSYMFOLLOW, NO_LINKS),
    ];
    let mut rest = attributes;
    let mut flags = 0;
    for (attribute, flag) in known {
        if rest & u64::from(attribute) != 0 {
            rest &= !u64::from(attribute);
            flags |= flag;
        }
    }
    let both_times = flags & (raw::MS_NOATIME | raw::MS_STRICTATIME) == raw::MS_NOATIME | raw::MS_STRICTATIME;
    if rest != 0 || both_times { None } else { Some(flags) }
}

fn fsmount(task: &Arc<Task>, args: &Args) -> SysResult {
    check_capable(task)?;
    at::check_flags(args.uint(1), 1)?;
    let flags = flags_of(u64::from(args.uint(2))).ok_or(Errno::EINVAL)?;
    let file = task.file(args.int(0))?;
    let context = file.ops_as::<Context>().ok_or(Errno::EINVAL)?;
    let mut state = context.state.lock();
    let root = state.root.clone().ok_or(Errno::EINVAL)?;
    if std::mem::replace(&mut state.mounted, true) {
        return Err(Errno::EBUSY);
    }
    let flags = flags | if state.read_only { raw::MS_RDONLY } else { 0 };
    let source = state.source.clone().unwrap_or_else(|| b"none".to_vec());
    let (kind, source) = (String::from_utf8_lossy(&context.kind), String::from_utf8_lossy(&source));
    let mount = Mount::made_in(Name::root(root), &kind, &source, flags, &task.credentials().user);
    install(task, detached(task, &mount), args.uint(1) & 1 != 0)
}

/// Holds a tree that is attached nowhere, and lets go of it if it still is.
struct Detached {
    mounts: Weak<Mounts>,
    top: Arc<Mount>,
}

impl FileOps for Detached {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        if let Some(mounts) = self.mounts.upgrade() {
            mounts.drop_detached(&self.top);
        }
    }
}

fn detached(task: &Task, top: &Arc<Mount>) -> Arc<File> {
    let ops = Detached { mounts: Arc::downgrade(&task.kernel.mounts), top: Arc::clone(top) };
    let place = top.root_path();
    File::new(Arc::new(ops), Arc::clone(place.inode()), Some(place), raw::O_PATH)
}

fn open_tree(task: &Arc<Task>, args: &Args) -> SysResult {
    let flags = args.uint(2);
    let known = raw::OPEN_TREE_CLONE | raw::OPEN_TREE_CLOEXEC | AT_RECURSIVE;
    at::check_flags(flags, known | raw::AT_EMPTY_PATH | raw::AT_SYMLINK_NOFOLLOW | raw::AT_NO_AUTOMOUNT)?;
    let clones = flags & raw::OPEN_TREE_CLONE != 0;
    if flags & AT_RECURSIVE != 0 && !clones {
        return Err(Errno::EINVAL);
    }
    if clones {
        check_capable(task)?;
    }
    let place = at::lookup_flags(task, args.int(0), args.raw(1), flags)?;
    let file = if clones {
        if !is_own(task, &place.mount) && place.mount.space() != 0 {
            return Err(Errno::EINVAL);
        }
        let tree = task.kernel.mounts.copy(&place, flags & AT_RECURSIVE != 0)?;
        detached(task, &tree[0])
    } else {
        vfs_open::path_only(place)
    };
    install(task, file, flags & raw::OPEN_TREE_CLOEXEC != 0)
}

fn move_mount_call(task: &Arc<Task>, args: &Args) -> SysResult {
    check_capable(task)?;
    let flags = args.uint(4);
    let (from_flags, to_flags) = (flags & 7, flags >> 4 & 7);
    if flags & !raw::MOVE_MOUNT__MASK != 0 || flags & (raw::MOVE_MOUNT_SET_GROUP | raw::MOVE_MOUNT_BENEATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let find = |fd, address, flags: u32| {
        let empty = if flags & raw::MOVE_MOUNT_F_EMPTY_PATH != 0 { raw::AT_EMPTY_PATH } else { 0 };
        at::lookup(task, fd, address, empty, flags & raw::MOVE_MOUNT_F_SYMLINKS != 0)
    };
    let from = find(args.int(0), args.raw(1), from_flags)?;
    let to = find(args.int(2), args.raw(3), to_flags)?;
    if !Arc::ptr_eq(&from.name, &from.mount.root) {
        return Err(Errno::EINVAL);
    }
    if from.mount.space() == 0 && from.mount.attached().is_none() {
        graft(task, task.kernel.mounts.tree_of(&from.mount), to)?;
    } else {
        move_mount(task, &from, to)?;
    }
    Ok(0)
}

/// `struct mount_attr`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// A structure that may be longer than ours if the rest is zero.
fn read_growing<T: Pod>(task: &Task, address: u64, size: usize) -> Result<T, Errno> {
    if size < size_of::<T>() {
        return Err(Errno::EINVAL);
    }
    if size > cloudpilot_abi::PAGE_SIZE as usize {
        return Err(Errno::E2BIG);
    }
    let bytes: Vec<u8> = task.read_slice(address, size)?;
    if bytes[size_of::<T>()..].iter().any(|byte| *byte != 0) {
        return Err(Errno::E2BIG);
    }
    Ok(bytemuck::pod_read_unaligned(&bytes[..size_of::<T>()]))
}

fn mount_setattr(task: &Arc<Task>, args: &Args) -> SysResult {
    let flags = args.uint(2);
    at::check_flags(flags, raw::AT_EMPTY_PATH | AT_RECURSIVE | raw::AT_SYMLINK_NOFOLLOW | raw::AT_NO_AUTOMOUNT)?;
    let given: MountAttributes = read_growing(task, args.raw(3), args.size(4))?;
    check_capable(task)?;
    let times = u64::from(raw::MOUNT_ATTR__ATIME);
    let propagation = u32::try_from(given.propagation).map_err(|_| Errno::EINVAL)?;
    if propagation & !PROPAGATION != 0 || propagation.count_ones() > 1 {
        return Err(Errno::EINVAL);
    }
    // Times of reading are one choice: all of it is cleared before another is made.
    if given.clear & times != 0 && given.clear & times != times || given.set & times != 0 && given.clear & times == 0 {
        return Err(Errno::EINVAL);
    }
    let set = flags_of(given.set).ok_or(Errno::EINVAL)?;
    let mut clear = flags_of(given.clear & !times).ok_or(Errno::EINVAL)?;
    if given.clear & times != 0 {
        clear |= ACCESS_TIMES & !raw::MS_NODIRATIME;
    }
    if given.set == 0 && given.clear == 0 && propagation == 0 {
        return Ok(0);
    }
    let place = at::lookup_flags(task, args.int(0), args.raw(1), flags)?;
    let detached = place.mount.space() == 0;
    if !Arc::ptr_eq(&place.name, &place.mount.root) || !detached && !is_own(task, &place.mount) {
        return Err(Errno::EINVAL);
    }
    let tree = if flags & AT_RECURSIVE != 0 { task.kernel.mounts.tree_of(&place.mount) } else { vec![Arc::clone(&place.mount)] };
    for mount in &tree {
        mount.set_flags(mount.flags() & !clear | set)?;
        if propagation != 0 {
            mount.propagate(propagation);
        }
    }
    Ok(0)
}

/// `struct mnt_id_req`.
#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct MountRequest {
    size: u32,
    spare: u32,
    id: u64,
    parameter: u64,
}

/// `LSMT_ROOT`: the mount that the caller's root stands in.
const CALLERS_ROOT: u64 = u64::MAX;

fn request(task: &Task, address: u64) -> Result<MountRequest, Errno> {
    let size: u32 = task.read(address)?;
    let request: MountRequest = read_growing(task, address, size as usize)?;
    if request.spare != 0 { Err(Errno::EINVAL) } else { Ok(request) }
}

/// The caller's mounts that its root reaches.
fn visible(task: &Task) -> Vec<Arc<Mount>> {
    let root = task.fs().root;
    let reached = |mount: &Arc<Mount>| mount.root_path().display(&root).first() == Some(&b'/');
    task.kernel.mounts.all().into_iter().filter(|mount| is_own(task, mount) && reached(mount)).collect()
}

fn listmount(task: &Arc<Task>, args: &Args) -> SysResult {
    const REVERSE: u32 = 1;
    /// As Linux bounds it.
    const MOST: usize = 1_000_000;
    at::check_flags(args.uint(3), REVERSE)?;
    let request = request(task, args.raw(0))?;
    if args.size(2) > MOST {
        return Err(Errno::EOVERFLOW);
    }
    let mounts = visible(task);
    let top = if request.id == CALLERS_ROOT { task.fs().root.mount.id } else { request.id };
    let top = mounts.iter().find(|mount| mount.id == top).ok_or(Errno::ENOENT)?;
    let below = task.kernel.mounts.tree_of(top);
    let mut numbers: Vec<u64> = below.iter().skip(1).map(|mount| mount.id).collect();
    numbers.sort_unstable();
    if args.uint(3) & REVERSE != 0 {
        numbers.reverse();
        numbers.retain(|number| request.parameter == 0 || *number < request.parameter);
    } else {
        numbers.retain(|number| *number > request.parameter);
    }
    numbers.truncate(args.size(2));
    task.write_slice(args.raw(1), &numbers)?;
    Ok(numbers.len())
}

/// `struct statmount` before its strings.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct StatMount {
    size: u32,
    options: u32,
    mask: u64,
    device: [u32; 2],
    magic: u64,
    superblock_flags: u32,
    kind: u32,
    id: u64,
    parent: u64,
    old_id: u32,
    old_parent: u32,
    attributes: u64,
    propagation: u64,
    peer_group: u64,
    master: u64,
    propagates_from: u64,
    root: u32,
    point: u32,
    namespace: u64,
    subtype: u32,
    source: u32,
    rest: [u64; 48],
}

const _: () = assert!(size_of::<StatMount>() == 512);

fn statmount(task: &Arc<Task>, args: &Args) -> SysResult {
    at::check_flags(args.uint(3), 0)?;
    let request = request(task, args.raw(0))?;
    let mounts = visible(task);
    let mount = mounts.iter().find(|mount| mount.id == request.id).ok_or(Errno::ENOENT)?;
    let mut found = StatMount::zeroed();
    let mut strings: Vec<u8> = Vec::new();
    let mut add = |bytes: &[u8]| {
        let at = strings.len() as u32;
        strings.extend_from_slice(bytes);
        strings.push(0);
        at
    };
    let wants = |bit: u32| request.parameter & u64::from(bit) != 0;
    if wants(raw::STATMOUNT_SB_BASIC) {
        let attributes = mount.root.inode.attributes()?;
        found.device = [rustix::fs::major(attributes.device), rustix::fs::minor(attributes.device)];
        found.magic = mount.root.inode.statfs()?.magic as u64;
    }
    if wants(raw::STATMOUNT_MNT_BASIC) {
        let parent = mount.attached().map_or(mount.id, |place| place.mount.id);
        (found.id, found.parent, found.old_id, found.old_parent) = (mount.id, parent, mount.id as u32, parent as u32);
        found.attributes = u64::from(mount.flags() & 0xf);
        let own = mount.propagation();
        (found.peer_group, found.master) = (own.group, own.master);
        let kind = match own {
            _ if own.unbindable => raw::MS_UNBINDABLE,
            _ if own.group != 0 => raw::MS_SHARED | if own.master != 0 { raw::MS_SLAVE } else { 0 },
            _ if own.master != 0 => raw::MS_SLAVE,
            _ => raw::MS_PRIVATE,
        };
        found.propagation = u64::from(kind);
    }
    if wants(raw::STATMOUNT_FS_TYPE) {
        found.kind = add(mount.kind.as_bytes());
    }
    if wants(raw::STATMOUNT_MNT_ROOT) {
        found.root = add(&crate::fs::proc::root_within(mount));
    }
    if wants(raw::STATMOUNT_MNT_POINT) {
        found.point = add(&mount.root_path().display(&task.fs().root));
    }
    if wants(raw::STATMOUNT_MNT_NS_ID) {
        found.namespace = task.namespaces().mount.number;
    }
    if wants(raw::STATMOUNT_SB_SOURCE) {
        found.source = add(mount.source.as_bytes());
    }
    const SERVED: u32 = raw::STATMOUNT_SB_BASIC
        | raw::STATMOUNT_MNT_BASIC
        | raw::STATMOUNT_FS_TYPE
        | raw::STATMOUNT_MNT_ROOT
        | raw::STATMOUNT_MNT_POINT
        | raw::STATMOUNT_MNT_NS_ID
        | raw::STATMOUNT_SB_SOURCE;
    found.mask = request.parameter & u64::from(SERVED);
    let length = size_of::<StatMount>() + strings.len();
    if args.size(2) < length {
        return Err(Errno::EOVERFLOW);
    }
    found.size = length as u32;
    task.write(args.raw(1), &found)?;
    task.write_bytes(args.raw(1) + size_of::<StatMount>() as u64, &strings)?;
    Ok(0)
}
