//! Guest memory as address spaces: areas, what backs them, faults, copies.
//!
//! An address space is a map of *areas* (what `mmap(2)` made) and, beside it, a map of *extents*: the pages that exist, each a run of the memory
//! file. Host files are mapped by the stub itself and get extents only where the guest writes to a private mapping. The stub's own mappings
//! are a cache of both maps: whatever is missing there faults, and [`Mm::fault`] puts it right.
//!
//! Copy-on-write: after fork both sides' extents are marked and mapped read-only; who writes first gets a copy unless it is the only owner left.
//!
//! Lock order: `Mm::state`, then a memory object's pages, then the memory file's ranges. The stub's calls are made with `state` locked.

pub mod access;
mod advice;
mod area;
mod extents;
mod fault;
mod foreign;
mod fork;
mod map;
mod mapped;
mod patch;
pub mod policy;
mod protect;
mod remap;
pub mod report;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use cloudpilot_memory::{MemoryFile, Object, Range};
use cloudpilot_platform::AddressLimits;
use parking_lot::RwLock;

pub use area::{Area, Content, WriterMark};
pub use fault::FaultError;
pub use map::{MapRequest, Placement};
pub use patch::Within;
pub use report::{AreaInfo, Layout};

use crate::aio::Contexts;
use crate::vfs::write_access::RunAccess;
use extents::Extents;

/// What a file offers to `mmap(2)`.
#[derive(Clone)]
pub enum Mapping {
    /// Zeroes, private to each mapping (`/dev/zero` privately).
    Zero,
    /// Pages of our memory file: tmpfs, memfds, shared memory. Offset 0 of the file is offset 0 of the object.
    Object(Arc<Object>),
    /// The same of a file that can be sealed against writes: whoever may write through a shared mapping holds a mark.
    Sealable(Arc<Object>, WriterMark),
    /// The same of one that is sealed: shared mappings can only read.
    Sealed(Arc<Object>),
    /// A host file, mapped by the stub itself. Shared writable mappings only of files opened for writing in a volume.
    Host(Arc<OwnedFd>),
}

/// An address space.
pub struct Mm {
    /// Distinguishes address spaces in futex keys; never used again.
    pub id: u64,
    memory: Arc<MemoryFile>,
    limits: AddressLimits,
    state: RwLock<State>,
    /// Tasks that live here.
    users: AtomicUsize,
    /// Another task changed pages here: the stub's mappings of `State::pending` must be renewed before the guest runs on.
    stale: AtomicBool,
    /// Contexts of `io_setup(2)`.
    pub aio: Contexts,
    /// Itself, as objects know it whose pages it maps.
    this: Weak<Mm>,
}

struct State {
    areas: BTreeMap<u64, Area>,
    extents: Extents,
    layout: Layout,
    auxiliary_vector: Vec<u64>,
    /// Where the search for free addresses starts, downwards.
    mmap_top: u64,
    /// Below what was placed last: where the next placement is likely to succeed at once.
    hint: u64,
    /// Sum of the areas' sizes, for `RLIMIT_AS`.
    mapped: u64,
    /// Patched system-call sites.
    sites: patch::Sites,
    /// Ranges whose mappings in the stub are out of date.
    pending: Vec<(u64, u64)>,
    /// Ranges whose mappings in the stub show pages that a file has lost.
    gone: Vec<(u64, u64)>,
    /// Those pages: given back once the stub lets go of them.
    doomed: Vec<Range>,
    /// `mlockall(MCL_FUTURE)`.
    lock_future: bool,
    /// Keeps writers away from the program's file.
    program: Option<Arc<RunAccess>>,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Mm {
    /// An empty address space.
    pub fn new(memory: &Arc<MemoryFile>, limits: AddressLimits) -> Arc<Self> {
        let state = State {
            areas: BTreeMap::new(),
            extents: Extents::default(),
            layout: Layout::default(),
            auxiliary_vector: Vec::new(),
            mmap_top: limits.highest,
            hint: limits.highest,
            mapped: 0,
            sites: patch::Sites::default(),
            pending: Vec::new(),
            gone: Vec::new(),
            doomed: Vec::new(),
            lock_future: false,
            program: None,
        };
        Self::from_state(memory, limits, state)
    }

    fn from_state(memory: &Arc<MemoryFile>, limits: AddressLimits, state: State) -> Arc<Self> {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Arc::new_cyclic(|this| Self {
            id,
            memory: Arc::clone(memory),
            limits,
            state: RwLock::new(state),
            users: AtomicUsize::new(1),
            stale: AtomicBool::new(false),
            aio: Contexts::default(),
            this: Weak::clone(this),
        })
    }

    /// One more task lives here (`CLONE_VM`); a new address space has one.
    pub fn join(&self) {
        self.users.fetch_add(1, Ordering::SeqCst);
    }

    /// One task less; tells whether it was the last.
    pub fn leave(&self) -> bool {
        self.users.fetch_sub(1, Ordering::SeqCst) == 1
    }

    /// Whether more than one task lives here.
    pub fn is_shared(&self) -> bool {
        self.users.load(Ordering::SeqCst) > 1
    }

    /// What guests may map, and where the vDSO is.
    pub fn limits(&self) -> AddressLimits {
        self.limits
    }

    /// Notes where exec put things.
    pub fn set_layout(&self, layout: Layout, auxiliary_vector: Vec<u64>) {
        let mut state = self.state.write();
        state.layout = layout;
        state.auxiliary_vector = auxiliary_vector;
    }

    /// Changes the layout (`brk(2)`, `prctl(PR_SET_MM)`).
    pub fn update_layout(&self, change: impl FnOnce(&mut Layout)) {
        change(&mut self.state.write().layout);
    }

    /// Notes what program runs here.
    pub fn set_program(&self, access: &Arc<RunAccess>) {
        self.state.write().program = Some(Arc::clone(access));
    }

    /// Where the search for free addresses starts, downwards: below the stack.
    pub fn set_mmap_top(&self, top: u64) {
        let mut state = self.state.write();
        state.mmap_top = top;
        state.hint = top;
    }

    /// Bytes of all areas.
    pub fn mapped_bytes(&self) -> u64 {
        self.state.read().mapped
    }

    /// Bytes that exist in the memory file on behalf of this address space, shared ones included.
    pub fn resident_bytes(&self) -> u64 {
        self.state.read().extents.total()
    }
}

impl Drop for Mm {
    fn drop(&mut self) {
        let memory = Arc::clone(&self.memory);
        let state = self.state.get_mut();
        state.extents.remove(0, u64::MAX, |range| memory.release(range));
        state.doomed.drain(..).for_each(|range| memory.release(range));
    }
}
