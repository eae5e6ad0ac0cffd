//! Starting a sandbox: what the supervisor prepares, and the birth of the kernel process.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use cloudpilot_jail::cgroup::{self, Cgroup};
use cloudpilot_jail::namespaces::{self, Child, Identity, Namespaces, Side};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions};

use crate::config::{Config, Network};
use crate::failure::Failure;
use crate::host_root;
use crate::janitor::Janitor;
use crate::kernel_process::{self, Birth, Streams};
use crate::machine::Boot;
use crate::news;
use crate::packet;
use crate::state::{self, Remnants};

/// A sandbox that is about to run, as its supervisor sees it.
pub struct Started {
    /// The kernel process.
    pub kernel: Child,
    /// News come from here, and requests of the control protocol go there.
    pub link: OwnedFd,
    /// What the kernel process says on its way out: panics, the allocator's complaints.
    pub last_words: OwnedFd,
    /// Its control groups.
    pub cgroup: Option<Cgroup>,
    /// What is to be removed.
    pub remnants: Remnants,
    /// Cleans up if we cannot.
    pub janitor: Janitor,
}

/// What was done so far, and is undone if a later step fails.
#[derive(Default)]
struct Undo {
    directory: Option<PathBuf>,
    cgroups: Vec<PathBuf>,
    kernel: Option<Pid>,
}

impl Undo {
    fn forget(&mut self) {
        self.directory = None;
        self.cgroups.clear();
        self.kernel = None;
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if let Some(kernel) = self.kernel {
            let _ = rustix::process::kill_process(kernel, Signal::KILL);
            let _ = rustix::process::waitpid(Some(kernel), WaitOptions::empty());
        }
        // A failure is being reported already; the next start sweeps.
        if let Some(directory) = &self.directory {
            let _ = state::remove_directory(directory);
        }
        let _ = cgroup::remove(&self.cgroups);
    }
}

/// Starts the kernel process. `streams` are what its first program reads and writes.
pub fn start(config: &Config, streams: Streams, boot: Boot) -> Result<Started, Failure> {
    let mut remnants = Remnants { directory: config.state_dir.clone(), cgroups: Vec::new() };
    let mut undo = Undo::default();
    let limits = cgroup::Limits {
        memory_bytes: config.limits.memory_bytes,
        cpus: config.limits.cpus,
        processes: config.limits.processes.map(u64::from),
    };
    let cgroup = Cgroup::create(&format!("cloudpilot-{}", config.id), &limits)?;
    remnants.cgroups = cgroup.as_ref().map_or(Vec::new(), |cgroup| cgroup.directories().to_vec());
    undo.cgroups.clone_from(&remnants.cgroups);

    let identity = Identity::choose(host_root::is_for_everybody(config), &config.id);
    // Root opens what is shown while it is still root; others get the right to only inside their user namespace.
    let opened = if identity.privileged { Some(host_root::open(config)?) } else { None };
    let borrowed = host_root::Borrowed::read(config);
    let pipe = || pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(|error| Failure::host("Cannot make a pipe", error));
    let (last_words, errors) = pipe()?;
    let (link, kernel_link) = packet::pair().map_err(|error| Failure::host("Cannot make a socket pair", error))?;

    let mut namespaces = Namespaces { user: true, network: config.network == Network::None };
    let unified = || cgroup.as_ref().and_then(Cgroup::unified).map(AsFd::as_fd);
    // SAFETY: the supervisor has this one thread.
    let mut side = unsafe { namespaces::clone(namespaces, unified()) };
    if side.is_err() && identity.privileged {
        // Root needs no user namespace; where they are switched off the others still hold.
        namespaces.user = false;
        // SAFETY: as above.
        side = unsafe { namespaces::clone(namespaces, unified()) };
    }
    let kernel = match side? {
        Side::Parent(kernel) => kernel,
        Side::Child => {
            drop(link);
            undo.forget();
            kernel_process::run(Birth { config, identity, namespaces, opened, borrowed, streams, link: kernel_link, errors, boot })
        }
    };
    drop((kernel_link, errors, opened));
    // From here on both sides work at the same time.
    undo.kernel = Some(kernel.pid);
    if namespaces.user {
        identity.write_maps(kernel.pid)?;
    }
    if let Some(cgroup) = &cgroup {
        cgroup.add(kernel.pid)?;
    }
    let listener = state::create(&config.state_dir)?;
    undo.directory = Some(config.state_dir.clone());
    // If it is dead already, it has said why on the link.
    let _ = packet::hand_over(&link, news::GO, listener.as_fd());
    drop(listener);
    let janitor = Janitor::hire(&kernel.handle, &remnants)?;
    if let Err(failure) = state::write_record(config, kernel.pid.as_raw_nonzero().get(), &remnants) {
        drop(undo);
        janitor.dismiss();
        return Err(failure);
    }
    undo.forget();
    Ok(Started { kernel, link, last_words, cgroup, remnants, janitor })
}

/// Nothing to read, nowhere to write.
pub fn null_device() -> Result<OwnedFd, Failure> {
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| Failure::host("Cannot open `/dev/null`", error))
}
