//! The kernel process, from its birth until it serves: into the jail, boot, the filter, the program.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use cloudpilot_jail::calls::Needs;
use cloudpilot_jail::landlock::{self, Reachable};
use cloudpilot_jail::namespaces::{Identity, Namespaces};
use cloudpilot_jail::privileges::{self, GuestLimits};
use cloudpilot_jail::{root, seccomp};
use cloudpilot_kernel::Interference;
use cloudpilot_kernel::config::{self as kernel, BootConfig, ExitStatus, Program, Stdio};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::Timespec;

use crate::config::{Config, Limits, Network};
use crate::control;
use crate::failure::{Code, Failure};
use crate::host_root::{self, Borrowed, Opened};
use crate::machine::{Boot, Machine};
use crate::news::{GO, News};
use crate::packet::{self, Received};
use crate::signals;

/// Guest memory where no limit is given: this part of the machine's. The rest is the host's own.
const DEFAULT_MEMORY_PART: u64 = 2;
/// Processes and threads where no limit is given: plenty for builds, and a fork bomb of that size leaves the host usable.
const DEFAULT_PROCESSES: u32 = 4096;
/// Open files a process where no limit is given, as systemd has it for services.
const DEFAULT_OPEN_FILES: u32 = 524_288;
/// One in-memory filesystem may take this part of guest memory where no limit is given, as on Linux.
const DEFAULT_TMPFS_PART: u64 = 2;
/// Most CPUs that a guest is told of.
const MOST_CPUS: u32 = 64;

/// Exit status of a kernel process that panicked.
pub const STATUS_PANIC: i32 = seccomp::STATUS_FAULT;

/// What a program's standard streams are.
#[derive(Debug, Clone, Copy)]
pub enum Streams {
    /// Our own.
    Own,
    /// Nothing.
    Null,
    /// A terminal bridged to our own, with this many rows and columns.
    Terminal(u16, u16),
}

/// What a kernel process is born with.
pub struct Birth<'a> {
    /// What it is to be.
    pub config: &'a Config,
    /// Who it becomes.
    pub identity: Identity,
    /// Where it was born.
    pub namespaces: Namespaces,
    /// What of the host is shown, if its supervisor had the right to open that.
    pub opened: Option<Opened>,
    /// What of the host's files goes into those that the sandbox provides.
    pub borrowed: Borrowed,
    /// The program's standard streams.
    pub streams: Streams,
    /// To the supervisor, which sends the control socket along with its word to go on.
    pub link: OwnedFd,
    /// Where last words go.
    pub errors: OwnedFd,
    /// Makes the kernel.
    pub boot: Boot,
}

/// Runs the kernel process.
pub fn run(mut birth: Birth<'_>) -> ! {
    signals::unblock();
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        // Aborting would take a signal that the first process of a PID namespace is immune to.
        end(STATUS_PANIC)
    }));
    let Ok(link) = birth.link.try_clone() else { end(1) };
    let link = Arc::new(std::mem::replace(&mut birth.link, link));
    let Err(failure) = live(birth, &link);
    let _ = packet::send(&link, &News::Failed(failure));
    end(1)
}

fn end(status: i32) -> ! {
    // SAFETY: ends the process; nothing is left that a destructor would have to do.
    unsafe { libc::_exit(status) }
}

fn live(birth: Birth<'_>, link: &Arc<OwnedFd>) -> Result<Infallible, Failure> {
    let Birth { config, identity, namespaces, opened, borrowed, streams, errors, boot, .. } = birth;
    privileges::die_with_parent()?;
    // A terminal's signals go to its supervisor, which hands them on.
    rustix::process::setsid().map_err(|error| Failure::host("Cannot leave the starter's session", error))?;
    let stdio = take_streams(streams).and_then(|stdio| give_streams(&errors).map(|()| stdio));
    let stdio = stdio.map_err(|error| Failure::host("Cannot take over the standard streams", error))?;
    let strace = config.strace.then(|| stdio_error(&stdio)).flatten();
    cloudpilot_kernel::Kernel::look_around();
    namespaces.enter_network()?;
    let listener = await_go(link);
    let opened = match opened {
        Some(opened) => opened,
        None => host_root::open(config)?,
    };
    let leaving = root::leave_host(namespaces.user)?;
    privileges::drop_all(&identity)?;
    // The change of user undid the first.
    privileges::die_with_parent()?;
    supervisor_lives(link)?;
    let limits = limits(&config.limits);
    privileges::set_limits(GuestLimits { processes: limits.processes, memory_bytes: limits.memory_bytes })?;
    close_others(&opened, &stdio, [Some(&listener), Some(link.as_ref()), strace.as_ref()])?;
    let reachable: Vec<_> = opened.handles().map(reachable).collect::<Result<_, _>>()?;
    landlock::confine(&reachable, config.network == Network::Host)?;
    drop(reachable);
    let machine = boot(boot_config(config, limits, opened, borrowed, strace, link))?;
    let told = Arc::clone(link);
    machine.on_notice(Box::new(move |message| {
        let _ = packet::send(&told, &News::Notice { message: message.to_owned() });
    }));
    leaving.finish()?;
    seccomp::name_last_words();
    let writable_volume = config.volumes.iter().any(|volume| !volume.readonly);
    seccomp::install(&seccomp::program(Needs { writable_volume, network: config.network == Network::Host }))?;
    let pid = match &config.args {
        Some(args) => Some(start_program(config, args, stdio, &machine, link)?),
        None => None,
    };
    let _ = packet::send(link, &News::Ready { pid, supervisor_pid: 0, kernel_pid: 0 });
    control::serve(&machine, listener, Arc::clone(link))
}

/// The program's streams, out of the way of descriptors 0 to 2.
fn take_streams(streams: Streams) -> Result<Stdio, Errno> {
    let take = |stream: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(stream, 3);
    Ok(match streams {
        Streams::Null => Stdio::Host([None, None, None]),
        Streams::Own => {
            let [input, output, error] = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
            Stdio::Host([Some(take(input)?), Some(take(output)?), Some(take(error)?)])
        }
        Streams::Terminal(rows, columns) => {
            Stdio::Terminal { input: take(rustix::stdio::stdin())?, output: take(rustix::stdio::stdout())?, rows, columns }
        }
    })
}

/// What we ourselves say there goes to the supervisor: the program may close its streams, and then the numbers would lead anywhere.
fn give_streams(errors: &OwnedFd) -> Result<(), Errno> {
    rustix::stdio::dup2_stdin(errors)?;
    rustix::stdio::dup2_stdout(errors)?;
    rustix::stdio::dup2_stderr(errors)
}

fn stdio_error(stdio: &Stdio) -> Option<OwnedFd> {
    match stdio {
        Stdio::Host([_, _, error]) => error.as_ref()?.try_clone().ok(),
        Stdio::Terminal { output, .. } => output.try_clone().ok(),
    }
}

/// Waits until users are mapped and limits are set; answers the control socket.
fn await_go(link: &OwnedFd) -> OwnedFd {
    match packet::receive(link.as_fd()) {
        Ok(Received::Message(word, descriptors)) if word == GO => descriptors.into_iter().next().unwrap_or_else(|| end(1)),
        _ => end(1),
    }
}

/// It may have died between its child's birth and the child's wish to die with it.
fn supervisor_lives(link: &OwnedFd) -> Result<(), Failure> {
    let mut descriptor = [PollFd::new(link, PollFlags::empty())];
    match poll(&mut descriptor, Some(&Timespec::default())) {
        Ok(0) => Ok(()),
        _ => end(1),
    }
}

fn close_others(opened: &Opened, stdio: &Stdio, others: [Option<&OwnedFd>; 3]) -> Result<(), Failure> {
    let mut kept = vec![rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    kept.extend(opened.handles().map(|(handle, _)| handle.as_fd()));
    kept.extend(others.into_iter().flatten().map(AsFd::as_fd));
    match stdio {
        Stdio::Host(streams) => kept.extend(streams.iter().flatten().map(AsFd::as_fd)),
        Stdio::Terminal { input, output, .. } => kept.extend([input.as_fd(), output.as_fd()]),
    }
    Ok(privileges::close_all_except(&kept)?)
}

fn reachable((handle, writable): (&OwnedFd, bool)) -> Result<Reachable<BorrowedFd<'_>>, Failure> {
    let status = rustix::fs::fstat(handle).map_err(|error| Failure::host("Cannot look at what is shown inside", error))?;
    let directory = rustix::fs::FileType::from_raw_mode(status.st_mode) == rustix::fs::FileType::Directory;
    Ok(Reachable { handle: handle.as_fd(), directory, writable })
}

fn boot_config(
    config: &Config,
    limits: kernel::Limits,
    opened: Opened,
    borrowed: Borrowed,
    strace: Option<OwnedFd>,
    link: &Arc<OwnedFd>,
) -> BootConfig {
    let link = Arc::clone(link);
    BootConfig {
        hostname: config.hostname.clone(),
        root: opened.root,
        volumes: opened.volumes,
        limits,
        network: match config.network {
            Network::None => kernel::Network::None,
            Network::Host => kernel::Network::Host,
        },
        provided_files: host_root::provided_files(config, borrowed),
        patches_calls: config.patch_calls,
        strace,
        on_interference: Box::new(move |what| end_broken(&link, what)),
    }
}

/// Ends the sandbox because somebody on the host killed or stopped a part of it: what is left cannot be trusted to make progress.
fn end_broken(link: &OwnedFd, what: Interference) -> ! {
    let done = match what {
        Interference::Killed => "killed",
        Interference::Stopped => "stopped",
    };
    let failure = Failure::new(Code::Ended, format!("A process of the sandbox was {done} by somebody on the host")).hint(
        if what == Interference::Killed {
            "if nobody did, the host ran out of memory"
        } else {
            "stop and continue all of its processes, or none"
        },
    );
    let _ = packet::send(link, &News::Broken(failure));
    end(1)
}

fn limits(given: &Limits) -> kernel::Limits {
    let system = rustix::system::sysinfo();
    let machine = system.totalram.saturating_mul(u64::from(system.mem_unit));
    let memory_bytes = given.memory_bytes.unwrap_or(machine / DEFAULT_MEMORY_PART);
    let available = rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count());
    let cpus = given.cpus.map_or(available, |cpus| (cpus.ceil() as u32).min(available)).clamp(1, MOST_CPUS);
    kernel::Limits {
        memory_bytes,
        processes: given.processes.unwrap_or(DEFAULT_PROCESSES),
        open_files: given.open_files.unwrap_or(DEFAULT_OPEN_FILES),
        tmpfs_bytes: given.tmpfs_bytes.unwrap_or(memory_bytes / DEFAULT_TMPFS_PART),
        cpus,
    }
}

/// Starts the program whose end is the sandbox's.
fn start_program(config: &Config, args: &[String], stdio: Stdio, machine: &Arc<dyn Machine>, link: &Arc<OwnedFd>) -> Result<i32, Failure> {
    let program = Program {
        args: args.iter().map(|arg| arg.clone().into_bytes()).collect(),
        env: config.env.iter().map(|(key, value)| format!("{key}={value}").into_bytes()).collect(),
        workdir: config.workdir.clone().into_bytes(),
        user: kernel::User::Ids { uid: config.user.uid, gid: config.user.gid },
        stdio,
    };
    let pid = machine.spawn(program)?;
    let link = Arc::clone(link);
    let report = move |status| {
        let _ = packet::send(&link, &exited(pid, status));
        end(0)
    };
    let watched = machine.on_exit(pid, Box::new(report));
    watched.map_err(|_| Failure::new(Code::Internal, "The program was lost right after its start"))?;
    Ok(pid)
}

/// The news of a program's end.
pub fn exited(pid: i32, status: ExitStatus) -> News {
    match status {
        ExitStatus::Exited(code) => News::Exited { pid, exit_code: Some(code), signal: None },
        ExitStatus::Signaled(signal) => News::Exited { pid, exit_code: None, signal: Some(signal) },
    }
}

/// Ends the sandbox because somebody asked for it.
pub fn shut_down(link: &OwnedFd) -> ! {
    let news = News::Ended { reason: crate::news::Reason::Shutdown, exit_code: None, signal: None, message: None };
    let _ = packet::send(link, &news);
    end(0)
}
