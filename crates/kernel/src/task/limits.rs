//! Resource limits of a process, `getrlimit(2)`.

use cloudpilot_abi::raw;

use crate::config::Limits;

/// No limit.
pub const INFINITY: u64 = u64::MAX;

/// Soft and hard values, by `RLIMIT_*`.
#[derive(Clone, Debug)]
pub struct ResourceLimits(pub [(u64, u64); raw::RLIM_NLIMITS as usize]);

impl ResourceLimits {
    /// What a first process gets: Linux's usual defaults below the sandbox's own limits.
    pub fn new(limits: &Limits) -> Self {
        let mut values = [(INFINITY, INFINITY); raw::RLIM_NLIMITS as usize];
        values[raw::RLIMIT_STACK as usize] = (8 << 20, INFINITY);
        values[raw::RLIMIT_CORE as usize] = (0, INFINITY);
        values[raw::RLIMIT_NPROC as usize] = (u64::from(limits.processes), u64::from(limits.processes));
        values[raw::RLIMIT_NOFILE as usize] = (u64::from(limits.open_files.min(1024)), u64::from(limits.open_files));
        values[raw::RLIMIT_MEMLOCK as usize] = (8 << 20, 8 << 20);
        values[raw::RLIMIT_SIGPENDING as usize] = (u64::from(limits.processes), u64::from(limits.processes));
        values[raw::RLIMIT_MSGQUEUE as usize] = (819_200, 819_200);
        values[raw::RLIMIT_NICE as usize] = (0, 0);
        values[raw::RLIMIT_RTPRIO as usize] = (0, 0);
        Self(values)
    }

    /// The soft value of one limit.
    pub fn soft(&self, which: u32) -> u64 {
        self.0.get(which as usize).map_or(INFINITY, |limit| limit.0)
    }
}
