//! Names and mounts: where an inode stands in the tree.

use std::sync::Arc;

use parking_lot::RwLock;

use super::inode::Inode;

/// A name in the tree (Linux's dentry): an inode, what it is called, and in which directory.
pub struct Name {
    /// What the name leads to.
    pub inode: Arc<dyn Inode>,
    /// Parent and last component; none for the root of a filesystem. Changes by rename.
    pub place: RwLock<Option<(Arc<Name>, Box<[u8]>)>>,
}

/// A filesystem's tree attached somewhere.
pub struct Mount {
    /// Its root.
    pub root: Arc<Name>,
}

/// A place: a name as seen through a mount.
#[derive(Clone)]
pub struct Path {
    /// The mount.
    pub mount: Arc<Mount>,
    /// The name.
    pub name: Arc<Name>,
}
