//! The process or thread that a file of procfs is about, and who may look.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use cloudpilot_abi::Errno;

use crate::Kernel;
use crate::fs::generated::{Kind, Open, Plan};
use crate::mm::Mm;
use crate::namespace::pid::PidNamespace;
use crate::namespace::user::{self, UserNamespace};
use crate::task::{Credentials, Process, Task};

/// `CAP_SYS_PTRACE`.
const CAP_SYS_PTRACE: u32 = 19;

/// A name that is a number as Linux accepts them: digits only, no leading zero.
pub fn parse_number(name: &[u8]) -> Option<i32> {
    let text = std::str::from_utf8(name).ok()?;
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// A process, or one thread of it, that may be gone meanwhile.
#[derive(Clone)]
pub struct Subject {
    kernel: Weak<Kernel>,
    numbers: Arc<PidNamespace>,
    process: Weak<Process>,
    /// The thread; none for the process as a whole.
    thread: Option<Weak<Task>>,
    /// Of its directories.
    owner: (u32, u32),
    /// Whether its memory may be looked at by its user, `PR_SET_DUMPABLE`; if not, files about it are root's.
    dumpable: bool,
}

/// A subject that lives, at least as a zombie.
pub struct Live {
    /// The machine.
    pub kernel: Arc<Kernel>,
    /// By which numbers processes are named.
    pub numbers: Arc<PidNamespace>,
    /// By which numbers users and groups are.
    pub users: Arc<UserNamespace>,
    /// The process.
    pub process: Arc<Process>,
    /// The thread, or the process's first live one; none for zombies.
    pub task: Option<Arc<Task>>,
    /// Whether the file is about one thread.
    pub is_thread: bool,
}

impl Subject {
    /// A process, for a procfs that names processes by these numbers.
    pub fn process(kernel: &Arc<Kernel>, numbers: &Arc<PidNamespace>, process: &Arc<Process>) -> Self {
        let task = process.family.lock().tasks.first().cloned();
        let owner = task.map_or((0, 0), |task| owner_of(&task));
        Self {
            kernel: Arc::downgrade(kernel),
            numbers: Arc::clone(numbers),
            process: Arc::downgrade(process),
            thread: None,
            owner,
            dumpable: process.dumpable.load(Ordering::Relaxed) == 1,
        }
    }

    /// A thread of it.
    pub fn thread(&self, task: &Arc<Task>) -> Self {
        Self {
            kernel: Weak::clone(&self.kernel),
            numbers: Arc::clone(&self.numbers),
            process: Arc::downgrade(&task.process),
            thread: Some(Arc::downgrade(task)),
            owner: owner_of(task),
            dumpable: self.dumpable,
        }
    }

    /// What it is about, unless that is gone: `ESRCH`.
    pub fn live(&self) -> Result<Live, Errno> {
        let kernel = self.kernel.upgrade().ok_or(Errno::ESRCH)?;
        let process = self.process.upgrade().ok_or(Errno::ESRCH)?;
        let present = kernel.tasks.process(process.pid).ok_or(Errno::ESRCH)?;
        if !Arc::ptr_eq(&present, &process) {
            return Err(Errno::ESRCH);
        }
        let tasks = process.family.lock().tasks.clone();
        let task = match &self.thread {
            None => tasks.into_iter().next(),
            Some(thread) => {
                let thread = thread.upgrade().ok_or(Errno::ESRCH)?;
                Some(tasks.into_iter().find(|task| Arc::ptr_eq(task, &thread)).ok_or(Errno::ESRCH)?)
            }
        };
        Ok(Live {
            kernel,
            numbers: Arc::clone(&self.numbers),
            users: Arc::clone(user::first()),
            process,
            task,
            is_thread: self.thread.is_some(),
        })
    }

    /// User and group of the directories about it that anyone may read.
    pub fn directory_owner(&self) -> (u32, u32) {
        self.owner
    }

    /// User and group of everything else about it.
    pub fn owner(&self) -> (u32, u32) {
        if self.dumpable { self.owner } else { (0, 0) }
    }

    /// A file that anyone may read.
    pub fn open_file(&self, make: fn(&Live) -> Result<Vec<u8>, Errno>) -> Plan {
        let subject = self.clone();
        let make = move |reader: Option<&Task>| {
            let mut live = subject.live()?;
            if let Some(reader) = reader {
                live.users = Arc::clone(&reader.credentials().user);
            }
            make(&live)
        };
        Plan::file_for(make).owned(self.owner())
    }

    /// A file for those who might trace the subject: judged at open, like Linux's `mm_access`.
    pub fn traced_file(&self, permissions: u32, make: fn(&Live) -> Result<Vec<u8>, Errno>) -> Plan {
        let subject = self.clone();
        self.open_file(make).mode(permissions).judged(move |task| subject.judge(task))
    }

    /// A file with operations of its own for those who might trace the subject.
    pub fn traced_special(
        &self,
        permissions: u32,
        open: impl Fn(u32, &Arc<Task>) -> Result<super::memory::Ops, Errno> + Send + Sync + 'static,
    ) -> Plan {
        let subject = self.clone();
        let open: Open = Box::new(move |flags, task| {
            subject.judge(task)?;
            open(flags, task)
        });
        Plan { permissions, owner: self.owner(), kind: Kind::Special(open) }
    }

    /// `EACCES` unless the task may look into the subject.
    pub fn judge(&self, task: &Arc<Task>) -> Result<(), Errno> {
        if may_look(task, &self.live()?) { Ok(()) } else { Err(Errno::EACCES) }
    }
}

impl Live {
    /// The thread that stands for it; zombies have none.
    pub fn task(&self) -> Result<&Arc<Task>, Errno> {
        self.task.as_ref().ok_or(Errno::ESRCH)
    }

    /// The address space; none for zombies.
    pub fn mm(&self) -> Option<Arc<Mm>> {
        self.task.as_ref().and_then(|task| task.mm.lock().clone())
    }

    /// The kernel's number of the process or of the thread.
    pub fn id(&self) -> i32 {
        match &self.task {
            Some(task) if self.is_thread => task.tid(),
            _ => self.process.pid,
        }
    }

    /// Credentials; a zombie's are forgotten.
    pub fn credentials(&self) -> Arc<Credentials> {
        self.task.as_ref().map_or_else(|| Arc::new(Credentials::new(0, 0, Vec::new())), |task| task.credentials())
    }
}

fn owner_of(task: &Task) -> (u32, u32) {
    let credentials = task.credentials();
    (credentials.euid, credentials.egid)
}

fn may_look(caller: &Arc<Task>, subject: &Live) -> bool {
    // Nothing is left of a zombie that could be looked into.
    Arc::ptr_eq(&caller.process, &subject.process) || subject.task.as_ref().is_none_or(|task| may_trace(caller, task))
}

/// Whether `caller` might trace `target`, with the file-system ids as procfs asks (`PTRACE_MODE_FSCREDS`, ptrace(2)).
pub fn may_trace(caller: &Task, target: &Task) -> bool {
    if Arc::ptr_eq(&caller.process, &target.process) {
        return true;
    }
    let (mine, theirs) = (caller.credentials(), target.credentials());
    if mine.has_in(&theirs.user, CAP_SYS_PTRACE) {
        return true;
    }
    let same_user = [theirs.euid, theirs.suid, theirs.ruid].iter().all(|uid| *uid == mine.fsuid);
    let same_group = [theirs.egid, theirs.sgid, theirs.rgid].iter().all(|gid| *gid == mine.fsgid);
    mine.user.number == theirs.user.number && same_user && same_group && theirs.permitted & !mine.permitted == 0
}
