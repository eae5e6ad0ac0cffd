//! The host calls that a kernel process may make once it has booted: the whole list, with what their arguments may say and why they are needed.
//! Everything else ends the process. `docs/` is generated from here.

use libc::{
    CLONE_CHILD_CLEARTID, CLONE_FILES, CLONE_FS, CLONE_PARENT_SETTID, CLONE_SETTLS, CLONE_SIGHAND, CLONE_SYSVSEM, CLONE_THREAD, CLONE_VM,
    SYS_accept4, SYS_bind, SYS_brk, SYS_clock_gettime, SYS_clone, SYS_clone3, SYS_close, SYS_connect, SYS_epoll_ctl, SYS_epoll_pwait,
    SYS_eventfd2, SYS_exit, SYS_exit_group, SYS_fallocate, SYS_fchmod, SYS_fchmodat2, SYS_fcntl, SYS_fdatasync, SYS_fstatfs, SYS_fsync,
    SYS_ftruncate, SYS_futex, SYS_getdents64, SYS_getpeername, SYS_getpid, SYS_getrandom, SYS_getsockname, SYS_getsockopt, SYS_gettid,
    SYS_ioctl, SYS_kill, SYS_linkat, SYS_listen, SYS_lseek, SYS_madvise, SYS_mkdirat, SYS_mknodat, SYS_mmap, SYS_mprotect, SYS_mremap,
    SYS_munmap, SYS_openat, SYS_openat2, SYS_ppoll, SYS_prctl, SYS_preadv2, SYS_pwritev2, SYS_read, SYS_readlinkat, SYS_recvmsg,
    SYS_renameat2, SYS_restart_syscall, SYS_rseq, SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_sched_getaffinity, SYS_sched_yield,
    SYS_sendmsg, SYS_set_robust_list, SYS_setsockopt, SYS_shutdown, SYS_sigaltstack, SYS_socket, SYS_statx, SYS_symlinkat, SYS_tgkill,
    SYS_unlinkat, SYS_utimensat, SYS_wait4, SYS_write, c_long,
};

/// When a call is let through.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    /// Whatever its arguments.
    Always,
    /// When the argument (by index), masked, has one of the values; 32 bits of it count, as in the host.
    OneOf(usize, u32, &'static [u32]),
    /// Never, but with an error number instead of the end: library code tries it and does without.
    Refused(i32),
}

/// Which sandboxes need a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Every one.
    Always,
    /// Those with a volume that may be written to.
    WritableVolume,
    /// Those whose sockets reach the host's network.
    Network,
}

/// What a sandbox has that takes calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Needs {
    /// A volume that may be written to.
    pub writable_volume: bool,
    /// Sockets that reach the host's network.
    pub network: bool,
}

impl Needs {
    /// Whether a call is among those that it takes.
    pub fn include(self, call: &Call) -> bool {
        match call.when {
            When::Always => true,
            When::WritableVolume => self.writable_volume,
            When::Network => self.network,
        }
    }
}

/// One host call.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Name.
    pub name: &'static str,
    /// Number.
    pub number: c_long,
    /// When it is let through.
    pub rule: Rule,
    /// Which sandboxes need it.
    pub when: When,
    /// What it is needed for.
    pub why: &'static str,
}

const fn call(name: &'static str, number: c_long, rule: Rule, why: &'static str) -> Call {
    Call { name, number, rule, when: When::Always, why }
}

const fn volume(name: &'static str, number: c_long, rule: Rule, why: &'static str) -> Call {
    Call { name, number, rule, when: When::WritableVolume, why }
}

const fn network(name: &'static str, number: c_long, rule: Rule, why: &'static str) -> Call {
    Call { name, number, rule, when: When::Network, why }
}

const ALL_BITS: u32 = u32::MAX;

/// What `pthread_create` asks for: a thread of this process, nothing else.
const THREAD: u32 = (CLONE_VM
    | CLONE_FS
    | CLONE_FILES
    | CLONE_SIGHAND
    | CLONE_THREAD
    | CLONE_SYSVSEM
    | CLONE_SETTLS
    | CLONE_PARENT_SETTID
    | CLONE_CHILD_CLEARTID) as u32;

/// Waiting and waking; not priority inheritance and requeueing, which have been the way into Linux more than once.
const FUTEX_OPERATIONS: &[u32] = &[libc::FUTEX_WAIT as u32, libc::FUTEX_WAKE as u32, libc::FUTEX_WAIT_BITSET as u32];
/// Options of an operation that do not matter here.
const FUTEX_OPTIONS: u32 = (libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME) as u32;

/// Requests that terminals, pipes and sockets handed in by the caller are asked.
const IOCTLS: &[u32] = &[libc::TIOCGWINSZ as u32, libc::TCGETS as u32, libc::FIONREAD as u32, libc::TIOCOUTQ as u32, libc::FIONBIO as u32];

const FCNTLS: &[u32] = &[
    libc::F_DUPFD_CLOEXEC as u32,
    libc::F_GETFD as u32,
    libc::F_SETFD as u32,
    libc::F_GETFL as u32,
    libc::F_SETFL as u32,
    libc::F_GETPIPE_SZ as u32,
];

/// The list.
pub const CALLS: &[Call] = &[
    // Memory. Nothing becomes executable any more: the stub's page was made before.
    call(
        "mmap",
        SYS_mmap,
        Rule::OneOf(2, libc::PROT_EXEC as u32, &[0]),
        "stacks, the allocator, windows on memory files; never executable",
    ),
    call("mprotect", SYS_mprotect, Rule::OneOf(2, libc::PROT_EXEC as u32, &[0]), "guard pages, the allocator's heaps; never executable"),
    call("munmap", SYS_munmap, Rule::Always, "stacks of threads that ended"),
    call("mremap", SYS_mremap, Rule::Refused(libc::ENOMEM), "the allocator would grow large allocations by it, and copies them then"),
    call(
        "madvise",
        SYS_madvise,
        Rule::OneOf(2, ALL_BITS, &[libc::MADV_DONTNEED as u32, libc::MADV_FREE as u32]),
        "giving freed memory back",
    ),
    call("brk", SYS_brk, Rule::Always, "the allocator"),
    call("ftruncate", SYS_ftruncate, Rule::Always, "sizes of memory files and of files in writable volumes"),
    call("fallocate", SYS_fallocate, Rule::Always, "giving guest memory back by punching holes"),
    // Threads of our own.
    call("clone", SYS_clone, Rule::OneOf(0, ALL_BITS, &[THREAD]), "a kernel thread for each guest thread; processes are made by stubs"),
    call("clone3", SYS_clone3, Rule::Refused(libc::ENOSYS), "its flags lie in memory where no filter sees them; libc falls back to clone"),
    call(
        "futex",
        SYS_futex,
        Rule::OneOf(1, !FUTEX_OPTIONS, FUTEX_OPERATIONS),
        "locks, and the turn that a guest thread and its kernel thread pass",
    ),
    call(
        "set_robust_list",
        SYS_set_robust_list,
        Rule::Refused(libc::ENOSYS),
        "each new thread makes it for locks between processes, of which there are none",
    ),
    call("rseq", SYS_rseq, Rule::Always, "start and end of a thread"),
    call("sigaltstack", SYS_sigaltstack, Rule::Refused(libc::ENOSYS), "threads of a standard library that looks for exhausted stacks"),
    call("prctl", SYS_prctl, Rule::Refused(libc::ENOSYS), "names of threads"),
    call("gettid", SYS_gettid, Rule::Refused(libc::ENOSYS), "aborting, which then ends by a fault"),
    call("getpid", SYS_getpid, Rule::Refused(libc::ENOSYS), "aborting, which then ends by a fault"),
    call(
        "sched_getaffinity",
        SYS_sched_getaffinity,
        Rule::Refused(libc::ENOSYS),
        "the allocator asks how many arenas would pay, and takes a few then",
    ),
    call("sched_yield", SYS_sched_yield, Rule::Refused(libc::ENOSYS), "waiting for a lock, which goes on to sleep soon"),
    call("exit", SYS_exit, Rule::Always, "end of a thread"),
    call("exit_group", SYS_exit_group, Rule::Always, "end of the sandbox"),
    // Signals, and the stubs as children.
    call("rt_sigaction", SYS_rt_sigaction, Rule::Refused(libc::ENOSYS), "aborting, which then ends by a fault; handlers are set before"),
    call("rt_sigprocmask", SYS_rt_sigprocmask, Rule::Always, "start of a thread"),
    call("restart_syscall", SYS_restart_syscall, Rule::Always, "made by the host itself when a stopped process goes on"),
    call(
        "tgkill",
        SYS_tgkill,
        Rule::OneOf(2, ALL_BITS, &[libc::SIGUSR1 as u32, libc::SIGABRT as u32]),
        "bringing a guest thread back into its stub; none but ours exist in the PID namespace",
    ),
    call("kill", SYS_kill, Rule::OneOf(1, ALL_BITS, &[0, libc::SIGKILL as u32]), "ending a stub; as above"),
    call("wait4", SYS_wait4, Rule::Always, "ends of stubs"),
    // Time and chance.
    call("clock_gettime", SYS_clock_gettime, Rule::Always, "CPU time of threads, which the vDSO does not know"),
    call("getrandom", SYS_getrandom, Rule::Always, "random numbers for guests and hash tables"),
    // Descriptors: the caller's standard streams, host files, the control socket.
    call("read", SYS_read, Rule::Always, "files that clients of the control socket hand over, terminals"),
    call("write", SYS_write, Rule::Always, "the same, and last words"),
    call("preadv2", SYS_preadv2, Rule::Always, "standard input, host files, straight into guest memory"),
    call("pwritev2", SYS_pwritev2, Rule::Always, "standard output, host files, straight from guest memory"),
    call("lseek", SYS_lseek, Rule::Always, "host files"),
    call("close", SYS_close, Rule::Always, "descriptors that are no longer used"),
    call("fcntl", SYS_fcntl, Rule::OneOf(1, ALL_BITS, FCNTLS), "status flags, duplicates"),
    call(
        "ioctl",
        SYS_ioctl,
        Rule::OneOf(1, ALL_BITS, IOCTLS),
        "window size, what waits in a pipe; nothing that changes a terminal or a device",
    ),
    call("ppoll", SYS_ppoll, Rule::Always, "readiness of one descriptor"),
    call("epoll_ctl", SYS_epoll_ctl, Rule::Always, "readiness of host descriptors"),
    call("epoll_pwait", SYS_epoll_pwait, Rule::Always, "readiness of host descriptors"),
    call("eventfd2", SYS_eventfd2, Rule::Always, "waking the thread that waits for readiness"),
    // Files beneath the handles; Landlock and the mounts see to it that there are no others.
    call(
        "openat",
        SYS_openat,
        Rule::Refused(libc::EACCES),
        "library code tries to read host files by path; files of the guest are opened by openat2",
    ),
    call("openat2", SYS_openat2, Rule::Always, "host files, beneath a handle"),
    call("statx", SYS_statx, Rule::Always, "attributes"),
    call("fstatfs", SYS_fstatfs, Rule::Always, "figures of a volume's filesystem"),
    call("readlinkat", SYS_readlinkat, Rule::Always, "symbolic links"),
    call("getdents64", SYS_getdents64, Rule::Always, "directories"),
    call("fsync", SYS_fsync, Rule::Always, "writable volumes"),
    call("fdatasync", SYS_fdatasync, Rule::Always, "writable volumes"),
    volume("mkdirat", SYS_mkdirat, Rule::Always, "writable volumes"),
    volume(
        "mknodat",
        SYS_mknodat,
        Rule::OneOf(2, libc::S_IFMT, &[libc::S_IFIFO, libc::S_IFSOCK]),
        "names of pipes and sockets, which are never opened on the host",
    ),
    volume("symlinkat", SYS_symlinkat, Rule::Always, "writable volumes"),
    volume("linkat", SYS_linkat, Rule::OneOf(4, ALL_BITS, &[0]), "links are not followed"),
    volume("unlinkat", SYS_unlinkat, Rule::OneOf(2, ALL_BITS, &[0, libc::AT_REMOVEDIR as u32]), "writable volumes"),
    volume("renameat2", SYS_renameat2, Rule::OneOf(4, ALL_BITS, &[0, libc::RENAME_NOREPLACE, libc::RENAME_EXCHANGE]), "writable volumes"),
    volume("fchmod", SYS_fchmod, Rule::Always, "where the host does not know the next one"),
    volume("fchmodat2", SYS_fchmodat2, Rule::OneOf(3, ALL_BITS, &[libc::AT_EMPTY_PATH as u32]), "of a handle, never by name"),
    volume("utimensat", SYS_utimensat, Rule::OneOf(3, ALL_BITS, &[libc::AT_EMPTY_PATH as u32]), "of a handle, never by name"),
    // The control socket.
    call("accept4", SYS_accept4, Rule::Always, "clients of the control socket"),
    call("recvmsg", SYS_recvmsg, Rule::Always, "requests, with the descriptors that come along"),
    call("sendmsg", SYS_sendmsg, Rule::Always, "replies and events"),
    call("shutdown", SYS_shutdown, Rule::Always, "hanging up on a client that does not listen"),
    // The host's network, for sandboxes that may use it: the internet's families only, so no netlink, no packet sockets, no unix sockets.
    network("socket", SYS_socket, Rule::OneOf(0, ALL_BITS, &[libc::AF_INET as u32, libc::AF_INET6 as u32]), "sockets of the guest"),
    network("connect", SYS_connect, Rule::Always, "sockets of the guest"),
    network("bind", SYS_bind, Rule::Always, "sockets of the guest"),
    network("listen", SYS_listen, Rule::Always, "sockets of the guest"),
    network("getsockname", SYS_getsockname, Rule::Always, "sockets of the guest"),
    network("getpeername", SYS_getpeername, Rule::Always, "sockets of the guest"),
    network("setsockopt", SYS_setsockopt, Rule::Always, "sockets of the guest"),
    network("getsockopt", SYS_getsockopt, Rule::Always, "sockets of the guest"),
];
