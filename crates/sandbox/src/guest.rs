//! The user-space kernel as the [`Machine`] that the control socket drives.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};
use cloudpilot_kernel::Kernel;
use cloudpilot_kernel::boot::BootError;
use cloudpilot_kernel::config::{BootConfig, Network, Program, User};
use cloudpilot_kernel::fs::proc::command_line;
use cloudpilot_kernel::task::Process;
use cloudpilot_kernel::task::activity::Flow;
use cloudpilot_kernel::task::spawn::SpawnError;
use cloudpilot_kernel::tty::termios::Winsize;
use cloudpilot_kernel::{signal, syscall};
use serde_json::{Value, json};

use crate::failure::{Code, Failure};
use crate::guest_files::GuestFiles;
use crate::machine::{Files, Machine, OnExit, OnNotice};

/// A booted kernel.
struct Guest {
    kernel: Arc<Kernel>,
    files: GuestFiles,
}

/// Boots the kernel.
pub fn boot(config: BootConfig) -> Result<Arc<dyn Machine>, Failure> {
    let kernel = Kernel::boot(config).map_err(|error| match error {
        BootError::Host(what, error) => Failure::host(format!("Cannot {what}"), error),
        BootError::Tree(..) => Failure::new(Code::Internal, error.to_string()),
    })?;
    let files = GuestFiles::new(&kernel);
    Ok(Arc::new(Guest { kernel, files }))
}

fn of_errno(message: String, errno: Errno) -> Failure {
    Failure { errno: Some(errno.0), ..Failure::new(Code::of_errno(errno.0), message) }
}

/// What a start that failed is called.
fn not_started(name: &str, workdir: &str, error: SpawnError) -> Failure {
    let text = |errno: Errno| std::io::Error::from_raw_os_error(i32::from(errno.0)).to_string();
    match error {
        SpawnError::NotFound => Failure::new(Code::NotFound, format!("There is no program `{name}` in the sandbox"))
            .hint("give an absolute path, or a name that PATH leads to inside the sandbox"),
        SpawnError::NotExecutable(Errno::ENOENT) => {
            Failure::new(Code::NotExecutable, format!("The program `{name}` needs an interpreter or loader that the sandbox does not have"))
                .hint("use a root that holds the program's loader and libraries, or a static program")
        }
        SpawnError::NotExecutable(errno) => {
            Failure::new(Code::NotExecutable, format!("The program `{name}` cannot be executed: {}", text(errno)))
                .hint("it must be a 64-bit x86 ELF program or a script with a `#!` line, and have the execute permission")
        }
        SpawnError::WorkingDirectory(errno) => {
            Failure::invalid(format!("The working directory `{workdir}` cannot be entered: {}", text(errno)))
                .hint("make it first, or choose one that exists inside the sandbox")
        }
        SpawnError::NoSuchUser(user) => Failure::invalid(format!("There is no user `{user}` in the sandbox's /etc/passwd")),
        SpawnError::Failed(errno) => {
            let failure = of_errno(format!("The program `{name}` could not be started: {}", text(errno)), errno);
            match errno {
                Errno::EAGAIN => failure.hint("raise `--pids`; if the sandbox is not full, the host's limits (`ulimit -u`, pids.max)"),
                _ => failure,
            }
        }
    }
}

impl Guest {
    fn check_own_network(&self) -> Result<(), Failure> {
        if self.kernel.network == Network::Host {
            return Err(Failure::invalid("The sandbox uses the host's network").hint("use the host's own ports"));
        }
        Ok(())
    }

    fn process(&self, pid: i32) -> Result<Arc<Process>, Errno> {
        self.kernel.tasks.process(pid).filter(|process| !process.is_init()).ok_or(Errno::ESRCH)
    }
}

impl Machine for Guest {
    fn spawn(&self, program: Program) -> Result<i32, Failure> {
        let name = program.args.first().map_or_else(String::new, |name| String::from_utf8_lossy(name).into_owned());
        let workdir = String::from_utf8_lossy(&program.workdir).into_owned();
        self.kernel.spawn(program).map_err(|error| not_started(&name, &workdir, error))
    }

    fn expect_more(&self) {
        self.kernel.requested.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    fn on_exit(&self, pid: i32, then: OnExit) -> Result<(), Errno> {
        self.kernel.exits.on_exit(pid, then)
    }

    fn on_notice(&self, then: OnNotice) {
        let _ = self.kernel.notices.set(then);
    }

    fn signal(&self, pid: i32, number: i32) -> Result<(), Errno> {
        if !(0..=signal::HIGHEST).contains(&number) {
            return Err(Errno::EINVAL);
        }
        let mut info = signal::info_from_kernel(number);
        info.si_code = raw::SI_USER as i32;
        if pid < 0 {
            return signal::send_to_group(&self.kernel, -pid, &info);
        }
        let process = self.process(pid)?;
        if process.has_exited() {
            return Err(Errno::ESRCH);
        }
        signal::queue_to_process(&process, &info)
    }

    fn resize(&self, pid: i32, rows: u16, columns: u16) -> Result<(), Errno> {
        let terminal = self.process(pid)?.terminal.lock().clone().ok_or(Errno::ENOTTY)?;
        terminal.set_window(Winsize { ws_row: rows, ws_col: columns, ..Winsize::default() });
        Ok(())
    }

    fn connect(&self, port: u16, host: OwnedFd, over: Box<dyn Send>) -> Result<(), Failure> {
        self.check_own_network()?;
        cloudpilot_kernel::net::join::join(&self.kernel.net, port, host, over).map_err(|errno| match errno {
            Errno::ECONNREFUSED => {
                Failure { errno: Some(errno.0), ..Failure::new(Code::NotFound, format!("Nothing listens on port {port} in the sandbox")) }
            }
            errno => of_errno(format!("Cannot connect to port {port} in the sandbox"), errno),
        })
    }

    fn listen(&self, port: u16) -> Result<(), Failure> {
        self.check_own_network()?;
        let result = cloudpilot_kernel::net::join::listen(&self.kernel.net, port);
        result.map_err(|errno| of_errno(format!("Cannot listen on port {port} in the sandbox"), errno))
    }

    fn accept(&self, port: u16, host: OwnedFd, over: Box<dyn Send>) -> Result<(), Failure> {
        let result = cloudpilot_kernel::net::join::accept(&self.kernel.net, port, host, over);
        result.map_err(|errno| of_errno(format!("Nobody was served on port {port} in the sandbox"), errno))
    }

    fn processes(&self) -> Vec<Value> {
        let processes = self.kernel.tasks.processes().into_iter().filter(|process| !process.is_init());
        processes.map(|process| describe(&process)).collect()
    }

    fn stats(&self) -> Value {
        let kernel = &self.kernel;
        let (mut user, mut system) = cpu_time(kernel);
        user += kernel.system.dead_user_ns.load(std::sync::atomic::Ordering::Relaxed);
        system += kernel.system.dead_system_ns.load(std::sync::atomic::Ordering::Relaxed);
        let names = cloudpilot_abi::syscall::NAMES;
        let name = |number: u32| names.iter().find(|entry| entry.0 == number).map_or("?", |entry| entry.1);
        let unsupported: serde_json::Map<String, Value> =
            kernel.unsupported.counts().into_iter().map(|(number, count)| (name(number).to_owned(), json!(count))).collect();
        let activity = kernel.activity();
        json!({
            "memory_bytes": kernel.memory.bytes_in_use(),
            "memory_limit_bytes": kernel.limits.memory_bytes,
            "cpu_user_ns": user,
            "cpu_system_ns": system,
            "io": flow(activity.calls, ["read_bytes", "written_bytes", "reads", "writes"]),
            "storage": flow(activity.storage, ["read_bytes", "written_bytes", "reads", "writes"]),
            "network": flow(activity.network, ["received_bytes", "sent_bytes", "received_packets", "sent_packets"]),
            "loopback": flow(activity.loopback, ["received_bytes", "sent_bytes", "received_packets", "sent_packets"]),
            "cpus": kernel.cpu_count(),
            "processes": kernel.tasks.processes().len() - 1,
            "threads": kernel.tasks.count() - 1,
            "processes_limit": kernel.limits.processes,
            "uptime_ns": kernel.system.uptime_ns(),
            "unsupported_system_calls": unsupported,
            "system_calls_known": syscall::table::table().len(),
        })
    }

    fn files(&self) -> &dyn Files {
        &self.files
    }
}

/// Bytes in and out, operations in and out, by names.
fn flow(flow: Flow, names: [&str; 4]) -> Value {
    let values = [flow.bytes_in, flow.bytes_out, flow.operations_in, flow.operations_out];
    names.into_iter().zip(values).map(|(name, value)| (name.to_owned(), json!(value))).collect::<serde_json::Map<_, _>>().into()
}

fn cpu_time(kernel: &Kernel) -> (u64, u64) {
    kernel.tasks.tasks().iter().fold((0, 0), |(user, system), task| {
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
        (user + load(&task.user_ns), system + load(&task.system_ns))
    })
}

fn describe(process: &Process) -> Value {
    let (leader, parent, threads, state) = {
        let family = process.family.lock();
        let state = if family.exit.is_some() {
            "zombie"
        } else if family.stopped {
            "stopped"
        } else {
            "alive"
        };
        (family.tasks.first().cloned(), family.parent.upgrade().map_or(0, |parent| parent.pid), family.tasks.len(), state)
    };
    let name = leader.as_ref().map_or_else(String::new, |task| String::from_utf8_lossy(&task.name.lock()).into_owned());
    let args: Vec<String> = leader.as_ref().map_or_else(Vec::new, |task| {
        let line = task.mm().map_or_else(|_| Vec::new(), |mm| command_line(&mm));
        line.strip_suffix(&[0]).unwrap_or(&line).split(|byte| *byte == 0).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect()
    });
    let uid = leader.as_ref().map_or(0, |task| task.credentials().euid);
    json!({"pid": process.pid, "parent": parent, "name": name, "args": args, "uid": uid, "threads": threads, "state": state})
}

/// A user inside, for what files it may reach.
pub fn credentials(kernel: &Kernel, user: &User) -> Result<cloudpilot_kernel::task::Credentials, Errno> {
    let init = kernel.init().ok_or(Errno::ESRCH)?;
    kernel.credentials_of(&init, user).map_err(|error| match error {
        SpawnError::Failed(errno) => errno,
        _ => Errno::EINVAL,
    })
}
