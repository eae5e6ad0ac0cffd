//! A sandbox's directory on the host: its control socket and what it tells about itself. Whatever is left of sandboxes that were killed together
//! with all that watched over them is swept away by the next one.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cloudpilot_jail::cgroup;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::failure::Failure;

const SOCKET: &str = "control.sock";
const RECORD: &str = "sandbox.json";
const RECORD_BEING_WRITTEN: &str = "sandbox.json.new";
/// Clients that may wait to be accepted.
const BACKLOG: i32 = 16;
/// A directory without a record is that of a sandbox about to start, unless it is older than any start takes.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// What a sandbox tells about itself.
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    /// Unique name.
    pub id: String,
    /// The user's name for it.
    pub name: Option<String>,
    /// First program.
    pub args: Option<Vec<String>>,
    /// Process that watches over it.
    pub supervisor_pid: i32,
    /// When that process started, in the host's clock ticks since boot: numbers are used again.
    pub supervisor_start: u64,
    /// The kernel process.
    pub kernel_pid: i32,
    /// Seconds since 1970.
    pub created: f64,
    /// User on the host who started it.
    pub user: u32,
    /// What `--rootfs` named, or `host`.
    pub root: String,
    /// `none` or `host`.
    pub network: String,
    /// Control groups to be removed with it.
    pub cgroups: Vec<PathBuf>,
}

/// What must be gone when a sandbox is.
#[derive(Debug, Clone)]
pub struct Remnants {
    /// Its directory.
    pub directory: PathBuf,
    /// Its control groups.
    pub cgroups: Vec<PathBuf>,
}

impl Remnants {
    /// Removes them; what is gone already does not matter.
    pub fn remove(&self) -> io::Result<()> {
        let directory = remove_directory(&self.directory);
        cgroup::remove(&self.cgroups).and(directory)
    }
}

/// Removes a sandbox's directory; what is gone already does not matter.
pub fn remove_directory(directory: &Path) -> io::Result<()> {
    for file in [SOCKET, RECORD, RECORD_BEING_WRITTEN] {
        ignore_missing(fs::remove_file(directory.join(file)))?;
    }
    ignore_missing(fs::remove_dir(directory))
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn refused(what: &str, path: &Path, error: impl Into<io::Error>) -> Failure {
    let error = error.into();
    let kind = error.kind();
    let failure = Failure::host(format!("Cannot {what} `{}`", path.display()), error);
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            failure.hint("free some space there, or let XDG_RUNTIME_DIR name a directory with space")
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            failure.hint("let XDG_RUNTIME_DIR name a directory that you may write to")
        }
        io::ErrorKind::AlreadyExists => failure.hint("a sandbox with this id runs already, or its remains could not be removed"),
        io::ErrorKind::InvalidFilename => failure.hint("let XDG_RUNTIME_DIR name a directory with a shorter path"),
        _ => failure,
    }
}

/// Makes the directory and listens on the control socket in it.
pub fn create(directory: &Path) -> Result<OwnedFd, Failure> {
    if let Some(parent) = directory.parent() {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(parent);
        made.map_err(|error| refused("make the state directory", parent, error))?;
        check_owner(parent)?;
    }
    DirBuilder::new().mode(0o700).create(directory).map_err(|error| refused("make the state directory", directory, error))?;
    listen(&directory.join(SOCKET)).inspect_err(|_| {
        let _ = remove_directory(directory);
    })
}

/// In a directory that others may write to, somebody could put their own socket in our socket's place. The one above may be root's.
fn check_owner(directory: &Path) -> Result<(), Failure> {
    let user = rustix::process::geteuid().as_raw();
    for (directory, owners) in [(Some(directory), [user, user]), (directory.parent(), [user, 0])] {
        let Some(directory) = directory else { continue };
        let metadata = fs::metadata(directory).map_err(|error| refused("look at", directory, error))?;
        let sticky = metadata.mode() & 0o1000 != 0;
        if !owners.contains(&metadata.uid()) || (metadata.mode() & 0o022 != 0 && !sticky) {
            let message = format!("The state directory `{}` belongs to somebody else, or others may write to it", directory.display());
            return Err(Failure::invalid(message).hint("let XDG_RUNTIME_DIR name a directory of your own"));
        }
    }
    Ok(())
}

fn listen(path: &Path) -> Result<OwnedFd, Failure> {
    let steps = || {
        let address = SocketAddrUnix::new(path)?;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        rustix::net::bind(&socket, &address)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(socket)
    };
    steps().map_err(|error: rustix::io::Errno| refused("listen on", path, error))
}

/// Writes down what the sandbox tells about itself; readers see all of it or nothing.
pub fn write_record(config: &Config, kernel_pid: i32, remnants: &Remnants) -> Result<(), Failure> {
    let supervisor_pid = rustix::process::getpid().as_raw_nonzero().get();
    let record = Record {
        id: config.id.clone(),
        name: config.name.clone(),
        args: config.args.clone(),
        supervisor_pid,
        supervisor_start: start_time(supervisor_pid).unwrap_or(0),
        kernel_pid,
        created: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64()),
        user: rustix::process::getuid().as_raw(),
        root: match &config.root {
            crate::config::Root::Host => "host".to_owned(),
            crate::config::Root::Directory { path, .. } => path.display().to_string(),
        },
        network: if config.network == crate::config::Network::Host { "host" } else { "none" }.to_owned(),
        cgroups: remnants.cgroups.clone(),
    };
    let text = serde_json::to_vec(&record).map_err(|error| Failure::invalid(error.to_string()))?;
    let (new, path) = (remnants.directory.join(RECORD_BEING_WRITTEN), remnants.directory.join(RECORD));
    fs::write(&new, text).and_then(|()| fs::rename(&new, &path)).map_err(|error| refused("write", &path, error))
}

/// When a process started; none if there is no such process.
fn start_time(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, parentheses and spaces included; the start time is the 20th field behind it.
    text[text.rfind(')')? + 2..].split(' ').nth(19)?.parse().ok()
}

/// Removes what is left of sandboxes whose supervisors were killed with all their watchers.
pub fn sweep(directory: &Path) {
    let Some(parent) = directory.parent() else { return };
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path == directory {
            continue;
        }
        let record = fs::read(path.join(RECORD)).ok().and_then(|text| serde_json::from_slice::<Record>(&text).ok());
        let stale = match &record {
            Some(record) => start_time(record.supervisor_pid) != Some(record.supervisor_start),
            None => {
                entry.metadata().and_then(|data| data.modified()).is_ok_and(|time| time.elapsed().is_ok_and(|age| age > START_PATIENCE))
            }
        };
        if stale {
            // Not ours to complain about: the next sweep tries again.
            let _ = Remnants { directory: path, cgroups: record.map_or(Vec::new(), |record| record.cgroups) }.remove();
        }
    }
}
