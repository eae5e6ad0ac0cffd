//! Namespaces as files: what `/proc/<pid>/ns` leads to, `setns(2)`.

use std::any::Any;
use std::fmt::Write;
use std::sync::Arc;

use cloudpilot_abi::types::Timespec;
use cloudpilot_abi::{Errno, raw};
use parking_lot::Mutex;

use super::pid::PidNamespace;
use super::user::UserNamespace;
use super::{CgroupSpace, IpcSpace, MountSpace, Namespaces, NetSpace, Uts};
use crate::task::{FsContext, Task};
use crate::vfs::file::{File, FileOps};
use crate::vfs::inode::{Attributes, FileType, FilesystemFigures, Inode, InodeCommon};

/// `NSFS_MAGIC`.
const MAGIC: i64 = 0x6e73_6673;
/// `st_dev` of all of them.
const DEVICE: u64 = 4;

/// One namespace of any kind, held.
#[derive(Clone)]
pub enum Held {
    /// `CLONE_NEWUSER`.
    User(Arc<UserNamespace>),
    /// `CLONE_NEWUTS`.
    Uts(Arc<Uts>),
    /// `CLONE_NEWNS`.
    Mount(Arc<MountSpace>),
    /// `CLONE_NEWIPC`.
    Ipc(Arc<IpcSpace>),
    /// `CLONE_NEWNET`.
    Net(Arc<NetSpace>),
    /// `CLONE_NEWCGROUP`.
    Cgroup(Arc<CgroupSpace>),
    /// `CLONE_NEWPID`.
    Pid(Arc<PidNamespace>),
    /// Of a kind of which there is only one: name and number.
    Only(&'static str, u32, u64),
}

impl Held {
    /// The one of a task that a link in `/proc/<pid>/ns` is named after.
    pub fn of(task: &Task, name: &[u8]) -> Option<Self> {
        let own = task.namespaces();
        Some(match name {
            b"user" => Self::User(Arc::clone(&task.credentials().user)),
            b"uts" => Self::Uts(Arc::clone(&own.uts)),
            b"mnt" => Self::Mount(Arc::clone(&own.mount)),
            b"ipc" => Self::Ipc(Arc::clone(&own.ipc)),
            b"net" => Self::Net(Arc::clone(&own.net)),
            b"cgroup" => Self::Cgroup(Arc::clone(&own.cgroup)),
            b"pid" => Self::Pid(Arc::clone(&task.process.numbers)),
            // It is not there before its first process is.
            b"pid_for_children" => {
                Self::Pid(Some(&own.pid_for_children).filter(|space| space.is_first() || space.init().is_some())?.clone())
            }
            b"time" | b"time_for_children" => Self::Only("time", raw::CLONE_NEWTIME, 4_026_531_834),
            _ => return None,
        })
    }

    /// Kind, flag and number.
    fn identity(&self) -> (&'static str, u32, u64) {
        match self {
            Self::User(held) => ("user", raw::CLONE_NEWUSER, held.number),
            Self::Uts(held) => ("uts", raw::CLONE_NEWUTS, held.number),
            Self::Mount(held) => ("mnt", raw::CLONE_NEWNS, held.number),
            Self::Ipc(held) => ("ipc", raw::CLONE_NEWIPC, held.number),
            Self::Net(held) => ("net", raw::CLONE_NEWNET, held.number),
            Self::Cgroup(held) => ("cgroup", raw::CLONE_NEWCGROUP, held.number),
            Self::Pid(held) => ("pid", raw::CLONE_NEWPID, held.number),
            Self::Only(kind, flag, number) => (kind, *flag, *number),
        }
    }

    /// What the link reads.
    pub fn text(&self) -> Vec<u8> {
        let (kind, _, number) = self.identity();
        let mut text = String::new();
        let _ = write!(text, "{kind}:[{number}]");
        text.into_bytes()
    }

    /// The user namespace that owns it.
    fn owner(&self) -> Arc<UserNamespace> {
        Arc::clone(match self {
            Self::User(held) => held.parent.as_ref().unwrap_or_else(|| super::user::first()),
            Self::Uts(held) => &held.owner,
            Self::Mount(held) => &held.owner,
            Self::Ipc(held) => &held.owner,
            Self::Net(held) => &held.owner,
            Self::Cgroup(held) => &held.owner,
            Self::Pid(held) => &held.owner,
            Self::Only(..) => super::user::first(),
        })
    }

    /// Its inode; made anew each time, with the namespace's own number.
    pub fn inode(self) -> Arc<dyn Inode> {
        Arc::new(NamespaceInode { held: self, common: InodeCommon::default(), made: crate::time::realtime() })
    }

    /// Moves a task into it.
    fn enter(&self, task: &Arc<Task>) -> Result<(), Errno> {
        let credentials = task.credentials();
        if let Self::User(user) = self {
            return enter_user(task, user);
        }
        let allowed = credentials.has_in(&self.owner(), raw::CAP_SYS_ADMIN) && credentials.has_here(raw::CAP_SYS_ADMIN);
        if !allowed {
            return Err(Errno::EPERM);
        }
        let mut own = Namespaces::clone(&*task.namespaces());
        match self {
            Self::Uts(held) => own.uts = Arc::clone(held),
            Self::Ipc(held) => own.ipc = Arc::clone(held),
            Self::Net(held) => own.net = Arc::clone(held),
            Self::Cgroup(held) => own.cgroup = Arc::clone(held),
            // Its children go there; the way leads down only.
            Self::Pid(held) if !held.is_within(&task.process.numbers) => return Err(Errno::EINVAL),
            Self::Pid(held) => own.pid_for_children = Arc::clone(held),
            Self::Mount(held) => {
                if !credentials.has_here(raw::CAP_SYS_CHROOT) {
                    return Err(Errno::EPERM);
                }
                let mut fs = task.fs.lock();
                // Shared with others, it would move them, too.
                if Arc::strong_count(&fs) > 1 {
                    return Err(Errno::EINVAL);
                }
                let root = task.kernel.mounts.descend(held.root.lock().root_path());
                let umask = fs.state.lock().umask;
                let state = crate::task::FsState { root: root.clone(), cwd: root, umask };
                *fs = Arc::new(FsContext { state: Mutex::new(state) });
                own.mount = Arc::clone(held);
            }
            Self::User(_) | Self::Only(..) => {}
        }
        *task.namespaces.lock() = own.into();
        Ok(())
    }
}

fn enter_user(task: &Arc<Task>, user: &Arc<UserNamespace>) -> Result<(), Errno> {
    let credentials = task.credentials();
    if credentials.user.number == user.number || task.process.family.lock().tasks.len() > 1 {
        return Err(Errno::EINVAL);
    }
    if Arc::strong_count(&task.fs.lock()) > 1 {
        return Err(Errno::EINVAL);
    }
    if !credentials.has_in(user, raw::CAP_SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    *task.credentials.lock() = Arc::new(credentials.entering(user));
    Ok(())
}

/// `setns(2)`: by a file of `/proc/<pid>/ns`, or into those of a process by its pidfd.
pub fn set(task: &Arc<Task>, file: &File, kinds: u32) -> Result<(), Errno> {
    if let Some(inode) = file.inode.as_any().downcast_ref::<NamespaceInode>() {
        if kinds != 0 && kinds != inode.held.identity().1 {
            return Err(Errno::EINVAL);
        }
        return inode.held.enter(task);
    }
    let process = crate::fs::pidfd::process_of(file).map_err(|_| Errno::EINVAL)?;
    if kinds == 0 || kinds & !super::ALL != 0 {
        return Err(Errno::EINVAL);
    }
    let target = process.family.lock().tasks.first().cloned().ok_or(Errno::ESRCH)?;
    if !crate::fs::proc::may_trace(task, &target) {
        return Err(Errno::EPERM);
    }
    for name in ["user", "uts", "ipc", "net", "cgroup", "mnt", "pid"] {
        let held = Held::of(&target, name.as_bytes()).ok_or(Errno::EINVAL)?;
        let (_, flag, number) = held.identity();
        let already = Held::of(task, name.as_bytes()).is_some_and(|own| own.identity().2 == number);
        if kinds & flag != 0 && !(already && flag != raw::CLONE_NEWUSER) {
            held.enter(task)?;
        }
    }
    Ok(())
}

/// A namespace's file.
pub struct NamespaceInode {
    held: Held,
    common: InodeCommon,
    made: Timespec,
}

impl Inode for NamespaceInode {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn common(&self) -> &InodeCommon {
        &self.common
    }

    fn attributes(&self) -> Result<Attributes, Errno> {
        Ok(Attributes {
            device: DEVICE,
            inode: self.held.identity().2,
            file_type: FileType::Regular,
            permissions: 0o444,
            links: 1,
            uid: 0,
            gid: 0,
            device_type: 0,
            size: 0,
            block_size: 4096,
            blocks: 0,
            accessed: self.made,
            modified: self.made,
            changed: self.made,
            created: None,
        })
    }

    fn file_type(&self) -> FileType {
        FileType::Regular
    }

    fn link_text(&self) -> Option<Vec<u8>> {
        Some(self.held.text())
    }

    fn open(self: Arc<Self>, flags: u32, _task: &Arc<Task>) -> Result<Arc<dyn FileOps>, Errno> {
        if flags & raw::O_ACCMODE != raw::O_RDONLY {
            return Err(Errno::EPERM);
        }
        Ok(Arc::new(NamespaceFile(self.held.clone())))
    }

    fn statfs(&self) -> Result<FilesystemFigures, Errno> {
        Ok(FilesystemFigures { magic: MAGIC, block_size: 4096, name_length: 255, ..FilesystemFigures::default() })
    }
}

struct NamespaceFile(Held);

/// `ioctl_ns(2)`.
const NS_GET_USERNS: u32 = 0xb701;
const NS_GET_PARENT: u32 = 0xb702;
const NS_GET_NSTYPE: u32 = 0xb703;
const NS_GET_OWNER_UID: u32 = 0xb704;
const NS_GET_PID_FROM_PIDNS: u32 = 0x8004_b706;
const NS_GET_TGID_FROM_PIDNS: u32 = 0x8004_b707;
const NS_GET_PID_IN_PIDNS: u32 = 0x8004_b708;
const NS_GET_TGID_IN_PIDNS: u32 = 0x8004_b709;

/// What a task is called in the caller's namespace, by its number in `space`, or the other way round (`leaves`); or what its process is called.
fn translate(task: &Task, space: &PidNamespace, number: i32, leaves: bool, of_process: bool) -> Result<usize, Errno> {
    let found = task.kernel.tasks.find(if leaves { space.number(number) } else { task.number(number) }).ok_or(Errno::ESRCH)?;
    let number = if of_process { found.process.pid } else { found.tid() };
    let target = if leaves { &*task.process.numbers } else { space };
    let shown = if found.process.numbers.is_within(target) { target.show(number) } else { 0 };
    if shown == 0 { Err(Errno::ESRCH) } else { Ok(shown as usize) }
}

impl FileOps for NamespaceFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn ioctl(&self, _file: &File, task: &Arc<Task>, request: u32, argument: u64) -> Result<usize, Errno> {
        let open = |held: Held| {
            // What lies above the caller's own is not for it to see.
            let is_visible = match &held {
                Held::User(user) => user.is_within(&task.credentials().user),
                Held::Pid(space) => space.is_within(&task.process.numbers),
                _ => true,
            };
            if !is_visible {
                return Err(Errno::EPERM);
            }
            let file = File::new(Arc::new(Self(held.clone())), held.inode(), None, raw::O_RDONLY);
            task.install(file, true).map(|fd| fd as usize)
        };
        match request {
            NS_GET_USERNS => open(Held::User(self.0.owner())),
            NS_GET_PARENT => match &self.0 {
                Held::User(user) => open(Held::User(Arc::clone(user.parent.as_ref().ok_or(Errno::EPERM)?))),
                Held::Pid(space) => open(Held::Pid(Arc::clone(space.parent.as_ref().ok_or(Errno::EPERM)?))),
                _ => Err(Errno::EINVAL),
            },
            NS_GET_NSTYPE => Ok(self.0.identity().1 as usize),
            NS_GET_OWNER_UID => match &self.0 {
                Held::User(user) => task.write(argument, &task.credentials().user.show_user(user.owner)).map(|()| 0),
                _ => Err(Errno::EINVAL),
            },
            NS_GET_PID_FROM_PIDNS | NS_GET_TGID_FROM_PIDNS | NS_GET_PID_IN_PIDNS | NS_GET_TGID_IN_PIDNS => {
                let Held::Pid(space) = &self.0 else { return Err(Errno::EINVAL) };
                let leaves = matches!(request, NS_GET_PID_FROM_PIDNS | NS_GET_TGID_FROM_PIDNS);
                let of_process = matches!(request, NS_GET_TGID_FROM_PIDNS | NS_GET_TGID_IN_PIDNS);
                translate(task, space, argument as i32, leaves, of_process)
            }
            _ => Err(Errno::ENOTTY),
        }
    }
}
