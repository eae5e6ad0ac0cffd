//! Advisory locks of an inode: `flock(2)`, POSIX record locks and open-file-description locks, `fcntl(2)`.

/// All locks on one inode.
#[derive(Default)]
pub struct FileLocks {}
