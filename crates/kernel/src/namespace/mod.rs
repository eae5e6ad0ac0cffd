//! Namespaces, `namespaces(7)`: what a task takes for the machine's names, mounts, IPC objects and network. Users are in [`user`], processes in
//! [`pid`].
//!
//! A task's set is replaced as a whole, never changed in place.

pub mod file;
pub mod pid;
pub mod user;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use cloudpilot_abi::{Errno, raw};
use parking_lot::Mutex;

use crate::config::Network;
use crate::ipc::Ipc;
use crate::net::{Net, unix};
use crate::task::{Credentials, FsContext, FsState, Task};
use crate::vfs::{Mount, Mounts, Path};
use pid::PidNamespace;
use user::UserNamespace;

/// Number of the first user namespace; like those of the other first ones it is the one that Linux gives.
pub const FIRST_USER: u64 = 4_026_531_837;
const FIRST_UTS: u64 = 4_026_531_838;
const FIRST_IPC: u64 = 4_026_531_839;
const FIRST_NET: u64 = 4_026_531_840;
const FIRST_MOUNT: u64 = 4_026_531_841;
const FIRST_CGROUP: u64 = 4_026_531_835;

static NEXT_NUMBER: AtomicU64 = AtomicU64::new(4_026_532_200);

/// A number for a new namespace.
fn new_number() -> u64 {
    NEXT_NUMBER.fetch_add(1, Ordering::Relaxed)
}

/// Host and domain name, `uts_namespaces(7)`.
pub struct Uts {
    /// Its number.
    pub number: u64,
    /// Over whom its capabilities hold.
    pub owner: Arc<UserNamespace>,
    /// `uname -n`.
    pub hostname: Mutex<String>,
    /// `domainname`.
    pub domainname: Mutex<String>,
}

/// A tree of mounts.
pub struct MountSpace {
    /// Its number.
    pub number: u64,
    /// Over whom its capabilities hold.
    pub owner: Arc<UserNamespace>,
    /// The mount at the top; `pivot_root(2)` changes it.
    pub root: Mutex<Arc<Mount>>,
    mounts: Weak<Mounts>,
}

impl Drop for MountSpace {
    fn drop(&mut self) {
        if let Some(mounts) = self.mounts.upgrade() {
            mounts.drop_space(self.number);
        }
    }
}

/// System V IPC and message queues.
pub struct IpcSpace {
    /// Its number.
    pub number: u64,
    /// Over whom its capabilities hold.
    pub owner: Arc<UserNamespace>,
    /// What is in it.
    pub ipc: Arc<Ipc>,
}

/// Interfaces, ports and abstract names.
pub struct NetSpace {
    /// Its number.
    pub number: u64,
    /// Over whom its capabilities hold.
    pub owner: Arc<UserNamespace>,
    /// Its sockets.
    pub net: Arc<Net>,
    /// What they reach.
    pub network: Network,
}

/// A view of control groups; there is one group, so that all of them look alike.
pub struct CgroupSpace {
    /// Its number.
    pub number: u64,
    /// Over whom its capabilities hold.
    pub owner: Arc<UserNamespace>,
}

/// All of a task but for the users, which its credentials name.
#[derive(Clone)]
pub struct Namespaces {
    /// `CLONE_NEWUTS`.
    pub uts: Arc<Uts>,
    /// `CLONE_NEWNS`.
    pub mount: Arc<MountSpace>,
    /// `CLONE_NEWIPC`.
    pub ipc: Arc<IpcSpace>,
    /// `CLONE_NEWNET`.
    pub net: Arc<NetSpace>,
    /// `CLONE_NEWCGROUP`.
    pub cgroup: Arc<CgroupSpace>,
    /// `CLONE_NEWPID`: where its children will be; where it is itself says its process.
    pub pid_for_children: Arc<PidNamespace>,
}

/// What answers for a set of namespaces.
trait Owner: Send + Sync {
    fn own(&self) -> &Namespaces;
}

impl Owner for Namespaces {
    fn own(&self) -> &Namespaces {
        self
    }
}

/// A set as tasks hold it. Behind a trait object: sockets and IPC objects know tasks, and the compiler's search for what is `Send` grows
/// exponentially with such circles.
#[derive(Clone)]
pub struct Set(Arc<dyn Owner>);

impl std::ops::Deref for Set {
    type Target = Namespaces;

    fn deref(&self) -> &Namespaces {
        self.0.own()
    }
}

impl From<Namespaces> for Set {
    fn from(own: Namespaces) -> Self {
        Self(Arc::new(own))
    }
}

/// Flags of all kinds.
pub const ALL: u32 = raw::CLONE_NEWNS
    | raw::CLONE_NEWCGROUP
    | raw::CLONE_NEWUTS
    | raw::CLONE_NEWIPC
    | raw::CLONE_NEWUSER
    | raw::CLONE_NEWPID
    | raw::CLONE_NEWNET
    | raw::CLONE_NEWTIME;

impl Namespaces {
    /// Those that the machine boots with, their mounts under `root`.
    pub fn first(mounts: &Arc<Mounts>, root: &Arc<Mount>, hostname: String, shared: (&Arc<Ipc>, &Arc<Net>), network: Network) -> Set {
        let owner = || Arc::clone(user::first());
        let (ipc, net) = (Arc::clone(shared.0), Arc::clone(shared.1));
        mounts.set_root(root, FIRST_MOUNT);
        let (hostname, domainname) = (Mutex::new(hostname), Mutex::new("(none)".to_owned()));
        let root = Mutex::new(Arc::clone(root));
        Set::from(Self {
            uts: Arc::new(Uts { number: FIRST_UTS, owner: owner(), hostname, domainname }),
            mount: Arc::new(MountSpace { number: FIRST_MOUNT, owner: owner(), root, mounts: Arc::downgrade(mounts) }),
            ipc: Arc::new(IpcSpace { number: FIRST_IPC, owner: owner(), ipc }),
            net: Arc::new(NetSpace { number: FIRST_NET, owner: owner(), net, network }),
            cgroup: Arc::new(CgroupSpace { number: FIRST_CGROUP, owner: owner() }),
            pid_for_children: Arc::clone(pid::first()),
        })
    }

    /// A set with new ones of the kinds in `flags`, owned by `owner`; with new mounts, root and working directory move into them.
    fn with_new(&self, flags: u32, owner: &Arc<UserNamespace>, mounts: &Arc<Mounts>, places: &mut FsState) -> Self {
        let owner = || Arc::clone(owner);
        let mut new = self.clone();
        if flags & raw::CLONE_NEWUTS != 0 {
            let (hostname, domainname) = (self.uts.hostname.lock().clone(), self.uts.domainname.lock().clone());
            let (hostname, domainname) = (Mutex::new(hostname), Mutex::new(domainname));
            new.uts = Arc::new(Uts { number: new_number(), owner: owner(), hostname, domainname });
        }
        if flags & raw::CLONE_NEWIPC != 0 {
            new.ipc = Arc::new(IpcSpace { number: new_number(), owner: owner(), ipc: Arc::default() });
        }
        if flags & raw::CLONE_NEWNET != 0 {
            // Names in the tree lead across, and files may travel on to sockets of other namespaces: of both there is one account.
            let (unix, in_flight) = (unix::Names::beside(&self.net.net.unix), Arc::clone(&self.net.net.in_flight));
            let net = Net { unix, in_flight, ..Net::default() };
            new.net = Arc::new(NetSpace { number: new_number(), owner: owner(), net: Arc::new(net), network: Network::None });
        }
        if flags & raw::CLONE_NEWCGROUP != 0 {
            new.cgroup = Arc::new(CgroupSpace { number: new_number(), owner: owner() });
        }
        if flags & raw::CLONE_NEWNS != 0 {
            let number = new_number();
            let restrict = owner().number != self.mount.owner.number;
            let old = Arc::clone(&self.mount.root.lock());
            let (root, pairs) = mounts.copy_space(&old, number, restrict);
            for place in [&mut places.root, &mut places.cwd] {
                move_place(place, &pairs);
            }
            new.mount = Arc::new(MountSpace { number, owner: owner(), root: Mutex::new(root), mounts: Arc::downgrade(mounts) });
        }
        new
    }
}

fn move_place(place: &mut Path, pairs: &[(Arc<Mount>, Arc<Mount>)]) {
    if let Some((_, twin)) = pairs.iter().find(|(old, _)| Arc::ptr_eq(old, &place.mount)) {
        place.mount = Arc::clone(twin);
    }
}

/// What a task becomes by `clone(2)` or `unshare(2)` with flags of namespaces.
pub struct Fresh {
    /// Credentials, in a new user namespace if asked for.
    pub credentials: Arc<Credentials>,
    /// The other namespaces.
    pub namespaces: Set,
    /// Root, working directory, umask.
    pub places: FsState,
}

/// Makes the namespaces that `flags` ask for, for a task like `task`. `EPERM` without the capability, but for user namespaces.
pub fn make(task: &Task, flags: u32) -> Result<Fresh, Errno> {
    if flags & raw::CLONE_NEWTIME != 0 {
        // As a kernel that was built without them.
        return Err(Errno::EINVAL);
    }
    let mut credentials = task.credentials();
    if flags & raw::CLONE_NEWUSER != 0 {
        let is_chrooted = {
            let root = task.fs().root;
            let top = Arc::clone(&task.namespaces().mount.root.lock());
            !Arc::ptr_eq(&root.name, &root.mount.root) || root.mount.attached().is_some_and(|_| !Arc::ptr_eq(&root.mount, &top))
        };
        if is_chrooted {
            return Err(Errno::EPERM);
        }
        let user = UserNamespace::new(&credentials)?;
        credentials = Arc::new(credentials.entering(&user));
    }
    let own = task.namespaces();
    if flags & ALL & !raw::CLONE_NEWUSER != 0 && !credentials.has_here(raw::CAP_SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let pid_for_children =
        (flags & raw::CLONE_NEWPID != 0).then(|| PidNamespace::new(&task.process, &own.pid_for_children, &credentials.user)).transpose()?;
    let mut places = task.fs();
    let mut new = own.with_new(flags, &credentials.user, &task.kernel.mounts, &mut places);
    if let Some(space) = pid_for_children {
        new.pid_for_children = space;
    }
    let namespaces = Set::from(new);
    Ok(Fresh { credentials, namespaces, places })
}

/// `unshare(2)` of namespaces.
pub fn unshare(task: &Arc<Task>, flags: u32) -> Result<(), Errno> {
    if flags & raw::CLONE_NEWUSER != 0 && task.process.family.lock().tasks.len() > 1 {
        return Err(Errno::EINVAL);
    }
    let fresh = make(task, flags)?;
    *task.fs.lock() = Arc::new(FsContext { state: Mutex::new(fresh.places) });
    *task.credentials.lock() = fresh.credentials;
    *task.namespaces.lock() = fresh.namespaces;
    Ok(())
}
