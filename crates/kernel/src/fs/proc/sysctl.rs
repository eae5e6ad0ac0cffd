//! `/proc/sys`: settings. Those that nothing depends on are remembered as written; the others are shown and refuse writes.

use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};

use super::Machine;
use crate::Kernel;
use crate::fs::generated::{Directory, Entry, Plan};
use crate::ipc::Ipc;
use crate::system;
use crate::task::Task;
use crate::task::table::PID_MAX;
use crate::vfs::inode::FileType;

/// `CAP_SYS_ADMIN`.
const CAP_SYS_ADMIN: u32 = 21;

/// What a setting shows.
enum Value {
    /// Always the same.
    Constant(&'static str),
    /// Remembered once written.
    Stored(&'static str),
    /// Made by the kernel.
    Made(fn(&Arc<Kernel>) -> String),
    /// Of a namespace of the task that reads or writes, with its mode; writing judges by itself who may.
    Own(u32, fn(&Task) -> String, fn(&Task, &str) -> Result<(), Errno>),
    /// A limit of the reader's or writer's IPC namespace.
    OfIpc,
}

use Value::{Constant, Made, OfIpc, Own, Stored};

/// The IPC namespace of whoever reads or writes.
fn ipc_of(kernel: &Arc<Kernel>, task: Option<&Task>) -> Arc<Ipc> {
    task.map_or_else(|| Arc::clone(&kernel.ipc), |task| Arc::clone(&task.namespaces().ipc.ipc))
}

fn hostname(task: &Task) -> String {
    task.namespaces().uts.hostname.lock().clone()
}

fn domainname(task: &Task) -> String {
    task.namespaces().uts.domainname.lock().clone()
}

fn last_number(task: &Task) -> String {
    task.process.numbers.with_cursor(&task.kernel, |cursor| cursor.last).to_string()
}

fn set_last_number(task: &Task, text: &str) -> Result<(), Errno> {
    let (numbers, own) = (&task.process.numbers, task.credentials());
    if ![raw::CAP_SYS_ADMIN, raw::CAP_CHECKPOINT_RESTORE].iter().any(|capability| own.has_in(&numbers.owner, *capability)) {
        return Err(Errno::EPERM);
    }
    let number = text.trim().parse().map_err(|_| Errno::EINVAL)?;
    if !(0..PID_MAX).contains(&number) {
        return Err(Errno::EINVAL);
    }
    numbers.with_cursor(&task.kernel, |cursor| cursor.last = number);
    Ok(())
}

fn end_of_numbers(task: &Task) -> String {
    task.process.numbers.with_cursor(&task.kernel, |cursor| cursor.end).to_string()
}

fn set_end_of_numbers(task: &Task, text: &str) -> Result<(), Errno> {
    let numbers = &task.process.numbers;
    if !task.credentials().has_in(&numbers.owner, raw::CAP_SYS_ADMIN) {
        return Err(Errno::EACCES);
    }
    let number = text.trim().parse().map_err(|_| Errno::EINVAL)?;
    numbers.with_cursor(&task.kernel, |cursor| cursor.set_end(number, task.kernel.cpu_count()))
}

fn most_user_namespaces(task: &Task) -> String {
    task.credentials().user.most().to_string()
}

fn set_most_user_namespaces(task: &Task, text: &str) -> Result<(), Errno> {
    let own = task.credentials();
    if !own.has_in(&own.user, raw::CAP_SYS_RESOURCE) {
        return Err(Errno::EPERM);
    }
    let most = text.trim().parse::<u32>().ok().filter(|most| i32::try_from(*most).is_ok()).ok_or(Errno::EINVAL)?;
    own.user.set_most(most);
    Ok(())
}

/// Longest host name that `sethostname(2)` takes.
const NAME_LENGTH: usize = 64;

/// A name that a task may give its host or domain.
fn checked(task: &Task, name: &str) -> Result<String, Errno> {
    if !task.credentials().has_in(&task.namespaces().uts.owner, raw::CAP_SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let name = name.trim_end_matches(['\0', '\n']);
    if name.len() > NAME_LENGTH { Err(Errno::EINVAL) } else { Ok(name.to_owned()) }
}

fn set_hostname(task: &Task, name: &str) -> Result<(), Errno> {
    *task.namespaces().uts.hostname.lock() = checked(task, name)?;
    Ok(())
}

fn set_domainname(task: &Task, name: &str) -> Result<(), Errno> {
    *task.namespaces().uts.domainname.lock() = checked(task, name)?;
    Ok(())
}

/// Every setting by path, sorted.
const SETTINGS: &[(&str, Value)] = &[
    ("fs/aio-max-nr", Stored("65536")),
    ("fs/aio-nr", Made(|_| crate::aio::promised().to_string())),
    ("fs/epoll/max_user_watches", Stored("5000000")),
    ("fs/file-max", Stored("9223372036854775807")),
    ("fs/file-nr", Made(|_| format!("{}\t0\t9223372036854775807", crate::vfs::file::open_count()))),
    ("fs/inode-nr", Constant("0\t0")),
    ("fs/inode-state", Constant("0\t0\t0\t0\t0\t0\t0")),
    ("fs/inotify/max_queued_events", Stored("16384")),
    ("fs/inotify/max_user_instances", Stored("1024")),
    ("fs/inotify/max_user_watches", Stored("1048576")),
    ("fs/lease-break-time", Stored("45")),
    ("fs/leases-enable", Stored("1")),
    ("fs/mount-max", Stored("100000")),
    ("fs/mqueue/msg_default", OfIpc),
    ("fs/mqueue/msg_max", OfIpc),
    ("fs/mqueue/msgsize_default", OfIpc),
    ("fs/mqueue/msgsize_max", OfIpc),
    ("fs/mqueue/queues_max", OfIpc),
    ("fs/nr_open", Stored("1048576")),
    ("fs/overflowgid", Constant("65534")),
    ("fs/overflowuid", Constant("65534")),
    ("fs/pipe-max-size", Stored("1048576")),
    ("fs/pipe-user-pages-hard", Stored("0")),
    ("fs/pipe-user-pages-soft", Stored("16384")),
    ("fs/protected_fifos", Constant("0")),
    ("fs/protected_hardlinks", Constant("1")),
    ("fs/protected_regular", Constant("0")),
    ("fs/protected_symlinks", Constant("1")),
    ("fs/suid_dumpable", Constant("0")),
    ("kernel/auto_msgmni", Stored("0")),
    ("kernel/cap_last_cap", Constant("40")),
    ("kernel/core_pattern", Stored("core")),
    ("kernel/core_pipe_limit", Stored("0")),
    ("kernel/core_uses_pid", Stored("0")),
    ("kernel/dmesg_restrict", Constant("1")),
    ("kernel/domainname", Own(0o644, domainname, set_domainname)),
    ("kernel/hostname", Own(0o644, hostname, set_hostname)),
    ("kernel/hung_task_timeout_secs", Stored("0")),
    ("kernel/io_uring_disabled", Constant("2")),
    ("kernel/keys/maxbytes", Constant("0")),
    ("kernel/keys/maxkeys", Constant("0")),
    ("kernel/kptr_restrict", Constant("2")),
    ("kernel/msg_next_id", OfIpc),
    ("kernel/msgmax", OfIpc),
    ("kernel/msgmnb", OfIpc),
    ("kernel/msgmni", OfIpc),
    ("kernel/ngroups_max", Constant("65536")),
    ("kernel/nmi_watchdog", Constant("0")),
    ("kernel/ns_last_pid", Own(0o666, last_number, set_last_number)),
    ("kernel/numa_balancing", Constant("0")),
    ("kernel/osrelease", Constant(system::RELEASE)),
    ("kernel/ostype", Constant(system::NAME)),
    ("kernel/overflowgid", Constant("65534")),
    ("kernel/overflowuid", Constant("65534")),
    ("kernel/panic", Stored("0")),
    ("kernel/panic_on_oops", Stored("0")),
    ("kernel/perf_event_paranoid", Constant("3")),
    ("kernel/pid_max", Own(0o666, end_of_numbers, set_end_of_numbers)),
    ("kernel/printk", Stored("4\t4\t1\t7")),
    ("kernel/printk_ratelimit", Stored("5")),
    ("kernel/printk_ratelimit_burst", Stored("10")),
    ("kernel/pty/max", Constant("4096")),
    ("kernel/pty/nr", Made(|kernel| kernel.terminals.count().to_string())),
    ("kernel/pty/reserve", Constant("1024")),
    ("kernel/random/boot_id", Made(|kernel| kernel.system.boot_id.clone())),
    ("kernel/random/entropy_avail", Constant("256")),
    ("kernel/random/poolsize", Constant("256")),
    ("kernel/random/urandom_min_reseed_secs", Constant("60")),
    ("kernel/random/uuid", Made(|_| system::random_uuid())),
    ("kernel/random/write_wakeup_threshold", Constant("256")),
    ("kernel/randomize_va_space", Stored("2")),
    ("kernel/sched_autogroup_enabled", Stored("0")),
    ("kernel/sched_rr_timeslice_ms", Stored("100")),
    ("kernel/sched_rt_period_us", Stored("1000000")),
    ("kernel/sched_rt_runtime_us", Stored("950000")),
    ("kernel/seccomp/actions_avail", Constant("kill_process kill_thread trap errno user_notif trace log allow")),
    ("kernel/sem", OfIpc),
    ("kernel/sem_next_id", OfIpc),
    ("kernel/shm_next_id", OfIpc),
    ("kernel/shm_rmid_forced", Stored("0")),
    ("kernel/shmall", OfIpc),
    ("kernel/shmmax", OfIpc),
    ("kernel/shmmni", OfIpc),
    ("kernel/sysctl_writes_strict", Constant("1")),
    ("kernel/tainted", Constant("0")),
    ("kernel/threads-max", Made(|kernel| kernel.limits.processes.to_string())),
    ("kernel/unprivileged_bpf_disabled", Constant("2")),
    ("kernel/version", Constant(system::VERSION)),
    ("net/core/bpf_jit_enable", Constant("0")),
    ("net/core/netdev_max_backlog", Stored("1000")),
    ("net/core/optmem_max", Stored("131072")),
    ("net/core/rmem_default", Stored("212992")),
    ("net/core/rmem_max", Stored("212992")),
    ("net/core/somaxconn", Stored("4096")),
    ("net/core/wmem_default", Stored("212992")),
    ("net/core/wmem_max", Stored("212992")),
    ("net/ipv4/icmp_echo_ignore_all", Stored("0")),
    ("net/ipv4/ip_default_ttl", Stored("64")),
    ("net/ipv4/ip_forward", Stored("0")),
    ("net/ipv4/ip_local_port_range", Stored("32768\t60999")),
    ("net/ipv4/ip_local_reserved_ports", Stored("")),
    ("net/ipv4/ip_nonlocal_bind", Stored("0")),
    ("net/ipv4/ip_unprivileged_port_start", Stored("1024")),
    ("net/ipv4/ping_group_range", Stored("1\t0")),
    ("net/ipv4/tcp_congestion_control", Stored("cubic")),
    ("net/ipv4/tcp_available_congestion_control", Constant("reno cubic")),
    ("net/ipv4/tcp_allowed_congestion_control", Constant("reno cubic")),
    ("net/ipv4/tcp_fin_timeout", Stored("60")),
    ("net/ipv4/tcp_keepalive_intvl", Stored("75")),
    ("net/ipv4/tcp_keepalive_probes", Stored("9")),
    ("net/ipv4/tcp_keepalive_time", Stored("7200")),
    ("net/ipv4/tcp_max_syn_backlog", Stored("512")),
    ("net/ipv4/tcp_mem", Stored("88500\t118001\t177000")),
    ("net/ipv4/tcp_rmem", Stored("4096\t131072\t6291456")),
    ("net/ipv4/tcp_sack", Stored("1")),
    ("net/ipv4/tcp_syn_retries", Stored("6")),
    ("net/ipv4/tcp_syncookies", Stored("1")),
    ("net/ipv4/tcp_timestamps", Stored("1")),
    ("net/ipv4/tcp_tw_reuse", Stored("2")),
    ("net/ipv4/tcp_window_scaling", Stored("1")),
    ("net/ipv4/tcp_wmem", Stored("4096\t16384\t4194304")),
    ("net/ipv6/bindv6only", Stored("0")),
    ("net/ipv6/conf/all/disable_ipv6", Stored("0")),
    ("net/ipv6/conf/all/forwarding", Stored("0")),
    ("net/ipv6/conf/default/disable_ipv6", Stored("0")),
    ("net/ipv6/conf/lo/disable_ipv6", Stored("0")),
    ("net/unix/max_dgram_qlen", Stored("512")),
    ("user/max_user_namespaces", Own(0o666, most_user_namespaces, set_most_user_namespaces)),
    ("vm/admin_reserve_kbytes", Stored("8192")),
    ("vm/dirty_background_ratio", Stored("10")),
    ("vm/dirty_ratio", Stored("20")),
    ("vm/drop_caches", Stored("0")),
    ("vm/hugetlb_shm_group", Constant("0")),
    ("vm/legacy_va_layout", Constant("0")),
    ("vm/max_map_count", Stored("65530")),
    ("vm/memfd_noexec", Constant("0")),
    ("vm/min_free_kbytes", Stored("67584")),
    ("vm/mmap_min_addr", Constant("65536")),
    ("vm/mmap_rnd_bits", Constant("28")),
    ("vm/nr_hugepages", Constant("0")),
    ("vm/nr_overcommit_hugepages", Constant("0")),
    ("vm/oom_kill_allocating_task", Stored("0")),
    ("vm/overcommit_kbytes", Stored("0")),
    ("vm/overcommit_memory", Stored("0")),
    ("vm/overcommit_ratio", Stored("50")),
    ("vm/page-cluster", Stored("3")),
    ("vm/panic_on_oom", Constant("0")),
    ("vm/swappiness", Stored("60")),
    ("vm/unprivileged_userfaultfd", Constant("0")),
    ("vm/user_reserve_kbytes", Stored("131072")),
    ("vm/vfs_cache_pressure", Stored("100")),
];

/// `/proc/sys`.
pub fn directory(machine: &Machine) -> Plan {
    Plan::directory(Settings { machine: machine.clone(), prefix: String::new() })
}

/// The settings whose path begins with `prefix` (which ends in a slash, or is empty).
struct Settings {
    machine: Machine,
    prefix: String,
}

impl Directory for Settings {
    fn lookup(&self, name: &[u8]) -> Result<Plan, Errno> {
        let name = std::str::from_utf8(name).map_err(|_| Errno::ENOENT)?;
        let path = format!("{}{name}", self.prefix);
        if let Some((path, value)) = SETTINGS.iter().find(|setting| setting.0 == path) {
            return Ok(setting(&self.machine, path, value));
        }
        let prefix = path + "/";
        if !SETTINGS.iter().any(|setting| setting.0.starts_with(&prefix)) {
            return Err(Errno::ENOENT);
        }
        Ok(Plan::directory(Self { machine: self.machine.clone(), prefix }))
    }

    fn entries(&self) -> Result<Vec<Entry>, Errno> {
        let mut names: Vec<(&str, FileType)> = SETTINGS
            .iter()
            .filter_map(|setting| setting.0.strip_prefix(self.prefix.as_str()))
            .map(|rest| rest.split_once('/').map_or((rest, FileType::Regular), |(name, _)| (name, FileType::Directory)))
            .collect();
        names.sort_unstable_by_key(|name| name.0);
        names.dedup();
        let entry =
            |(index, (name, file_type)): (usize, (&str, FileType))| Entry { name: name.into(), file_type, cursor: index as u64 + 3 };
        Ok(names.into_iter().enumerate().map(entry).collect())
    }
}

fn setting(machine: &Machine, path: &'static str, value: &'static Value) -> Plan {
    let shown = machine.clone();
    let make = move |reader: Option<&Task>| {
        let kernel = shown.upgrade().ok_or(Errno::ENOENT)?;
        let mut bytes = match value {
            Constant(text) => text.as_bytes().to_vec(),
            Stored(text) => kernel.system.sysctls.lock().get(path).cloned().unwrap_or_else(|| text.as_bytes().to_vec()),
            Made(make) => make(&kernel).into_bytes(),
            OfIpc => ipc_of(&kernel, reader).limits.show(path).into_bytes(),
            Own(_, make, _) => match reader {
                Some(reader) => make(reader).into_bytes(),
                None => make(&*kernel.init().ok_or(Errno::ENOENT)?).into_bytes(),
            },
        };
        bytes.push(b'\n');
        Ok(bytes)
    };
    let plan = Plan::file_for(make);
    let written = machine.clone();
    match value {
        Constant(_) | Made(_) => plan.sealed(),
        Own(mode, _, give) => plan.mode(*mode).taking(move |writer, bytes| {
            let text = std::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?;
            give(writer.ok_or(Errno::EPERM)?, text)
        }),
        Stored(_) | OfIpc => plan.mode(0o644).taking(move |writer, bytes| write(&written, path, value, writer, bytes)),
    }
}

fn write(machine: &Machine, path: &'static str, value: &Value, writer: Option<&Task>, bytes: &[u8]) -> Result<(), Errno> {
    if writer.is_some_and(|writer| !writer.credentials().has(CAP_SYS_ADMIN)) {
        return Err(Errno::EPERM);
    }
    let kernel = machine.upgrade().ok_or(Errno::ENOENT)?;
    let text = std::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?.trim_end_matches(['\0', '\n']);
    match value {
        OfIpc => ipc_of(&kernel, writer).limits.write(path, text),
        Stored(default) => {
            // A number stays a number.
            let numbers = |text: &str| text.split_whitespace().all(|word| word.parse::<i128>().is_ok());
            if !default.is_empty() && numbers(default) && (text.trim().is_empty() || !numbers(text)) {
                return Err(Errno::EINVAL);
            }
            kernel.system.sysctls.lock().insert(path, text.trim().as_bytes().to_vec());
            Ok(())
        }
        Constant(_) | Made(_) | Own(..) => Err(Errno::EPERM),
    }
}
