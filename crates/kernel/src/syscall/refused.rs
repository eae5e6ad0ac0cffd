//! Calls that steer the machine itself. A container without the privilege gets `EPERM` for them, and programs are prepared for that;
//! `ENOSYS` would make some of them believe in an ancient kernel.

use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};

use super::{Args, Call, Support, SysResult};
use crate::task::Task;

const fn refuse(number: u32, note: &'static str) -> Call {
    Call { number, handler: refused, support: Support::Refused, note, args: &[] }
}

const MODULES: &str = "there are no kernel modules";
const MACHINE: &str = "the machine is not the sandbox's to steer";
const SWAP: &str = "there is no swap space";
const PORTS: &str = "there are no I/O ports";

pub const CALLS: &[Call] = &[
    refuse(raw::__NR_acct, "no process accounting"),
    refuse(raw::__NR_bpf, "no programs inside the kernel"),
    refuse(raw::__NR_delete_module, MODULES),
    refuse(raw::__NR_finit_module, MODULES),
    refuse(raw::__NR_init_module, MODULES),
    refuse(raw::__NR_ioperm, PORTS),
    refuse(raw::__NR_iopl, PORTS),
    refuse(raw::__NR_kexec_file_load, MACHINE),
    refuse(raw::__NR_kexec_load, MACHINE),
    refuse(raw::__NR_perf_event_open, "no performance counters, as with perf_event_paranoid=3"),
    refuse(raw::__NR_swapoff, SWAP),
    refuse(raw::__NR_swapon, SWAP),
    refuse(raw::__NR_userfaultfd, "faults are the kernel's business, as with unprivileged_userfaultfd=0"),
    refuse(raw::__NR_fanotify_init, "needs a privilege over whole filesystems"),
    refuse(raw::__NR_lookup_dcookie, "no profiler"),
    refuse(raw::__NR_open_by_handle_at, "handles would reach around mounts and permissions"),
];

fn refused(_task: &Arc<Task>, _args: &Args) -> SysResult {
    Err(Errno::EPERM)
}
