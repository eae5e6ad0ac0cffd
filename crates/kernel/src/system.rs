//! The machine as a whole: names, what `/proc/sys` may change, and figures since boot.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// `uname -s`.
pub const NAME: &str = "Linux";
/// `uname -r`: the release whose system calls we follow, and that it is ours.
pub const RELEASE: &str = "6.12.0-cloudpilot";
/// `uname -v`.
pub const VERSION: &str = "#1 SMP PREEMPT_DYNAMIC Cloudpilot";
/// `uname -m`.
pub const MACHINE: &str = "x86_64";

/// State of the machine that no other room holds.
pub struct System {
    /// Host's monotonic clock at boot.
    pub boot_monotonic_ns: u64,
    /// Wall clock at boot, seconds.
    pub boot_realtime: i64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Load averages, computed when asked for.
    pub load: Mutex<Load>,
    /// Files of `/proc/sys` that were written, by path; the others have their default.
    pub sysctls: Mutex<BTreeMap<&'static str, Vec<u8>>>,
    /// Processes and threads made since boot (`processes` of `/proc/stat`).
    pub forks: AtomicU64,
    /// Processor time of tasks that are gone, nanoseconds.
    pub dead_user_ns: AtomicU64,
    /// See [`dead_user_ns`](Self::dead_user_ns).
    pub dead_system_ns: AtomicU64,
    /// What tasks that are gone read, wrote, sent and received.
    pub dead_activity: Mutex<crate::task::activity::Activity>,
}

impl Default for System {
    fn default() -> Self {
        Self::new()
    }
}

impl System {
    /// A machine that boots now.
    pub fn new() -> Self {
        Self {
            boot_monotonic_ns: crate::time::monotonic_ns(),
            boot_realtime: crate::time::realtime().tv_sec,
            boot_id: random_uuid(),
            load: Mutex::default(),
            sysctls: Mutex::default(),
            forks: AtomicU64::new(0),
            dead_user_ns: AtomicU64::new(0),
            dead_system_ns: AtomicU64::new(0),
            dead_activity: Mutex::default(),
        }
    }

    /// Nanoseconds since boot.
    pub fn uptime_ns(&self) -> u64 {
        crate::time::monotonic_ns().saturating_sub(self.boot_monotonic_ns)
    }

    /// Enters the times of a task that exits.
    pub fn add_dead_times(&self, user_ns: u64, system_ns: u64) {
        self.dead_user_ns.fetch_add(user_ns, Ordering::Relaxed);
        self.dead_system_ns.fetch_add(system_ns, Ordering::Relaxed);
    }
}

/// Random bytes from the host; the jail lets `getrandom(2)` through, so that short requests cannot fail.
pub fn random_bytes(buffer: &mut [u8]) {
    let mut done = 0;
    while done < buffer.len() {
        if let Ok(filled) = rustix::rand::getrandom(&mut buffer[done..], rustix::rand::GetRandomFlags::empty()) {
            done += filled;
        }
    }
}

/// A random UUID (version 4) as text.
pub fn random_uuid() -> String {
    let mut bytes = [0; 16];
    random_bytes(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Load averages over 1, 5 and 15 minutes. Nothing runs in the background for them: each question takes the time since the last one as
/// having passed with the number of tasks that run now.
#[derive(Default)]
pub struct Load {
    averages: [f64; 3],
    asked_ns: u64,
}

impl Load {
    /// The averages at `uptime_ns` with `running` tasks.
    pub fn at(&mut self, uptime_ns: u64, running: usize) -> [f64; 3] {
        let elapsed = uptime_ns.saturating_sub(self.asked_ns) as f64 / 1e9;
        self.asked_ns = uptime_ns;
        for (average, period) in self.averages.iter_mut().zip([60.0, 300.0, 900.0]) {
            let decay = (-elapsed / period).exp();
            *average = *average * decay + running as f64 * (1.0 - decay);
        }
        self.averages
    }
}

impl crate::Kernel {
    /// One bit for each CPU that the guest is told of.
    pub fn online_cpus(&self) -> u64 {
        match self.limits.cpus {
            0 => 1,
            1..64 => (1 << self.limits.cpus) - 1,
            _ => u64::MAX,
        }
    }

    /// How many CPUs the guest is told of.
    pub fn cpu_count(&self) -> u32 {
        self.online_cpus().count_ones()
    }

    /// Load averages now.
    pub fn load_averages(&self) -> [f64; 3] {
        let running = self.tasks.tasks().iter().filter(|task| !task.parker.is_sleeping()).count();
        self.system.load.lock().at(self.system.uptime_ns(), running)
    }
}
