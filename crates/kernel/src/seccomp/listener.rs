//! User notification: calls that a filter leaves to a supervisor, who answers them through a file, `seccomp_unotify(2)`.

use std::any::Any;
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use cloudpilot_abi::{Errno, raw};
use parking_lot::Mutex;

use super::program::Data;
use crate::syscall::SysResult;
use crate::task::Task;
use crate::vfs::anonymous;
use crate::vfs::file::{File, FileOps};
use crate::vfs::inode::FileType;
use crate::wait::{PollEvents, WaitQueue};

/// Requests, `SECCOMP_IOCTL_NOTIF_*`.
const RECEIVE: u32 = 0xc050_2100;
const SEND: u32 = 0xc018_2101;
const ID_VALID: u32 = 0x4008_2102;
/// The same with the direction that its first headers gave by mistake.
const ID_VALID_WRONG_DIRECTION: u32 = 0x8008_2102;
/// A request whose structure may grow: direction and size are left out.
const ADD_FD: u32 = 0x2103;
/// The bits of a request without direction and size.
const EXTENSIBLE: u32 = 0xffff;
/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`.
const CONTINUE: u32 = 1;
/// `SECCOMP_ADDFD_FLAG_SETFD`: at this number.
const AT_NUMBER: u32 = 1;
/// `SECCOMP_ADDFD_FLAG_SEND`: the descriptor is the answer, too.
const AND_SEND: u32 = 2;
/// Structures of `ADD_FD` are shorter than a page.
const ADD_FD_ROOM: usize = 4096;
/// What a waiting task is told of with.
const ANSWERED: PollEvents = PollEvents::IN;

/// `struct seccomp_notif`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct Notification {
    id: u64,
    pid: u32,
    flags: u32,
    data: Data,
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// `struct seccomp_notif_addfd`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct AddFd {
    id: u64,
    flags: u32,
    source: u32,
    target: u32,
    new_flags: u32,
}

/// What `SECCOMP_GET_NOTIF_SIZES` tells.
pub const SIZES: [u16; 3] = [size_of::<Notification>() as u16, size_of::<Response>() as u16, size_of::<Data>() as u16];

/// What becomes of a call.
pub enum Answer {
    /// It is served after all.
    Continue,
    /// This stands for its result.
    Result(SysResult),
}

/// How far a call has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nobody has seen it.
    Asked,
    /// The supervisor has it.
    Received,
    /// It is answered: value or error, and flags.
    Answered { value: i64, flags: u32 },
}

/// A call that waits.
struct Waiting {
    id: u64,
    task: Arc<Task>,
    data: Data,
    stage: Stage,
}

/// What a filter and its listener share.
pub struct Notifier {
    calls: Mutex<Calls>,
    /// Once received, a call is interrupted by what kills alone, `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`.
    kills_only: bool,
    /// Supervisors.
    queue: WaitQueue,
    /// Tasks that wait for an answer.
    askers: WaitQueue,
}

struct Calls {
    /// Whether the listener is open.
    is_open: bool,
    /// Whether a task is bound by the filter.
    is_used: bool,
    next: u64,
    /// How often a supervisor may look for a call; calls that end before they are received leave theirs behind, as on Linux.
    requests: u32,
    waiting: Vec<Waiting>,
}

impl Calls {
    fn find(&mut self, id: u64) -> Option<&mut Waiting> {
        self.waiting.iter_mut().find(|call| call.id == id)
    }

    /// The call, if the supervisor has it: `ENOENT` if there is none, `EINPROGRESS` before and after.
    fn received(&mut self, id: u64) -> Result<&mut Waiting, Errno> {
        match self.find(id) {
            None => Err(Errno::ENOENT),
            Some(call) if call.stage != Stage::Received => Err(Errno::EINPROGRESS),
            Some(call) => Ok(call),
        }
    }
}

/// The file by which a supervisor answers.
struct Listener(Arc<Notifier>);

/// A notifier for a new filter, and its file. `first` is the number of the first call.
pub fn open(kills_only: bool, first: u64) -> (Arc<Notifier>, Arc<File>) {
    let calls = Calls { is_open: true, is_used: true, next: first, requests: 0, waiting: Vec::new() };
    let notifier = Arc::new(Notifier { calls: Mutex::new(calls), kills_only, queue: WaitQueue::new(), askers: WaitQueue::new() });
    let ops = Arc::new(Listener(Arc::clone(&notifier)));
    (notifier, anonymous::open("anon_inode:seccomp notify", FileType::Anonymous, ops, raw::O_RDWR))
}

impl Notifier {
    /// Whether somebody may answer.
    pub fn is_open(&self) -> bool {
        self.calls.lock().is_open
    }

    /// No task is bound by the filter any more.
    pub fn filter_gone(&self) {
        self.calls.lock().is_used = false;
        self.queue.notify(PollEvents::HUP | PollEvents::IN);
    }

    /// Asks the supervisor about a call of the task, and waits for its answer.
    pub fn ask(&self, task: &Arc<Task>, data: Data) -> Answer {
        let id = {
            let mut calls = self.calls.lock();
            if !calls.is_open {
                return Answer::Result(Err(Errno::ENOSYS));
            }
            let id = calls.next;
            calls.next = id.wrapping_add(1);
            calls.requests = calls.requests.saturating_add(1);
            calls.waiting.push(Waiting { id, task: Arc::clone(task), data, stage: Stage::Asked });
            id
        };
        self.queue.notify(PollEvents::IN | PollEvents::RDNORM);
        let stage = || self.calls.lock().find(id).map_or(Stage::Asked, |call| call.stage);
        let answer = || match stage() {
            Stage::Answered { value, flags } => Some((value, flags)),
            _ => None,
        };
        let mut answered = task.block_on(&[&self.askers], ANSWERED, None, answer).ok();
        if answered.is_none() && self.kills_only && stage() != Stage::Asked {
            answered = task.block_killable(&self.askers, ANSWERED, answer);
        }
        {
            let mut calls = self.calls.lock();
            // The answer may have come together with what ended the wait; nobody would ever learn that it was not taken.
            if let Some(index) = calls.waiting.iter().position(|call| call.id == id) {
                calls.waiting.remove(index);
            }
        }
        match answered {
            None => Answer::Result(Err(Errno::ERESTARTSYS)),
            Some((_, flags)) if flags & CONTINUE != 0 => Answer::Continue,
            Some((value, _)) => Answer::Result(Ok(value as usize)),
        }
    }

    fn receive(&self, task: &Arc<Task>, place: u64) -> SysResult {
        if task.read::<Notification>(place).map(|given| bytemuck::bytes_of(&given).iter().any(|byte| *byte != 0))? {
            return Err(Errno::EINVAL);
        }
        let request = || {
            let mut calls = self.calls.lock();
            let looks = calls.requests > 0;
            calls.requests -= u32::from(looks);
            (looks || !calls.is_used).then_some(())
        };
        task.block_on(&[&self.queue], PollEvents::READ, None, request).map_err(|_| Errno::EINTR)?;
        let given = {
            let mut calls = self.calls.lock();
            let call = calls.waiting.iter_mut().find(|call| call.stage == Stage::Asked).ok_or(Errno::ENOENT)?;
            call.stage = Stage::Received;
            Notification { id: call.id, pid: task.shows(call.task.tid()) as u32, flags: 0, data: call.data }
        };
        self.queue.notify(PollEvents::OUT | PollEvents::WRNORM);
        if task.write(place, &given).is_ok() {
            return Ok(0);
        }
        // It is there for whoever asks next.
        let mut calls = self.calls.lock();
        if let Some(call) = calls.find(given.id) {
            call.stage = Stage::Asked;
            calls.requests = calls.requests.saturating_add(1);
        }
        Err(Errno::EFAULT)
    }

    fn send(&self, response: &Response) -> SysResult {
        let continues = response.flags & CONTINUE != 0;
        if response.flags & !CONTINUE != 0 || continues && (response.error != 0 || response.value != 0) {
            return Err(Errno::EINVAL);
        }
        let value = if response.error == 0 { response.value } else { i64::from(response.error) };
        self.calls.lock().received(response.id)?.stage = Stage::Answered { value, flags: response.flags };
        self.askers.notify(ANSWERED);
        Ok(0)
    }

    /// Gives the task that made a call a descriptor of the supervisor's. The task waits meanwhile: it cannot tell who enters it.
    fn add_fd(&self, task: &Arc<Task>, size: usize, place: u64) -> SysResult {
        let known = size_of::<AddFd>();
        if size < known || size >= ADD_FD_ROOM {
            return Err(Errno::EINVAL);
        }
        let bytes: Vec<u8> = task.read_slice(place, size)?;
        if bytes[known..].iter().any(|byte| *byte != 0) {
            return Err(Errno::E2BIG);
        }
        let given: AddFd = bytemuck::pod_read_unaligned(&bytes[..known]);
        let bad_flags = given.new_flags & !raw::O_CLOEXEC != 0 || given.flags & !(AT_NUMBER | AND_SEND) != 0;
        if bad_flags || given.target != 0 && given.flags & AT_NUMBER == 0 {
            return Err(Errno::EINVAL);
        }
        // Held until the end: a file may go with its last descriptor, and this one may be the listener itself, whose calls are locked below.
        let file = task.file(given.source as i32)?;
        let close_on_exec = given.new_flags != 0;
        let (fd, replaced) = {
            let mut calls = self.calls.lock();
            let call = calls.received(given.id)?;
            let target = Arc::clone(&call.task);
            let (fd, old) = if given.flags & AT_NUMBER != 0 {
                let limit = target.process.limits.lock().soft(raw::RLIMIT_NOFILE);
                let fd = i32::try_from(given.target).ok().filter(|_| u64::from(given.target) < limit).ok_or(Errno::EBADF)?;
                (fd, target.files().replace(fd, Arc::clone(&file), close_on_exec)?)
            } else {
                (target.install(Arc::clone(&file), close_on_exec)?, None)
            };
            if given.flags & AND_SEND != 0 {
                call.stage = Stage::Answered { value: i64::from(fd), flags: 0 };
            }
            (fd, old.map(|old| (target, old)))
        };
        if let Some((target, old)) = replaced {
            target.files().closed(&old, &target);
        }
        self.askers.notify(ANSWERED);
        Ok(fd as usize)
    }
}

impl FileOps for Listener {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn ioctl(&self, _file: &File, task: &Arc<Task>, request: u32, argument: u64) -> Result<usize, Errno> {
        match request {
            RECEIVE => self.0.receive(task, argument),
            SEND => self.0.send(&task.read(argument)?),
            ID_VALID | ID_VALID_WRONG_DIRECTION => {
                let id: u64 = task.read(argument)?;
                let is_received = self.0.calls.lock().find(id).is_some_and(|call| call.stage == Stage::Received);
                if is_received { Ok(0) } else { Err(Errno::ENOENT) }
            }
            _ if request & EXTENSIBLE == ADD_FD => self.0.add_fd(task, (request >> 16 & 0x3fff) as usize, argument),
            _ => Err(Errno::EINVAL),
        }
    }

    fn poll(&self, _file: &File) -> PollEvents {
        let calls = self.0.calls.lock();
        let mut events = PollEvents::empty();
        for call in &calls.waiting {
            match call.stage {
                Stage::Asked => events |= PollEvents::IN | PollEvents::RDNORM,
                Stage::Received => events |= PollEvents::OUT | PollEvents::WRNORM,
                Stage::Answered { .. } => {}
            }
        }
        if !calls.is_used {
            events |= PollEvents::HUP;
        }
        events
    }

    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.0.queue)
    }

    fn release(&self, _file: &File) {
        let mut calls = self.0.calls.lock();
        calls.is_open = false;
        for call in calls.waiting.iter_mut().filter(|call| !matches!(call.stage, Stage::Answered { .. })) {
            call.stage = Stage::Answered { value: -i64::from(Errno::ENOSYS.0), flags: 0 };
        }
        drop(calls);
        self.0.askers.notify(ANSWERED);
    }
}
