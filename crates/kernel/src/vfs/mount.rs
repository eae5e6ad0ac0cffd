//! Mounts: filesystems attached to the tree.
//!
//! Lock order: `Mounts::table`, then a mount's `place`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use cloudpilot_abi::Errno;
use parking_lot::{Mutex, RwLock};

use super::name::{Name, Path};

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
}

static NEXT_ID: AtomicU64 = AtomicU64::new(21);

impl Mount {
    /// A mount that is not attached yet.
    pub fn new(root: Arc<Name>, kind: &str, source: &str, flags: u32) -> Arc<Self> {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let (kind, source) = (kind.to_owned(), source.to_owned());
        Arc::new(Self { id, root, kind, source, flags: AtomicU32::new(flags), place: RwLock::new(None) })
    }

    /// Where it is attached; none for the root mount and for detached ones.
    pub fn attached(&self) -> Option<Path> {
        self.place.read().clone()
    }

    /// `MS_*` flags.
    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    /// Replaces the flags (`MS_REMOUNT`).
    pub fn set_flags(&self, flags: u32) {
        self.flags.store(flags, Ordering::Relaxed);
    }

    /// `MS_RDONLY`.
    pub fn read_only(&self) -> bool {
        self.flags() & cloudpilot_abi::raw::MS_RDONLY != 0
    }

    /// Its root as a place.
    pub fn root_path(self: &Arc<Self>) -> Path {
        Path { mount: Arc::clone(self), name: Arc::clone(&self.root) }
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

fn key(place: &Path) -> (u64, usize) {
    (place.mount.id, Arc::as_ptr(&place.name) as usize)
}

impl Mounts {
    /// Enters the root mount.
    pub fn set_root(&self, mount: &Arc<Mount>) {
        self.table.write().order.insert(0, Arc::clone(mount));
    }

    /// Attaches a mount at a place.
    pub fn attach(&self, mount: &Arc<Mount>, place: Path) {
        place.name.keep();
        let mut table = self.table.write();
        *mount.place.write() = Some(place.clone());
        table.covers.insert(key(&place), Arc::clone(mount));
        table.order.push(Arc::clone(mount));
    }

    /// The place that one really stands in at `path`: the root of whatever is mounted there.
    pub fn descend(&self, mut path: Path) -> Path {
        let table = self.table.read();
        if table.covers.is_empty() {
            return path;
        }
        while let Some(mount) = table.covers.get(&key(&path)) {
            path = mount.root_path();
        }
        path
    }

    /// Detaches the mount whose root is `path`; `EBUSY` if others are attached below, unless `lazily`.
    pub fn detach(&self, path: &Path, lazily: bool) -> Result<(), Errno> {
        let mut table = self.table.write();
        if !Arc::ptr_eq(&path.name, &path.mount.root) {
            return Err(Errno::EINVAL);
        }
        let place = path.mount.attached().ok_or(Errno::EINVAL)?;
        let below = |mount: &Arc<Mount>| mount.attached().is_some_and(|place| Arc::ptr_eq(&place.mount, &path.mount));
        if table.order.iter().any(below) {
            if !lazily {
                return Err(Errno::EBUSY);
            }
            let gone: Vec<Path> = table.order.iter().filter(|mount| below(mount)).filter_map(|mount| mount.attached()).collect();
            table.order.retain(|mount| !below(mount));
            for place in gone {
                table.covers.remove(&key(&place));
            }
        }
        table.covers.remove(&key(&place));
        table.order.retain(|mount| !Arc::ptr_eq(mount, &path.mount));
        *path.mount.place.write() = None;
        Ok(())
    }

    /// Whether something is mounted on a name.
    pub fn is_covered(&self, mount: &Arc<Mount>, name: &Arc<Name>) -> bool {
        self.table.read().covers.contains_key(&(mount.id, Arc::as_ptr(name) as usize))
    }

    /// All mounts in the order they were made, the root first.
    pub fn all(&self) -> Vec<Arc<Mount>> {
        self.table.read().order.clone()
    }
}
