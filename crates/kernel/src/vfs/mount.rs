//! Mounts: filesystems attached to the tree, in namespaces of which each has a tree of its own.
//!
//! Lock order: `Mounts::table`, then a mount's `place`, `propagation`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};

use cloudpilot_abi::{Errno, raw};
use parking_lot::{Mutex, RwLock};

use super::name::{Name, Path};
use crate::namespace::user::{self, UserNamespace};
use crate::task::Credentials;

/// A filesystem's tree attached somewhere.
pub struct Mount {
    /// Number, as `/proc/self/mountinfo` prints it.
    pub id: u64,
    /// Its root.
    pub root: Arc<Name>,
    /// Filesystem type: `overlay`, `tmpfs`, `proc`, ….
    pub kind: String,
    /// What was mounted, as `/proc/mounts` prints it.
    pub source: String,
    /// `MS_RDONLY`, `MS_NOSUID`, `MS_NODEV`, `MS_NOEXEC`, ….
    flags: AtomicU32,
    place: RwLock<Option<Path>>,
    /// Number of the namespace it is attached in; 0 for detached ones.
    space: AtomicU64,
    propagation: Mutex<Propagation>,
    /// Came with a tree from a more privileged namespace: cannot be taken off it alone.
    locked: AtomicBool,
    /// Flags that came with it from a more privileged namespace: they cannot be taken away, and when times are noted cannot be changed.
    locked_flags: AtomicU32,
    /// Marked by `MNT_EXPIRE`.
    expired: AtomicBool,
    /// Regular files that are open for writing through it.
    writers: AtomicI64,
    filesystem: Arc<Filesystem>,
}

/// What all mounts of one filesystem share (a superblock).
struct Filesystem {
    /// The user namespace that it was mounted in first: over whom its own settings hold.
    owner: Arc<UserNamespace>,
    /// Mounted or remounted read-only as a whole: no mount of it can be written to.
    read_only: AtomicBool,
    /// Regular files that are open for writing through any of its mounts.
    writers: AtomicI64,
}

/// What follows a change at a mount point, `mount_namespaces(7)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Propagation {
    /// Peer group, 0 for none: events come from and go to its other members.
    pub group: u64,
    /// Peer group that events only come from, 0 for none.
    pub master: u64,
    /// Cannot be bound.
    pub unbindable: bool,
}

/// Not to follow symbolic links, `MS_NOSYMFOLLOW`.
pub const NO_LINKS: u32 = 256;
/// When times of reading are noted: one of these.
const TIMES: u32 = raw::MS_NOATIME | raw::MS_RELATIME | raw::MS_STRICTATIME;

/// Flags with one choice of when times of reading are noted; `MS_RELATIME` unless another was made, as Linux has it.
fn with_times(flags: u32) -> u32 {
    let choice = if flags & raw::MS_STRICTATIME != 0 {
        raw::MS_STRICTATIME
    } else if flags & raw::MS_NOATIME != 0 {
        raw::MS_NOATIME
    } else {
        raw::MS_RELATIME
    };
    flags & !TIMES | choice
}

/// Flags that keep something from those inside.
const STRICT: u32 = raw::MS_RDONLY | raw::MS_NOSUID | raw::MS_NODEV | raw::MS_NOEXEC;

static NEXT_ID: AtomicU64 = AtomicU64::new(21);
static NEXT_GROUP: AtomicU64 = AtomicU64::new(1);

fn new_group() -> u64 {
    NEXT_GROUP.fetch_add(1, Ordering::Relaxed)
}

impl Mount {
    /// A mount that is not attached yet.
    pub fn new(root: Arc<Name>, kind: &str, source: &str, flags: u32) -> Arc<Self> {
        Self::made_in(root, kind, source, flags, user::first())
    }

    /// A mount of a filesystem that somebody inside made.
    pub fn made_in(root: Arc<Name>, kind: &str, source: &str, flags: u32, owner: &Arc<UserNamespace>) -> Arc<Self> {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self {
            id,
            root,
            kind: kind.to_owned(),
            source: source.to_owned(),
            flags: AtomicU32::new(with_times(flags)),
            place: RwLock::new(None),
            space: AtomicU64::new(0),
            propagation: Mutex::default(),
            locked: AtomicBool::new(false),
            locked_flags: AtomicU32::new(0),
            expired: AtomicBool::new(false),
            writers: AtomicI64::new(0),
            filesystem: Arc::new(Filesystem { owner: Arc::clone(owner), read_only: AtomicBool::new(false), writers: AtomicI64::new(0) }),
        })
    }

    /// Another mount of the same filesystem, from `root` on.
    fn copy(&self, root: &Arc<Name>) -> Arc<Self> {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let copy = Arc::new(Self {
            id,
            root: Arc::clone(root),
            kind: self.kind.clone(),
            source: self.source.clone(),
            flags: AtomicU32::new(self.flags()),
            place: RwLock::new(None),
            space: AtomicU64::new(0),
            propagation: Mutex::default(),
            locked: AtomicBool::new(false),
            locked_flags: AtomicU32::new(0),
            expired: AtomicBool::new(false),
            writers: AtomicI64::new(0),
            filesystem: Arc::clone(&self.filesystem),
        });
        *copy.propagation.lock() = self.propagation();
        copy.locked_flags.store(self.locked_flags.load(Ordering::Relaxed), Ordering::Relaxed);
        copy
    }

    /// Where it is attached; none for the root mount and for detached ones.
    pub fn attached(&self) -> Option<Path> {
        self.place.read().clone()
    }

    /// `MS_*` flags.
    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    /// The same with what holds for its whole filesystem, as `statfs(2)` tells them.
    pub fn shown_flags(&self) -> u32 {
        self.flags() | if self.filesystem_is_read_only() { raw::MS_RDONLY } else { 0 }
    }

    /// Whether somebody may change the filesystem as a whole, for all its mounts.
    pub fn is_administered_by(&self, credentials: &Credentials) -> bool {
        credentials.has_in(&self.filesystem.owner, raw::CAP_SYS_ADMIN)
    }

    /// `EPERM` for flags that would take away what a more privileged namespace has set.
    pub fn check_flags(&self, flags: u32) -> Result<(), Errno> {
        let flags = with_times(flags);
        let locked = self.locked_flags.load(Ordering::Relaxed);
        let times = TIMES | raw::MS_NODIRATIME;
        let loses = locked & !times & !flags != 0 || locked & TIMES != 0 && (locked ^ flags) & times != 0;
        if loses { Err(Errno::EPERM) } else { Ok(()) }
    }

    /// Replaces the flags (`MS_REMOUNT`); `EPERM` for taking away what a more privileged namespace has set, `EBUSY` for making it read-only
    /// while files are open for writing.
    pub fn set_flags(&self, flags: u32) -> Result<(), Errno> {
        self.check_flags(flags)?;
        let flags = with_times(flags);
        if flags & !self.flags() & raw::MS_RDONLY != 0 && self.writers.load(Ordering::SeqCst) > 0 {
            return Err(Errno::EBUSY);
        }
        self.flags.store(flags, Ordering::Relaxed);
        Ok(())
    }

    /// Whether it cannot be written to: it or its whole filesystem.
    pub fn read_only(&self) -> bool {
        self.flags() & raw::MS_RDONLY != 0 || self.filesystem_is_read_only()
    }

    /// Whether no mount of its filesystem can be written to.
    pub fn filesystem_is_read_only(&self) -> bool {
        self.filesystem.read_only.load(Ordering::Relaxed)
    }

    /// Makes its whole filesystem read-only or writable; `EBUSY` while files are open for writing.
    pub fn set_filesystem_read_only(&self, on: bool) -> Result<(), Errno> {
        if on && !self.filesystem_is_read_only() && self.filesystem.writers.load(Ordering::SeqCst) > 0 {
            return Err(Errno::EBUSY);
        }
        self.filesystem.read_only.store(on, Ordering::Relaxed);
        Ok(())
    }

    /// One more or less file is open for writing through it.
    pub fn count_writers(&self, step: i64) {
        self.writers.fetch_add(step, Ordering::SeqCst);
        self.filesystem.writers.fetch_add(step, Ordering::SeqCst);
    }

    /// Its root as a place.
    pub fn root_path(self: &Arc<Self>) -> Path {
        Path { mount: Arc::clone(self), name: Arc::clone(&self.root) }
    }

    /// Number of the namespace it is attached in; 0 for detached ones.
    pub fn space(&self) -> u64 {
        self.space.load(Ordering::Relaxed)
    }

    /// What follows a change at a mount point of it.
    pub fn propagation(&self) -> Propagation {
        *self.propagation.lock()
    }

    /// Whether it cannot be taken off its place alone.
    pub fn is_locked(&self) -> bool {
        self.locked.load(Ordering::Relaxed)
    }

    /// Marks it as expired (`MNT_EXPIRE`); tells whether it was already.
    pub fn expire(&self) -> bool {
        self.expired.swap(true, Ordering::Relaxed)
    }

    /// Somebody uses it: a mark of expiry is void.
    pub fn use_again(&self) {
        if self.expired.load(Ordering::Relaxed) {
            self.expired.store(false, Ordering::Relaxed);
        }
    }

    /// Changes its propagation: `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` or `MS_UNBINDABLE`.
    pub fn propagate(&self, kind: u32) {
        let mut own = self.propagation.lock();
        match kind {
            raw::MS_SHARED if own.group == 0 => own.group = new_group(),
            raw::MS_SHARED => {}
            raw::MS_SLAVE if own.group != 0 => *own = Propagation { group: 0, master: own.group, unbindable: false },
            raw::MS_SLAVE => {}
            kind => *own = Propagation { unbindable: kind == raw::MS_UNBINDABLE, ..Propagation::default() },
        }
        if kind == raw::MS_SHARED {
            own.unbindable = false;
        }
    }
}

/// All mounts of the sandbox.
#[derive(Default)]
pub struct Mounts {
    table: RwLock<Table>,
    /// Held by every rename of directories, so that no two of them build a loop.
    pub rename: Mutex<()>,
}

#[derive(Default)]
struct Table {
    order: Vec<Arc<Mount>>,
    /// By the place they cover: mount number and address of the name, which the mount itself keeps alive.
    covers: HashMap<(u64, usize), Arc<Mount>>,
}

/// A mount with everything attached below it, the top first; the others' places lie within.
pub type Tree = Vec<Arc<Mount>>;

fn key(place: &Path) -> (u64, usize) {
    (place.mount.id, Arc::as_ptr(&place.name) as usize)
}

/// Holders of a mount that nobody uses: the list, the place it covers, and the path of who asks.
const IDLE_HOLDERS: usize = 3;

impl Mounts {
    /// Enters the root mount of a namespace.
    pub fn set_root(&self, mount: &Arc<Mount>, space: u64) {
        mount.space.store(space, Ordering::Relaxed);
        self.table.write().order.insert(0, Arc::clone(mount));
    }

    /// Attaches a single mount at a place.
    pub fn attach(&self, mount: &Arc<Mount>, place: Path) {
        self.attach_tree(vec![Arc::clone(mount)], place);
    }

    /// Attaches a tree at a place, and copies of it wherever the place's mount propagates to.
    pub fn attach_tree(&self, tree: Tree, place: Path) {
        let mut table = self.table.write();
        let shared = place.mount.propagation().group;
        let mut copies = Vec::new();
        if shared != 0 {
            for mount in &tree {
                mount.propagate(raw::MS_SHARED);
            }
            for (target, distance) in table.receivers(&place) {
                copies.push((table.propagated(&tree, distance), target));
            }
        }
        table.enter(&tree, place);
        for (copy, target) in copies {
            table.enter(&copy, target);
        }
    }

    /// The place that one really stands in at `path`: the root of whatever is mounted there.
    pub fn descend(&self, path: Path) -> Path {
        self.table.read().descend(path)
    }

    /// Detaches the mount whose root is `path`, for a task of the namespace `space`. `EBUSY` if it is in use or others are attached below, unless
    /// `lazily`.
    pub fn detach(&self, path: &Path, space: u64, lazily: bool) -> Result<(), Errno> {
        let mut table = self.table.write();
        if !Arc::ptr_eq(&path.name, &path.mount.root) || path.mount.space() != space || path.mount.is_locked() {
            return Err(Errno::EINVAL);
        }
        let place = path.mount.attached().ok_or(if lazily { Errno::EINVAL } else { Errno::EBUSY })?;
        if !lazily && (Arc::strong_count(&path.mount) > IDLE_HOLDERS || table.has_children(&path.mount)) {
            return Err(Errno::EBUSY);
        }
        if place.mount.propagation().group != 0 {
            for (target, _) in table.receivers(&place) {
                // Only what came there by propagation, too, and holds nothing of its own.
                let found = table.covers.get(&key(&target)).filter(|found| Arc::ptr_eq(&found.root, &path.mount.root)).cloned();
                if let Some(found) = found.filter(|found| lazily || !table.has_children(found)) {
                    table.remove_tree(&found);
                }
            }
        }
        table.remove_tree(&path.mount);
        Ok(())
    }

    /// Takes a whole tree off its place to attach it elsewhere. It keeps its shape.
    pub fn take(&self, mount: &Arc<Mount>) -> Tree {
        let mut table = self.table.write();
        let tree = table.tree_of(mount);
        if let Some(place) = mount.place.write().take() {
            table.covers.remove(&key(&place));
        }
        table.order.retain(|other| !tree.iter().any(|moved| Arc::ptr_eq(other, moved)));
        tree
    }

    /// Copies what `place` shows, with the mounts below if `recursively`, into no namespace. `EINVAL` for what cannot be bound.
    pub fn copy(&self, place: &Path, recursively: bool) -> Result<Tree, Errno> {
        if place.mount.propagation().unbindable {
            return Err(Errno::EINVAL);
        }
        Ok(self.table.write().copy(&place.mount, &place.name, recursively, false).0)
    }

    /// Forgets a detached tree.
    pub fn drop_detached(&self, top: &Arc<Mount>) {
        if top.space() == 0 && top.attached().is_none() {
            self.table.write().remove_tree(top);
        }
    }

    /// Copies the tree of a namespace into another; answers its root and what became of each mount. `restrict` when the new one is less
    /// privileged: what it shares becomes one-way, and mounts stay together.
    pub fn copy_space(&self, root: &Arc<Mount>, space: u64, restrict: bool) -> (Arc<Mount>, Vec<(Arc<Mount>, Arc<Mount>)>) {
        let mut table = self.table.write();
        let (tree, pairs) = table.copy(root, &root.root, true, true);
        for mount in &tree {
            mount.space.store(space, Ordering::Relaxed);
            if restrict {
                mount.propagate(raw::MS_SLAVE);
                mount.locked.store(mount.attached().is_some(), Ordering::Relaxed);
                mount.locked_flags.fetch_or(mount.flags() & (STRICT | TIMES | raw::MS_NODIRATIME), Ordering::Relaxed);
            }
        }
        (Arc::clone(&tree[0]), pairs)
    }

    /// A namespace is gone.
    pub fn drop_space(&self, space: u64) {
        let mut table = self.table.write();
        let gone: Vec<Arc<Mount>> = table.order.iter().filter(|mount| mount.space() == space).cloned().collect();
        table.order.retain(|mount| mount.space() != space);
        for mount in &gone {
            let place = mount.place.write().take();
            if let Some(place) = place {
                table.covers.remove(&key(&place));
            }
        }
        drop(table);
    }

    /// `pivot_root(2)`: the tree at `new` becomes the root of its namespace, and the old root hangs at `put_old`, which lies below.
    pub fn pivot(&self, new: &Arc<Mount>, old: &Arc<Mount>, put_old: Path) {
        let mut table = self.table.write();
        let new_place = new.place.write().take();
        if let Some(place) = &new_place {
            table.covers.remove(&key(place));
        }
        let old_place = old.place.write().take();
        if let Some(place) = old_place {
            table.covers.insert(key(&place), Arc::clone(new));
            *new.place.write() = Some(place);
        }
        if new.is_locked() {
            new.locked.store(false, Ordering::Relaxed);
            old.locked.store(true, Ordering::Relaxed);
        }
        let put_old = table.descend(put_old);
        put_old.name.keep();
        table.covers.insert(key(&put_old), Arc::clone(old));
        *old.place.write() = Some(put_old);
    }

    /// Whether somebody but the caller, who holds a path, uses a mount.
    pub fn is_busy(&self, mount: &Arc<Mount>) -> bool {
        Arc::strong_count(mount) > IDLE_HOLDERS || self.table.read().has_children(mount)
    }

    /// Whether something is mounted on a name.
    pub fn is_covered(&self, mount: &Arc<Mount>, name: &Arc<Name>) -> bool {
        self.table.read().covers.contains_key(&(mount.id, Arc::as_ptr(name) as usize))
    }

    /// A mount with all that is attached below it.
    pub fn tree_of(&self, mount: &Arc<Mount>) -> Tree {
        self.table.read().tree_of(mount)
    }

    /// All mounts in the order they were made, the first namespace's root first.
    pub fn all(&self) -> Vec<Arc<Mount>> {
        self.table.read().order.clone()
    }
}

impl Table {
    fn descend(&self, mut path: Path) -> Path {
        if self.covers.is_empty() {
            return path;
        }
        while let Some(mount) = self.covers.get(&key(&path)) {
            path = mount.root_path();
        }
        path
    }

    fn enter(&mut self, tree: &Tree, place: Path) {
        let place = self.descend(place);
        place.name.keep();
        let space = place.mount.space();
        *tree[0].place.write() = Some(place.clone());
        self.covers.insert(key(&place), Arc::clone(&tree[0]));
        for mount in tree {
            mount.space.store(space, Ordering::Relaxed);
            self.order.push(Arc::clone(mount));
        }
    }

    fn children<'a>(&'a self, mount: &'a Arc<Mount>) -> impl Iterator<Item = &'a Arc<Mount>> {
        self.covers.values().filter(|child| child.place.read().as_ref().is_some_and(|place| Arc::ptr_eq(&place.mount, mount)))
    }

    fn has_children(&self, mount: &Arc<Mount>) -> bool {
        self.children(mount).next().is_some()
    }

    fn tree_of(&self, mount: &Arc<Mount>) -> Tree {
        let mut tree = vec![Arc::clone(mount)];
        let mut next = 0;
        while next < tree.len() {
            let mut children: Tree = self.children(&tree[next]).cloned().collect();
            children.sort_by_key(|child| child.id);
            tree.extend(children);
            next += 1;
        }
        tree
    }

    fn remove_tree(&mut self, mount: &Arc<Mount>) {
        for gone in self.tree_of(mount) {
            let place = gone.place.write().take();
            if let Some(place) = place {
                self.covers.remove(&key(&place));
            }
            self.order.retain(|other| !Arc::ptr_eq(other, &gone));
            gone.space.store(0, Ordering::Relaxed);
        }
    }

    /// Copies a mount from `root` on, with what is attached below; mounts that cannot be bound are left out unless `everything`.
    fn copy(&mut self, mount: &Arc<Mount>, root: &Arc<Name>, recursively: bool, everything: bool) -> (Tree, Vec<(Arc<Mount>, Arc<Mount>)>) {
        let mut pairs = vec![(Arc::clone(mount), mount.copy(root))];
        let mut next = 0;
        while recursively && next < pairs.len() {
            let (original, copy) = pairs[next].clone();
            let mut children: Tree = self.children(&original).cloned().collect();
            children.sort_by_key(|child| child.id);
            for child in children {
                let Some(place) = child.attached() else { continue };
                if !place.name.is_below(&copy.root) || child.propagation().unbindable && !everything {
                    continue;
                }
                let twin = child.copy(&child.root);
                twin.locked.store(child.is_locked(), Ordering::Relaxed);
                let place = Path { mount: Arc::clone(&copy), name: place.name };
                self.covers.insert(key(&place), Arc::clone(&twin));
                *twin.place.write() = Some(place);
                pairs.push((child, twin));
            }
            next += 1;
        }
        if everything {
            self.order.extend(pairs.iter().map(|(_, copy)| Arc::clone(copy)));
        }
        (pairs.iter().map(|(_, copy)| Arc::clone(copy)).collect(), pairs)
    }

    /// Where a change at `place` is repeated: the same name in other mounts of the group, and in those that follow it. With each, the peer group
    /// that it is reached from if it only follows, else 0.
    fn receivers(&self, place: &Path) -> Vec<(Path, u64)> {
        let group = place.mount.propagation().group;
        let mut groups = vec![group];
        let mut found = Vec::new();
        let mut next = 0;
        while next < groups.len() {
            for mount in &self.order {
                let own = mount.propagation();
                let is_peer = own.group == groups[next];
                let follows = own.master == groups[next] && !is_peer;
                let known = Arc::ptr_eq(mount, &place.mount) || found.iter().any(|(path, _): &(Path, u64)| Arc::ptr_eq(&path.mount, mount));
                if known || !(is_peer || follows) || !place.name.is_below(&mount.root) {
                    continue;
                }
                let path = Path { mount: Arc::clone(mount), name: Arc::clone(&place.name) };
                found.push((path, if is_peer && groups[next] == group { 0 } else { groups[next] }));
                if follows && own.group != 0 && !groups.contains(&own.group) {
                    groups.push(own.group);
                }
            }
            next += 1;
        }
        found
    }

    /// A copy of a shared tree for a mount that hears of it: a peer, or one that follows.
    fn propagated(&mut self, tree: &Tree, follows: u64) -> Tree {
        let copies = self.copy(&tree[0], &tree[0].root, true, false).0;
        if follows != 0 {
            copies.iter().for_each(|copy| copy.propagate(raw::MS_SLAVE));
        }
        copies
    }
}
