//! Guests as host processes whose every system call traps.
//!
//! A guest address space is a *stub process*: it shares the kernel process's descriptors, maps guest memory where our kernel says, and runs the
//! program's own code. A seccomp filter turns each of its system calls into SIGSYS; the handler, alone in a page that the guest cannot change,
//! leaves the registers in the thread's *slot* (memory shared with the kernel process), hands over the turn and waits for it to come back.
//!
//! Lock order: `Slots::used`, then `Slots::freed`.

mod birth;
pub mod filter;
pub mod layout;
mod slots;
mod stub;
mod thread;
mod wait;

use std::io;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::{AddressLimits, GuestThread, Platform, SpawnError};
use layout::{GUEST_END, GUEST_START};
use slots::Slots;
use thread::SystrapThread;

pub use birth::{HostVdso, find_vdso};
pub use wait::{load, pause};

/// What all guest threads of a sandbox share.
pub(crate) struct Shared {
    slots: Slots,
    /// Descriptor number of the memory file.
    memory: i32,
    /// Start and end of the vDSO with its data, and its ELF header.
    vdso: Option<(u64, u64, u64)>,
}

/// Where stubs come from.
struct Nursery {
    /// A stub with an empty address space that others are made from. It is born before the kernel process confines itself, since a stub's
    /// filter must not be stacked on the kernel's.
    zygote: SystrapThread,
    /// One that was made beforehand, so that the next program does not wait for it.
    spare: Option<Box<dyn GuestThread>>,
}

impl Nursery {
    fn prepare(&mut self) {
        if self.spare.is_none() {
            // Without one the next spawn says why.
            self.spare = self.zygote.fork_empty().ok();
        }
    }
}

/// The platform.
pub struct Systrap {
    shared: Arc<Shared>,
    nursery: Arc<OnceLock<io::Result<Mutex<Nursery>>>>,
}

impl Systrap {
    /// Prepares the stub's page, and has the first stub born and grow up meanwhile. Call before the kernel process installs its own filter, and
    /// [`settle`](Platform::settle) then. `vdso` comes from [`find_vdso`]. `on_interference` is told when somebody on the host kills or stops a
    /// stub.
    pub fn new(memory: i32, vdso: Option<&'static HostVdso>, on_interference: OnInterference) -> io::Result<Self> {
        load::cores();
        birth::map_stub_code()?;
        let shared = Arc::new(Shared { slots: Slots::new()?, memory, vdso: vdso.and_then(birth::moved) });
        let nursery = Arc::new(OnceLock::new());
        let (reaped, filled) = (Arc::clone(&shared), Arc::clone(&nursery));
        let work = move || {
            // The host kills a stub when the thread that bore it ends: this one lives as long as the process.
            let born = birth::FirstStub::bear(&reaped, vdso);
            let grown = born.and_then(|born| born.grow_up(&reaped)).map(|zygote| Mutex::new(Nursery { zygote, spare: None }));
            let grown = filled.get_or_init(|| grown);
            if let Ok(nursery) = grown {
                nursery.lock().prepare();
            }
            reap(&reaped, &on_interference);
        };
        std::thread::Builder::new().name("reaper".into()).stack_size(64 << 10).spawn(work)?;
        Ok(Self { shared, nursery })
    }
}

impl Platform for Systrap {
    fn spawn(&self) -> Result<Box<dyn GuestThread>, SpawnError> {
        let nursery = self.nursery.wait().as_ref().map_err(|_| SpawnError::Gone)?;
        let mut nursery = nursery.lock();
        match nursery.spare.take() {
            Some(spare) => Ok(spare),
            None => nursery.zygote.fork_empty(),
        }
    }

    fn prepare(&self) {
        if let Ok(nursery) = self.nursery.wait() {
            nursery.lock().prepare();
        }
    }

    fn settle(&self) -> io::Result<()> {
        match self.nursery.wait() {
            Ok(_) => Ok(()),
            // The error stays where it is for later questions.
            Err(error) => Err(error.raw_os_error().map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error)),
        }
    }

    fn address_limits(&self) -> AddressLimits {
        AddressLimits { lowest: GUEST_START, highest: GUEST_END, vdso: self.shared.vdso }
    }
}

/// What somebody on the host did to a stub. The guest cannot: no call that a stub may make sends a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interference {
    /// `SIGKILL`, by a user or by the host's out-of-memory killer.
    Killed,
    /// `SIGSTOP`, and not continued within [`STOP_GRACE`].
    Stopped,
}

/// Called by the thread that notices it.
pub type OnInterference = Box<dyn Fn(Interference) + Send>;

/// How long a stub may be stopped before that is taken for good: whoever stops and continues all processes of a sandbox does so one after the
/// other.
const STOP_GRACE: std::time::Duration = std::time::Duration::from_millis(400);

/// Waits for the ends of stub processes for as long as there are any, which is as long as the zygote lives.
fn reap(shared: &Shared, on_interference: &OnInterference) {
    use rustix::process::{WaitOptions, wait, waitpid};
    loop {
        let (pid, mut status) = match wait(WaitOptions::UNTRACED) {
            Ok(Some(found)) => found,
            Ok(None) | Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
        };
        if status.stopped() {
            wait::pause(STOP_GRACE);
            match waitpid(Some(pid), WaitOptions::NOHANG | WaitOptions::CONTINUED) {
                Ok(None) => {
                    on_interference(Interference::Stopped);
                    continue;
                }
                Ok(Some((_, next))) if !next.continued() => status = next,
                Ok(Some(_)) | Err(_) => continue,
            }
        }
        let number = pid.as_raw_nonzero().get();
        if status.terminating_signal() == Some(libc::SIGKILL) && shared.slots.should_live(number) {
            on_interference(Interference::Killed);
        }
        shared.slots.process_died(number);
    }
}
