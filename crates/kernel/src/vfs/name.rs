//! Names: where an inode stands in the tree of its filesystem.
//!
//! Lock order: a directory's `children`, then a name's `place`. Renames hold the filesystem-wide rename lock of the mount table.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use cloudpilot_abi::Errno;
use parking_lot::{Mutex, RwLock};

use super::inode::Inode;
use super::mount::Mount;

/// A name in the tree (Linux's dentry): an inode, what it is called, and in which directory.
pub struct Name {
    /// What the name leads to.
    pub inode: Arc<dyn Inode>,
    /// Parent and last component; none for the root of a filesystem. Changes by rename.
    pub place: RwLock<Option<(Arc<Name>, Box<[u8]>)>>,
    /// Names below that somebody holds, so that each has one identity (mounts and working directories hang on it).
    children: Mutex<HashMap<Box<[u8]>, Weak<Name>>>,
    deleted: AtomicBool,
    /// Something was mounted here or below: while it is, the name stays what it is, even where every look-up makes names anew.
    kept: AtomicBool,
}

impl Name {
    /// The root of a filesystem.
    pub fn root(inode: Arc<dyn Inode>) -> Arc<Self> {
        Self::new(inode, None)
    }

    fn new(inode: Arc<dyn Inode>, place: Option<(Arc<Name>, Box<[u8]>)>) -> Arc<Self> {
        Arc::new(Self {
            inode,
            place: RwLock::new(place),
            children: Mutex::default(),
            deleted: AtomicBool::new(false),
            kept: AtomicBool::new(false),
        })
    }

    /// A name for an inode that no directory lists (`O_TMPFILE`): it prints as deleted.
    pub fn unlisted(parent: &Arc<Name>, component: &[u8], inode: Arc<dyn Inode>) -> Arc<Self> {
        let name = Self::new(inode, Some((Arc::clone(parent), component.into())));
        name.deleted.store(true, Ordering::Relaxed);
        name
    }

    /// Finds a name in this directory.
    pub fn child(self: &Arc<Self>, component: &[u8]) -> Result<Arc<Self>, Errno> {
        let stable = self.inode.names_are_stable();
        if stable || self.kept.load(Ordering::Relaxed) {
            let child = self.children.lock().get(component).and_then(Weak::upgrade);
            if let Some(child) = child.filter(|child| stable || child.kept.load(Ordering::Relaxed)) {
                return Ok(child);
            }
        }
        let inode = self.inode.lookup(component)?;
        Ok(self.adopt(component, inode))
    }

    /// Something is mounted here: those who look the name up, and the names above it, find this one.
    pub fn keep(self: &Arc<Self>) {
        let mut next = Some(Arc::clone(self));
        while let Some(name) = next {
            name.kept.store(true, Ordering::Relaxed);
            let place = name.place.read().clone();
            if let Some((parent, component)) = &place {
                // Another look-up may have given the inode another name meanwhile: this is the one that counts.
                parent.children.lock().insert(component.clone(), Arc::downgrade(&name));
            }
            next = place.map(|(parent, _)| parent);
        }
    }

    /// The name for an inode just found or made under `component`; the one that exists already if there is one.
    pub fn adopt(self: &Arc<Self>, component: &[u8], inode: Arc<dyn Inode>) -> Arc<Self> {
        let mut children = self.children.lock();
        // Let go of below, after the lock: the last holder of a name takes its entry out.
        let old = children.get(component).and_then(Weak::upgrade);
        if let Some(child) = old.as_ref().filter(|child| Arc::ptr_eq(&child.inode, &inode)) {
            return Arc::clone(child);
        }
        let child = Self::new(inode, Some((Arc::clone(self), component.into())));
        children.insert(component.into(), Arc::downgrade(&child));
        drop(children);
        child
    }

    /// Notes that the directory no longer lists `component`.
    pub fn forget(&self, component: &[u8]) {
        let child = self.children.lock().remove(component).and_then(|child| child.upgrade());
        // Without the lock: we may be its last holder by now, and a name that goes looks into its parent.
        if let Some(child) = child {
            child.deleted.store(true, Ordering::Relaxed);
        }
    }

    /// Notes that `child` is now called `component` in `parent`.
    pub fn move_to(child: &Arc<Self>, parent: &Arc<Self>, component: &[u8]) {
        let old = child.place.read().clone();
        if let Some((old_parent, old_component)) = old {
            old_parent.children.lock().remove(&old_component);
        }
        parent.forget(component);
        *child.place.write() = Some((Arc::clone(parent), component.into()));
        parent.children.lock().insert(component.into(), Arc::downgrade(child));
    }

    /// Swaps what two names are called (`RENAME_EXCHANGE`).
    pub fn exchange(one: &Arc<Self>, other: &Arc<Self>) {
        let (one_place, other_place) = (one.place.read().clone(), other.place.read().clone());
        for (name, place) in [(one, other_place), (other, one_place)] {
            if let Some((parent, component)) = &place {
                parent.children.lock().insert(component.clone(), Arc::downgrade(name));
            }
            *name.place.write() = place;
        }
    }

    /// The directory that lists it, unless it is a root.
    pub fn parent(&self) -> Option<Arc<Self>> {
        self.place.read().as_ref().map(|(parent, _)| Arc::clone(parent))
    }

    /// Its last component, empty for a root.
    pub fn component(&self) -> Box<[u8]> {
        self.place.read().as_ref().map_or_else(Box::default, |(_, component)| component.clone())
    }

    /// Whether it was removed from its directory.
    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Relaxed)
    }

    /// Whether `self` is `other` or lies below it, within one filesystem.
    pub fn is_below(self: &Arc<Self>, other: &Arc<Self>) -> bool {
        let mut name = Arc::clone(self);
        loop {
            if Arc::ptr_eq(&name, other) {
                return true;
            }
            match name.parent() {
                Some(parent) => name = parent,
                None => return false,
            }
        }
    }

    /// Forgets children that nobody holds any more; called now and then so that a directory walked over does not keep dead entries.
    pub fn prune(&self) {
        self.children.lock().retain(|_, child| child.strong_count() > 0);
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // Nobody holds this name: take the dead entry out of the parent, unless a new name has taken its place. Where we were the parent's last
        // holder it goes the same way, one after the other: inside each other's drop, a deep tree would exhaust the stack.
        let mut place = self.place.get_mut().take();
        while let Some((parent, component)) = place {
            {
                let mut children = parent.children.lock();
                if children.get(&component).is_some_and(|child| child.strong_count() == 0) {
                    children.remove(&component);
                }
            }
            place = Arc::into_inner(parent).and_then(|mut parent| parent.place.get_mut().take());
        }
    }
}

/// A place: a name as seen through a mount.
#[derive(Clone)]
pub struct Path {
    /// The mount.
    pub mount: Arc<Mount>,
    /// The name.
    pub name: Arc<Name>,
}

impl Path {
    /// Whether two paths are the same place.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.mount, &other.mount) && Arc::ptr_eq(&self.name, &other.name)
    }

    /// The inode.
    pub fn inode(&self) -> &Arc<dyn Inode> {
        &self.name.inode
    }

    /// The absolute path as seen from `root`. A place outside of it prints from where its chain of mounts ends, with `(unreachable)` in front;
    /// a removed one gets ` (deleted)` behind.
    pub fn display(&self, root: &Self) -> Vec<u8> {
        let mut components: Vec<Box<[u8]>> = Vec::new();
        let mut at = self.clone();
        let reachable = loop {
            if at.is(root) {
                break true;
            }
            if Arc::ptr_eq(&at.name, &at.mount.root) {
                match at.mount.attached() {
                    Some(place) => at = place,
                    None => break Arc::ptr_eq(&at.mount, &root.mount) && Arc::ptr_eq(&root.name, &root.mount.root),
                }
                continue;
            }
            components.push(at.name.component());
            match at.name.parent() {
                Some(parent) => at.name = parent,
                None => break false,
            }
        };
        let mut text = if reachable { Vec::new() } else { b"(unreachable)".to_vec() };
        for component in components.iter().rev() {
            text.push(b'/');
            text.extend_from_slice(component);
        }
        if components.is_empty() {
            text.push(b'/');
        }
        if self.name.is_deleted() {
            text.extend_from_slice(b" (deleted)");
        }
        text
    }
}
