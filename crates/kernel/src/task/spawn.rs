//! Programs started from outside: the first one, and those of the control socket. And who is told when they end.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};
use cloudpilot_platform::Registers;
use parking_lot::Mutex;

use super::limits::ResourceLimits;
use super::process::INIT;
use super::{Credentials, FsContext, FsState, Parts, Process, Task, exit, workers};
use crate::Kernel;
use crate::config::{ExitStatus, Program, Stdio, User};
use crate::loader;
use crate::mm::Mm;
use crate::signal::TaskSignals;
use crate::tty::bridge;
use crate::vfs::inode::FileType;
use crate::vfs::{FdTable, File, Path, Walk, open};

/// Where programs are looked for when their environment has no `PATH`.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Largest `/etc/passwd` or `/etc/group` that is read.
const LARGEST_DATABASE: usize = 1 << 20;

/// Why a program could not be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpawnError {
    /// Neither there nor along `PATH`.
    NotFound,
    /// There, but not to be executed, for this reason.
    NotExecutable(Errno),
    /// The working directory cannot be entered.
    WorkingDirectory(Errno),
    /// No such user.
    NoSuchUser(String),
    /// Something else.
    Failed(Errno),
}

impl From<Errno> for SpawnError {
    fn from(errno: Errno) -> Self {
        Self::Failed(errno)
    }
}

/// Called with the status of a program that ended.
pub type Then = Box<dyn FnOnce(ExitStatus) + Send>;

enum Watch {
    /// Nobody asked yet; the status, once there is one.
    Unasked(Option<ExitStatus>),
    /// To be called.
    Asked(Vec<Then>),
}

/// Ends of programs that were started from outside.
#[derive(Default)]
pub struct Exits(Mutex<HashMap<i32, Watch>>);

impl Exits {
    fn expect(&self, pid: i32) {
        self.0.lock().insert(pid, Watch::Unasked(None));
    }

    /// Whether it was started from outside.
    pub fn is_expected(&self, pid: i32) -> bool {
        self.0.lock().contains_key(&pid)
    }

    fn forget(&self, pid: i32) {
        self.0.lock().remove(&pid);
    }

    /// A process has ended.
    pub fn ended(&self, pid: i32, status: ExitStatus) {
        let mut table = self.0.lock();
        match table.remove(&pid) {
            None => {}
            Some(Watch::Unasked(_)) => {
                table.insert(pid, Watch::Unasked(Some(status)));
            }
            Some(Watch::Asked(calls)) => {
                drop(table);
                calls.into_iter().for_each(|then| then(status));
            }
        }
    }

    /// Calls back when a program has ended, at once if it has already; `ESRCH` if it was not started from outside.
    pub fn on_exit(&self, pid: i32, then: Then) -> Result<(), Errno> {
        let mut table = self.0.lock();
        match table.get_mut(&pid) {
            None => Err(Errno::ESRCH),
            Some(Watch::Asked(calls)) => {
                calls.push(then);
                Ok(())
            }
            Some(Watch::Unasked(None)) => {
                table.insert(pid, Watch::Asked(vec![then]));
                Ok(())
            }
            Some(Watch::Unasked(Some(status))) => {
                let status = *status;
                table.remove(&pid);
                drop(table);
                then(status);
                Ok(())
            }
        }
    }
}

impl Kernel {
    /// Starts a program in a session of its own; answers its number.
    pub fn spawn(self: &Arc<Self>, program: Program) -> Result<i32, SpawnError> {
        let command = Arc::default();
        if !super::clone::has_room(self, &command) {
            return Err(SpawnError::Failed(Errno::EAGAIN));
        }
        let init = self.init().ok_or(Errno::ESRCH)?;
        let Program { args, env, workdir, user, stdio } = program;
        let credentials = Arc::new(self.credentials_of(&init, &user)?);
        let root = init.fs().root;
        let walk = |start: &Path| Walk {
            kernel: self,
            root: root.clone(),
            start: start.clone(),
            credentials: Arc::clone(&credentials),
            task: &init,
            resolve: 0,
        };
        let cwd = walk(&root).lookup(&workdir, true).map_err(SpawnError::WorkingDirectory)?;
        if cwd.inode().file_type() != FileType::Directory {
            return Err(SpawnError::WorkingDirectory(Errno::ENOTDIR));
        }
        let (name, file) = find_program(&walk(&cwd), args.first().ok_or(Errno::EINVAL)?, &env)?;
        let files = FdTable::new();
        let terminal = open_stdio(self, &walk(&root), &files, stdio)?;

        let mut guest = self.platform.spawn().map_err(|_| Errno::EAGAIN)?;
        let limits = ResourceLimits::new(&self.limits);
        let pid = self.tasks.allocate()?;
        let process = Arc::new(Process::new(pid, crate::namespace::pid::first(), limits));
        process.uid.store(credentials.ruid, std::sync::atomic::Ordering::Relaxed);
        if let Some(terminal) = terminal {
            terminal.make_controlling(&process);
        }
        // A task in an empty address space, which then does what exec does.
        guest.reset_floating_point();
        let task = Task::new(Parts {
            tid: pid,
            process: Arc::clone(&process),
            kernel: Arc::clone(self),
            registers: Registers::default(),
            guest,
            mm: Some(Mm::new(&self.memory, self.platform.address_limits())),
            credentials,
            namespaces: self.first_namespaces().clone(),
            fs: Arc::new(FsContext { state: Mutex::new(FsState { root: root.clone(), cwd, umask: 0o022 }) }),
            files,
            signals: TaskSignals::default(),
            name: Vec::new(),
            scheduling: super::scheduling::Scheduling::default(),
            command,
        });
        {
            let mut family = process.family.lock();
            family.tasks.push(Arc::clone(&task));
            family.parent = Arc::downgrade(&init.process);
            family.exit_signal = raw::SIGCHLD as i32;
        }
        self.tasks.insert_process(Arc::clone(&process));
        self.tasks.insert_task(Arc::clone(&task));
        init.process.family.lock().children.push(Arc::clone(&process));
        self.exits.expect(pid);
        let request = loader::Request { file, name, arguments: args, environment: env, is_lost: false };
        let started = loader::prepare(&task, request)
            .map_err(SpawnError::NotExecutable)
            .and_then(|program| super::exec::exec(&task, &program).map_err(SpawnError::Failed))
            .and_then(|()| workers::start(&task).map_err(|_| SpawnError::Failed(Errno::EAGAIN)));
        if let Err(error) = started {
            self.exits.forget(pid);
            exit::begin_group_exit(&process, ExitStatus::Exited(127));
            exit::finish(&task);
            return Err(error);
        }
        self.system.forks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(pid)
    }

    /// The task of the first process.
    pub fn init(&self) -> Option<Arc<Task>> {
        self.tasks.find(INIT)
    }

    /// Who a user is, by numbers or by the guest's own databases.
    pub fn credentials_of(&self, init: &Arc<Task>, user: &User) -> Result<Credentials, SpawnError> {
        let name = match user {
            User::Ids { uid, gid } => {
                // Supplementary groups belong to names; numbers that have one get its groups.
                let groups = self.name_of(init, *uid).map_or_else(Vec::new, |name| self.groups_of(init, &name, *gid));
                return Ok(Credentials::new(*uid, *gid, groups));
            }
            User::Name(name) => name,
        };
        let database = read_whole(init, b"/etc/passwd").unwrap_or_default();
        for line in database.split(|&byte| byte == b'\n') {
            let fields: Vec<&[u8]> = line.split(|&byte| byte == b':').collect();
            if let [entry, _, uid, gid, ..] = fields[..]
                && entry == name.as_bytes()
                && let (Some(uid), Some(gid)) = (number(uid), number(gid))
            {
                return Ok(Credentials::new(uid, gid, self.groups_of(init, name.as_bytes(), gid)));
            }
        }
        Err(SpawnError::NoSuchUser(name.clone()))
    }

    fn name_of(&self, init: &Arc<Task>, uid: u32) -> Option<Vec<u8>> {
        if uid == 0 {
            return None;
        }
        let database = read_whole(init, b"/etc/passwd").ok()?;
        let mut lines = database.split(|&byte| byte == b'\n').map(|line| line.split(|&byte| byte == b':').collect::<Vec<_>>());
        lines.find_map(|fields| (fields.get(2).and_then(|field| number(field)) == Some(uid)).then(|| fields[0].to_vec()))
    }

    fn groups_of(&self, init: &Arc<Task>, name: &[u8], primary: u32) -> Vec<u32> {
        let mut groups = vec![primary];
        let database = read_whole(init, b"/etc/group").unwrap_or_default();
        for line in database.split(|&byte| byte == b'\n') {
            let fields: Vec<&[u8]> = line.split(|&byte| byte == b':').collect();
            if let [_, _, gid, members] = fields[..]
                && members.split(|&byte| byte == b',').any(|member| member == name)
                && let Some(gid) = number(gid)
                && !groups.contains(&gid)
            {
                groups.push(gid);
            }
        }
        groups
    }
}

fn number(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Reads a small file of the guest's tree with the rights of init.
fn read_whole(init: &Arc<Task>, path: &[u8]) -> Result<Vec<u8>, Errno> {
    let file = open::open(&Walk::of(init), path, raw::O_RDONLY, 0)?;
    let mut contents = Vec::new();
    let mut buffer = vec![0; 16 << 10];
    while contents.len() < LARGEST_DATABASE {
        match file.ops.read(&file, &mut crate::io::Destination::own(&mut buffer), contents.len() as u64)? {
            0 => break,
            count => contents.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(contents)
}

/// Finds a program as shells do; answers its name for `AT_EXECFN` and the opened file.
fn find_program(walk: &Walk<'_>, name: &[u8], env: &[Vec<u8>]) -> Result<(Vec<u8>, Arc<File>), SpawnError> {
    let open = |path: &[u8]| loader::open_program(walk, path, 0);
    if name.contains(&b'/') {
        return match open(name) {
            Ok(file) => Ok((name.to_vec(), file)),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Err(SpawnError::NotFound),
            Err(errno) => Err(SpawnError::NotExecutable(errno)),
        };
    }
    let path = env.iter().find_map(|entry| entry.strip_prefix(b"PATH=")).unwrap_or(DEFAULT_PATH);
    let mut refused = None;
    for directory in path.split(|&byte| byte == b':').filter(|_| !name.is_empty()) {
        let directory = if directory.is_empty() { b"." } else { directory };
        let candidate = [directory, b"/", name].concat();
        match open(&candidate) {
            Ok(file) => return Ok((candidate, file)),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(errno) => refused = Some(errno),
        }
    }
    Err(refused.map_or(SpawnError::NotFound, SpawnError::NotExecutable))
}

/// Opens descriptors 0 to 2; answers the terminal, if they are one.
fn open_stdio(kernel: &Arc<Kernel>, walk: &Walk<'_>, files: &FdTable, stdio: Stdio) -> Result<Option<Arc<crate::tty::Tty>>, SpawnError> {
    let insert = |file: Arc<File>| files.insert(file, false, 0, u64::MAX).map(|_| ());
    match stdio {
        Stdio::Terminal { input, output, rows, columns } => {
            let slave = bridge::start(kernel, input, output, rows, columns)?;
            let terminal = bridge::terminal_of(&slave).cloned();
            for _ in 0..3 {
                insert(Arc::clone(&slave))?;
            }
            Ok(terminal)
        }
        Stdio::Host(streams) => {
            for (index, stream) in streams.into_iter().enumerate() {
                insert(open_stream(walk, stream, index == 0)?)?;
            }
            Ok(None)
        }
    }
}

fn open_stream(walk: &Walk<'_>, stream: Option<OwnedFd>, input: bool) -> Result<Arc<File>, Errno> {
    match stream {
        Some(descriptor) => crate::fs::stdio::open(descriptor),
        None => open::open(walk, b"/dev/null", if input { raw::O_RDONLY } else { raw::O_WRONLY }, 0),
    }
}
