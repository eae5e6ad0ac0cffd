//! Who may write to a file and who may run it: never both at once, `ETXTBSY`. Readers are counted, too: a write lease allows no other.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use cloudpilot_abi::Errno;

use super::inode::Inode;
use super::mount::Mount;

/// How an inode is in use: positive for so many writers, negative for so many programs that run from it.
#[derive(Default)]
pub struct WriteCount(AtomicI64);

impl WriteCount {
    fn change(&self, step: i64) -> Result<(), Errno> {
        let judge = |count: i64| (count == 0 || count.signum() == step).then_some(count + step);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, judge).map(drop).map_err(|_| Errno::ETXTBSY)
    }

    fn undo(&self, step: i64) {
        self.0.fetch_sub(step, Ordering::AcqRel);
    }

    /// The number itself.
    pub fn count(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    /// Whether somebody may write.
    pub fn is_written(&self) -> bool {
        self.0.load(Ordering::Acquire) > 0
    }
}

/// The right to write to a file, for as long as it is held.
pub struct WriteAccess {
    inode: Arc<dyn Inode>,
    /// The mount that may not become read-only meanwhile.
    mount: Option<Arc<Mount>>,
}

impl WriteAccess {
    /// Takes it; `ETXTBSY` while a program runs from the file.
    pub fn take(inode: &Arc<dyn Inode>) -> Result<Self, Errno> {
        inode.common().writers.change(1)?;
        Ok(Self { inode: Arc::clone(inode), mount: None })
    }

    /// The same through a mount.
    pub fn through(mut self, mount: &Arc<Mount>) -> Self {
        mount.count_writers(1);
        self.mount = Some(Arc::clone(mount));
        self
    }
}

impl Drop for WriteAccess {
    fn drop(&mut self) {
        self.inode.common().writers.undo(1);
        if let Some(mount) = &self.mount {
            mount.count_writers(-1);
        }
    }
}

/// Counts a file that was opened for reading alone, for as long as it is held.
pub struct ReadAccess(Arc<dyn Inode>);

impl ReadAccess {
    /// Counts one more.
    pub fn take(inode: &Arc<dyn Inode>) -> Self {
        inode.common().readers.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(inode))
    }
}

impl Drop for ReadAccess {
    fn drop(&mut self) {
        self.0.common().readers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The right to run a file, which nobody may write to meanwhile.
pub struct RunAccess(Arc<dyn Inode>);

impl RunAccess {
    /// Takes it; `ETXTBSY` while somebody may write to the file.
    pub fn take(inode: &Arc<dyn Inode>) -> Result<Self, Errno> {
        inode.common().writers.change(-1)?;
        Ok(Self(Arc::clone(inode)))
    }
}

impl Drop for RunAccess {
    fn drop(&mut self) {
        self.0.common().writers.undo(-1);
    }
}
