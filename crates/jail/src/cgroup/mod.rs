//! Control groups, versions 1 and 2: made only when a limit asks for one, removed at the end.
//!
//! Memory and processes are limited by our own kernel first, which tells the guest so; the host's limit is the second layer, against a kernel
//! process gone wrong. CPU time only the host can limit.

mod find;
mod version1;
mod version2;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::JailError;
pub use find::{Hierarchies, Version1};

/// Host memory that a sandbox may take beyond its guest's: our kernel's own objects and stacks, page tables, the stubs. With what each process
/// may take it is larger than any of that for a guest within its process limit, so that our own out-of-memory killer always comes first.
const MEMORY_OVERHEAD: u64 = 256 << 20;
/// What each guest process may take of it: 0.2 MiB were measured for forks of Python, most of it page tables and the host's own stacks.
const PROCESS_OVERHEAD: u64 = 320 << 10;
/// Host threads per guest thread (its stub's and our kernel's), and those of a kernel process without guests, with those of the programs that
/// the outside may start though the guest uses all that it may.
const THREADS_PER_GUEST: u64 = 2;
const THREADS_OWN: u64 = 256;
/// Guest processes where nothing is said, as the kernel has it.
const USUAL_PROCESSES: u64 = 4096;
/// The period in which a share of CPU time is counted, microseconds: the host's default.
const PERIOD: u64 = 100_000;
/// Smallest quota that the host takes, microseconds.
const SMALLEST_QUOTA: u64 = 1_000;
/// How long the removal of a control group is tried: the host may still be at work on its last processes.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(2);

/// What is limited.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Guest memory, bytes.
    pub memory_bytes: Option<u64>,
    /// CPUs' worth of time.
    pub cpus: Option<f64>,
    /// Guest processes and threads.
    pub processes: Option<u64>,
}

impl Limits {
    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.memory_bytes.is_none() && self.cpus.is_none() && self.processes.is_none()
    }

    fn memory(&self) -> Option<u64> {
        let processes = self.processes.unwrap_or(USUAL_PROCESSES).saturating_mul(PROCESS_OVERHEAD);
        self.memory_bytes.map(|bytes| bytes.saturating_add(MEMORY_OVERHEAD).saturating_add(processes))
    }

    fn quota(&self) -> Option<u64> {
        self.cpus.map(|cpus| ((cpus * PERIOD as f64) as u64).max(SMALLEST_QUOTA))
    }

    fn threads(&self) -> Option<u64> {
        self.processes.map(|processes| processes.saturating_mul(THREADS_PER_GUEST).saturating_add(THREADS_OWN))
    }
}

/// The control groups of a sandbox: one directory per hierarchy of version 1, or one of version 2.
#[derive(Debug)]
pub struct Cgroup {
    directories: Vec<PathBuf>,
    unified: Option<OwnedFd>,
}

impl Cgroup {
    /// Makes what the limits need. Without the right to, only a limit of CPU time is an error; the others hold by our kernel.
    pub fn create(name: &str, limits: &Limits) -> Result<Option<Self>, JailError> {
        if limits.is_empty() {
            return Ok(None);
        }
        let result = Hierarchies::find().and_then(|hierarchies| match hierarchies.unified_controls(limits) {
            true => version2::create(&hierarchies, name, limits),
            false => version1::create(&hierarchies, name, limits),
        });
        match result {
            Ok(cgroup) => Ok(Some(cgroup)),
            Err(_) if limits.cpus.is_none() => Ok(None),
            Err(error) => Err(JailError::new("Cannot limit CPU time by a control group", error).hint(
                "start as root, or in a delegated group (`systemd-run --user --scope -p Delegate=yes pilot …`), or leave out the CPU limit",
            )),
        }
    }

    /// To be born into, with version 2.
    pub fn unified(&self) -> Option<&OwnedFd> {
        self.unified.as_ref()
    }

    /// Moves a process in, with version 1.
    pub fn add(&self, process: Pid) -> Result<(), JailError> {
        if self.unified.is_some() {
            return Ok(());
        }
        let number = process.as_raw_nonzero().to_string();
        self.directories.iter().try_for_each(|directory| {
            fs::write(directory.join("cgroup.procs"), &number)
                .map_err(|error| JailError::new(format!("Cannot move the sandbox into `{}`", directory.display()), error))
        })
    }

    /// Whether the host's out-of-memory killer struck in here.
    pub fn out_of_memory(&self) -> bool {
        let killed = |path: PathBuf| {
            let text = fs::read_to_string(path).unwrap_or_default();
            text.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0"))
        };
        self.directories.iter().any(|directory| killed(directory.join("memory.events")) || killed(directory.join("memory.oom_control")))
    }

    /// Where it lies, for whoever cleans up after us.
    pub fn directories(&self) -> &[PathBuf] {
        &self.directories
    }
}

/// Removes control groups; what is gone already counts as removed.
pub fn remove(directories: &[PathBuf]) -> io::Result<()> {
    let deadline = Instant::now() + REMOVAL_PATIENCE;
    for directory in directories {
        loop {
            match fs::remove_dir(directory) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Makes a group and sets its files; undone if one of them is refused.
fn make(directory: &Path, settings: &[(&str, String)]) -> io::Result<()> {
    fs::create_dir(directory)?;
    settings.iter().try_for_each(|(file, value)| fs::write(directory.join(file), value)).inspect_err(|_| {
        let _ = fs::remove_dir(directory);
    })
}
