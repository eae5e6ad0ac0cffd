//! The inotify watches of an inode.

/// Who watches one inode.
#[derive(Default)]
pub struct InodeWatches {}
