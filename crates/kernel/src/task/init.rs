//! The first process: the kernel's own. It runs no program; it takes over orphans, which vanish as soon as they end, and lends its task to what
//! the kernel does on nobody's behalf (walking paths for the control socket).

use std::sync::Arc;

use cloudpilot_abi::Errno;
use cloudpilot_platform::{Backing, Executor, Gone, GuestThread, Interrupter, Protection, Registers, SpawnError, Stop};
use parking_lot::Mutex;

use super::limits::ResourceLimits;
use super::process::INIT;
use super::{Credentials, FsContext, FsState, Parts, Process, Task};
use crate::Kernel;
use crate::signal::TaskSignals;
use crate::vfs::{FdTable, Path};

/// What `ps` shows.
const NAME: &[u8] = b"init";

/// Makes process 1 with one task whose root is `root`.
pub fn create(kernel: &Arc<Kernel>, root: Path) -> Result<Arc<Task>, Errno> {
    let process = Arc::new(Process::new(INIT, crate::namespace::pid::first(), ResourceLimits::new(&kernel.limits)));
    let state = FsState { root: root.clone(), cwd: root, umask: 0o022 };
    if kernel.tasks.allocate()? != INIT {
        return Err(Errno::EEXIST);
    }
    let task = Task::new(Parts {
        tid: INIT,
        process: Arc::clone(&process),
        kernel: Arc::clone(kernel),
        registers: Registers::default(),
        guest: Box::new(NoGuest),
        mm: None,
        credentials: Arc::new(Credentials::new(0, 0, Vec::new())),
        namespaces: kernel.first_namespaces().clone(),
        fs: Arc::new(FsContext { state: Mutex::new(state) }),
        files: FdTable::new(),
        signals: TaskSignals::default(),
        name: NAME.to_vec(),
        scheduling: super::scheduling::Scheduling::default(),
        command: Arc::default(),
    });
    // It sleeps for ever, as far as anybody can see.
    task.parker.set_sleeping();
    process.family.lock().tasks.push(Arc::clone(&task));
    kernel.tasks.insert_process(process);
    kernel.tasks.insert_task(Arc::clone(&task));
    Ok(task)
}

/// The guest thread of tasks that have none: of init, and of tasks that exit.
pub struct NoGuest;

impl Executor for NoGuest {
    fn map(&mut self, _address: u64, _length: u64, _protection: Protection, _backing: Backing) -> Result<(), Gone> {
        Err(Gone)
    }

    fn unmap(&mut self, _address: u64, _length: u64) -> Result<(), Gone> {
        Err(Gone)
    }

    fn protect(&mut self, _address: u64, _length: u64, _protection: Protection) -> Result<(), Gone> {
        Err(Gone)
    }
}

impl Interrupter for NoGuest {
    fn interrupt(&self) {}

    fn kill(&self) {}
}

impl GuestThread for NoGuest {
    fn run(&mut self, _registers: &mut Registers, _meanwhile: &mut dyn FnMut()) -> Stop {
        Stop::Gone
    }

    fn floating_point(&mut self) -> Vec<u8> {
        Vec::new()
    }

    fn set_floating_point(&mut self, _state: &[u8]) -> bool {
        false
    }

    fn reset_floating_point(&mut self) {}

    fn fs_base(&mut self) -> Result<u64, Gone> {
        Err(Gone)
    }

    fn set_fs_base(&mut self, _base: u64) -> Result<(), Gone> {
        Err(Gone)
    }

    fn gs_base(&mut self) -> Result<u64, Gone> {
        Err(Gone)
    }

    fn set_gs_base(&mut self, _base: u64) -> Result<(), Gone> {
        Err(Gone)
    }

    fn spawn_thread(&mut self) -> Result<Box<dyn GuestThread>, SpawnError> {
        Err(SpawnError::Gone)
    }

    fn fork(&mut self) -> Result<Box<dyn GuestThread>, SpawnError> {
        Err(SpawnError::Gone)
    }

    fn fork_empty(&mut self) -> Result<Box<dyn GuestThread>, SpawnError> {
        Err(SpawnError::Gone)
    }

    fn clear(&mut self) -> Result<(), Gone> {
        Err(Gone)
    }

    fn interrupter(&self) -> Arc<dyn Interrupter> {
        Arc::new(Self)
    }

    fn finish(self: Box<Self>, _last: bool) {}
}
