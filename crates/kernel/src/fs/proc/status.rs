//! Files that say how a task is: `stat`, `status`, `statm`, `limits`, `sched`, …

use std::fmt::Write;

use cloudpilot_abi::{Errno, PAGE_SIZE, raw};

use super::memory::Usage;
use super::subject::Live;
use crate::config::ExitStatus;
use crate::signal::SignalSet;
use crate::task::activity::{self, Activity};
use crate::task::{Task, Work, usage};

/// Ticks a second that times are reported in, `USER_HZ`.
const TICK_NS: u64 = 10_000_000;
/// `PF_FORKNOEXEC`.
const FORKED_WITHOUT_EXEC: u32 = 0x40;

/// The one-letter state and its name.
fn state(live: &Live) -> (char, &'static str) {
    match &live.task {
        None if live.process.family.lock().exit.is_some() => ('Z', "zombie"),
        None => ('S', "sleeping"),
        Some(task) if task.ptrace.is_stopped() => ('t', "tracing stop"),
        // Its first thread has ended before the others.
        Some(task) if !live.is_thread && task.tid() != live.process.pid => ('Z', "zombie"),
        Some(task) if task.work().contains(Work::STOP) => ('T', "stopped"),
        Some(task) if task.sleeps_deeply() => ('D', "disk sleep"),
        Some(task) if task.parker.is_sleeping() => ('S', "sleeping"),
        Some(_) => ('R', "running"),
    }
}

/// `comm`; of a zombie, what its program was called.
pub fn name(live: &Live) -> Vec<u8> {
    if let Some(task) = &live.task {
        return task.name.lock().clone();
    }
    let place = live.process.executable.lock().as_ref().and_then(|path| path.name.place.read().clone());
    match place {
        Some((_, name)) => name[..name.len().min(15)].to_vec(),
        None if live.process.pid == 1 => b"init".to_vec(),
        None => b"?".to_vec(),
    }
}

/// `comm` as `status` and `stat` print it: what would break lines is escaped.
fn printable_name(live: &Live) -> String {
    String::from_utf8_lossy(&name(live)).replace('\\', "\\\\").replace('\n', "\\n")
}

/// Everybody that a process-wide file adds up: all its threads, or the one thread.
fn threads(live: &Live) -> Vec<std::sync::Arc<Task>> {
    match &live.task {
        Some(task) if live.is_thread => vec![std::sync::Arc::clone(task)],
        _ => live.process.family.lock().tasks.clone(),
    }
}

/// Signal sets as `status` names them.
struct Sets {
    task_pending: SignalSet,
    process_pending: SignalSet,
    blocked: SignalSet,
    ignored: SignalSet,
    caught: SignalSet,
}

fn signal_sets(live: &Live) -> Sets {
    let bit = |number: i32| if (1..=64).contains(&number) { 1 << (number - 1) } else { 0 };
    let (mut ignored, mut caught) = (0, 0);
    let process_pending = {
        let signals = live.process.signals.lock();
        for (index, action) in signals.actions.iter().enumerate() {
            match action.handler {
                0 => {}
                1 => ignored |= 1 << index,
                _ => caught |= 1 << index,
            }
        }
        signals.pending.iter().fold(0, |set, info| set | bit(info.si_signo))
    };
    let (task_pending, blocked) = live.task.as_ref().map_or((0, 0), |task| {
        let signals = task.signals.lock();
        (signals.pending.iter().fold(0, |set, info| set | bit(info.si_signo)), signals.mask)
    });
    Sets { task_pending, process_pending, blocked, ignored, caught }
}

/// The controlling terminal's device number and foreground group, as `stat` wants them.
fn terminal(live: &Live) -> (u64, i32) {
    let terminal = live.process.terminal.lock().clone();
    terminal.map_or((0, -1), |terminal| (terminal.device_number(), live.numbers.show(terminal.foreground_group())))
}

/// `wait` status of a process that ended.
fn exit_code(status: Option<ExitStatus>) -> u32 {
    match status {
        None => 0,
        Some(ExitStatus::Exited(code)) => u32::from(code) << 8,
        Some(ExitStatus::Signaled(signal)) => u32::from(signal),
    }
}

/// `/proc/<pid>/stat`.
pub fn stat(live: &Live) -> Result<Vec<u8>, Errno> {
    let (group, session, parent, count, exit_signal, exit, has_execed) = {
        let family = live.process.family.lock();
        let parent = family.parent.upgrade().map_or(0, |parent| live.numbers.show(parent.pid));
        (
            live.numbers.show(family.group),
            live.numbers.show(family.session),
            parent,
            family.tasks.len().max(1),
            family.exit_signal,
            family.exit,
            family.has_execed,
        )
    };
    let (tty, foreground) = terminal(live);
    let times = usage::times(&live.process, live.is_thread.then_some(live.task.as_deref()).flatten());
    let scheduling = live.task.as_ref().map(|task| *task.scheduling.lock()).unwrap_or_default();
    let started = scheduling.started_ns.saturating_sub(live.kernel.system.boot_monotonic_ns) / TICK_NS;
    let priority = if scheduling.priority > 0 { -1 - scheduling.priority as i32 } else { 20 + scheduling.nice };
    let sets = signal_sets(live);
    let mm = live.mm();
    let memory = mm.as_ref().map(|mm| Usage::of(mm)).unwrap_or_default();
    let layout = mm.as_ref().map(|mm| mm.layout()).unwrap_or_default();
    let rss_limit = live.process.limits.lock().soft(raw::RLIMIT_RSS);
    let mut line = Vec::new();
    line.extend_from_slice(format!("{} (", live.numbers.show(live.id())).as_bytes());
    line.extend_from_slice(&name(live));
    let mut rest = format!(") {} {parent} {group} {session} {tty} {foreground}", state(live).0);
    let flags = if has_execed { 0 } else { FORKED_WITHOUT_EXEC } | 0x40_0000;
    let _ = write!(rest, " {flags} {} {} {} 0", times.minor_faults, times.children_minor_faults, times.major_faults);
    let _ = write!(rest, " {} {}", times.user_ns / TICK_NS, times.system_ns / TICK_NS);
    let _ = write!(rest, " {} {}", times.children_user_ns / TICK_NS, times.children_system_ns / TICK_NS);
    let _ = write!(rest, " {priority} {} {count} 0 {started} {} {}", scheduling.nice, memory.size, memory.resident / PAGE_SIZE);
    let _ = write!(rest, " {rss_limit} {} {} {} 0 0", layout.code.0, layout.code.1, layout.stack);
    // Only the first 31 signals fit these columns; `status` has all.
    let old = |set: SignalSet| set & 0x7fff_ffff;
    let pending = old(sets.task_pending | sets.process_pending);
    let _ = write!(rest, " {pending} {} {} {}", old(sets.blocked), old(sets.ignored), old(sets.caught));
    let _ = write!(rest, " 0 0 0 {exit_signal} 0 {} {} 0 0 0", scheduling.priority, scheduling.policy);
    let _ = write!(rest, " {} {} {}", layout.data.0, layout.data.1, layout.brk.0);
    let _ = write!(rest, " {} {} {} {}", layout.arguments.0, layout.arguments.1, layout.environment.0, layout.environment.1);
    let _ = writeln!(rest, " {}", exit_code(exit));
    line.extend_from_slice(rest.as_bytes());
    Ok(line)
}

/// `/proc/<pid>/statm`.
pub fn statm(live: &Live) -> Result<Vec<u8>, Errno> {
    let usage = live.mm().map(|mm| Usage::of(&mm)).unwrap_or_default();
    let pages = |bytes: u64| bytes / PAGE_SIZE;
    let (size, resident, shared) = (pages(usage.size), pages(usage.resident), pages(usage.resident_file + usage.resident_shared));
    Ok(format!("{size} {resident} {shared} {} 0 {} 0\n", pages(usage.code), pages(usage.data + usage.stack)).into_bytes())
}

/// CPUs as the masks and lists of `status` and sysfs print them.
pub fn cpu_list(mask: u64) -> String {
    let mut text = String::new();
    let mut index = 0;
    while index < 64 {
        if mask & 1 << index == 0 {
            index += 1;
            continue;
        }
        let start = index;
        while index < 64 && mask & 1 << index != 0 {
            index += 1;
        }
        let comma = if text.is_empty() { "" } else { "," };
        let _ = if index - start == 1 { write!(text, "{comma}{start}") } else { write!(text, "{comma}{start}-{}", index - 1) };
    }
    text
}

/// A mask as groups of 32 bits, as Linux prints bitmaps.
pub fn cpu_mask(mask: u64, cpus: u32) -> String {
    if cpus > 32 { format!("{:x},{:08x}", mask >> 32, mask as u32) } else { format!("{mask:x}") }
}

/// `/proc/<pid>/status`.
pub fn status(live: &Live) -> Result<Vec<u8>, Errno> {
    let (letter, word) = state(live);
    let mut text = format!("Name:\t{}\n", printable_name(live));
    if let Some(task) = &live.task {
        let _ = writeln!(text, "Umask:\t{:04o}", task.fs().umask);
    }
    let (parent, count, group, session) = {
        let family = live.process.family.lock();
        (family.parent.upgrade().map_or(0, |parent| live.numbers.show(parent.pid)), family.tasks.len().max(1), family.group, family.session)
    };
    let show_all = |number| live.process.numbers.show_all(number, &live.numbers);
    let (pid, id) = (live.numbers.show(live.process.pid), live.numbers.show(live.id()));
    let tracer = live.task.as_ref().and_then(|task| task.ptrace.tracer()).map_or(0, |tracer| live.numbers.show(tracer.pid));
    let _ = write!(text, "State:\t{letter} ({word})\nTgid:\t{pid}\nNgid:\t0\nPid:\t{id}\nPPid:\t{parent}\nTracerPid:\t{tracer}\n");
    let who = live.credentials();
    let users = [who.ruid, who.euid, who.suid, who.fsuid].map(|user| live.users.show_user(user));
    let _ = writeln!(text, "Uid:\t{}\t{}\t{}\t{}", users[0], users[1], users[2], users[3]);
    let groups = [who.rgid, who.egid, who.sgid, who.fsgid].map(|group| live.users.show_group(group));
    let _ = writeln!(text, "Gid:\t{}\t{}\t{}\t{}", groups[0], groups[1], groups[2], groups[3]);
    let descriptors = live.task.as_ref().map_or(0, |task| task.files().numbers().last().map_or(0, |last| *last as usize + 1));
    let _ = writeln!(text, "FDSize:\t{}", descriptors.next_power_of_two().max(64));
    let groups: Vec<String> = who.groups.iter().map(|group| live.users.show_group(*group).to_string()).collect();
    let _ = writeln!(text, "Groups:\t{} ", groups.join(" "));
    let _ = write!(text, "NStgid:\t{}\nNSpid:\t{}\n", show_all(live.process.pid), show_all(live.id()));
    let _ = write!(text, "NSpgid:\t{}\nNSsid:\t{}\nKthread:\t0\n", show_all(group), show_all(session));
    if let Some(mm) = live.mm() {
        memory_lines(&mut text, &Usage::of(&mm));
    }
    let _ = write!(text, "CoreDumping:\t0\nTHP_enabled:\t0\nThreads:\t{count}\n");
    let limit = live.process.limits.lock().soft(raw::RLIMIT_SIGPENDING);
    let sets = signal_sets(live);
    let queued = (sets.task_pending | sets.process_pending).count_ones();
    let _ = write!(text, "SigQ:\t{queued}/{limit}\nSigPnd:\t{:016x}\nShdPnd:\t{:016x}\n", sets.task_pending, sets.process_pending);
    let _ = write!(text, "SigBlk:\t{:016x}\nSigIgn:\t{:016x}\nSigCgt:\t{:016x}\n", sets.blocked, sets.ignored, sets.caught);
    let _ = write!(text, "CapInh:\t{:016x}\nCapPrm:\t{:016x}\nCapEff:\t{:016x}\n", who.inheritable, who.permitted, who.effective);
    let _ = write!(text, "CapBnd:\t{:016x}\nCapAmb:\t{:016x}\nNoNewPrivs:\t{}\n", who.bounding, who.ambient, u32::from(who.no_new_privs));
    let (mode, filters) = live.task.as_ref().map_or((0, 0), |task| task.seccomp.summary());
    let _ = write!(text, "Seccomp:\t{mode}\nSeccomp_filters:\t{filters}\n");
    let online = live.kernel.online_cpus();
    let cpus = live.task.as_ref().map_or(online, |task| task.scheduling.lock().cpus(online));
    let _ = write!(text, "Cpus_allowed:\t{}\nCpus_allowed_list:\t{}\n", cpu_mask(cpus, live.kernel.cpu_count()), cpu_list(cpus));
    text.push_str("Mems_allowed:\t1\nMems_allowed_list:\t0\n");
    let times = usage::times(&live.process, live.is_thread.then_some(live.task.as_deref()).flatten());
    let _ =
        write!(text, "voluntary_ctxt_switches:\t{}\nnonvoluntary_ctxt_switches:\t{}\n", times.voluntary_switches, times.forced_switches);
    Ok(text.into_bytes())
}

fn memory_lines(text: &mut String, usage: &Usage) {
    let lines = [
        ("VmPeak", usage.size),
        ("VmSize", usage.size),
        ("VmLck", usage.locked),
        ("VmPin", 0),
        ("VmHWM", usage.resident),
        ("VmRSS", usage.resident),
        ("RssAnon", usage.resident_anonymous),
        ("RssFile", usage.resident_file),
        ("RssShmem", usage.resident_shared),
        ("VmData", usage.data),
        ("VmStk", usage.stack),
        ("VmExe", usage.code),
        ("VmLib", usage.libraries),
        ("VmPTE", usage.resident / 512),
        ("VmSwap", 0),
    ];
    for (label, bytes) in lines {
        let _ = writeln!(text, "{label}:\t{:8} kB", bytes / 1024);
    }
}

/// `/proc/<pid>/comm`.
pub fn comm(live: &Live) -> Result<Vec<u8>, Errno> {
    let mut bytes = name(live);
    bytes.push(b'\n');
    Ok(bytes)
}

/// Rows of `/proc/<pid>/limits`: label, unit, number.
const LIMITS: [(&str, &str, u32); 16] = [
    ("Max cpu time", "seconds", raw::RLIMIT_CPU),
    ("Max file size", "bytes", raw::RLIMIT_FSIZE),
    ("Max data size", "bytes", raw::RLIMIT_DATA),
    ("Max stack size", "bytes", raw::RLIMIT_STACK),
    ("Max core file size", "bytes", raw::RLIMIT_CORE),
    ("Max resident set", "bytes", raw::RLIMIT_RSS),
    ("Max processes", "processes", raw::RLIMIT_NPROC),
    ("Max open files", "files", raw::RLIMIT_NOFILE),
    ("Max locked memory", "bytes", raw::RLIMIT_MEMLOCK),
    ("Max address space", "bytes", raw::RLIMIT_AS),
    ("Max file locks", "locks", raw::RLIMIT_LOCKS),
    ("Max pending signals", "signals", raw::RLIMIT_SIGPENDING),
    ("Max msgqueue size", "bytes", raw::RLIMIT_MSGQUEUE),
    ("Max nice priority", "", raw::RLIMIT_NICE),
    ("Max realtime priority", "", raw::RLIMIT_RTPRIO),
    ("Max realtime timeout", "us", raw::RLIMIT_RTTIME),
];

/// `/proc/<pid>/limits`.
pub fn limits(live: &Live) -> Result<Vec<u8>, Errno> {
    let limits = live.process.limits.lock().clone();
    let value = |value: u64| if value == u64::MAX { "unlimited".to_owned() } else { value.to_string() };
    let mut text = format!("{:<25} {:<20} {:<20} {:<10}\n", "Limit", "Soft Limit", "Hard Limit", "Units");
    for (label, unit, number) in LIMITS {
        let (soft, hard) = limits.0.get(number as usize).copied().unwrap_or((u64::MAX, u64::MAX));
        let _ = writeln!(text, "{label:<25} {:<20} {:<20} {unit:<10}", value(soft), value(hard));
    }
    Ok(text.into_bytes())
}

/// `/proc/<pid>/io`. What mapped files bring in by faults is the host's business, and not counted.
pub fn io(live: &Live) -> Result<Vec<u8>, Errno> {
    let Activity { calls, storage, .. } = activity::of_process(&live.process);
    let rows = [
        ("rchar", calls.bytes_in),
        ("wchar", calls.bytes_out),
        ("syscr", calls.operations_in),
        ("syscw", calls.operations_out),
        ("read_bytes", storage.bytes_in),
        ("write_bytes", storage.bytes_out),
        ("cancelled_write_bytes", 0),
    ];
    Ok(rows.iter().map(|(label, value)| format!("{label}: {value}\n")).collect::<String>().into_bytes())
}

/// `/proc/<pid>/schedstat`.
pub fn schedstat(live: &Live) -> Result<Vec<u8>, Errno> {
    let spent: u64 = threads(live).iter().map(|task| task.cpu_ns()).sum();
    Ok(format!("{spent} 0 1\n").into_bytes())
}

/// `/proc/<pid>/sched`, in short.
pub fn sched(live: &Live) -> Result<Vec<u8>, Errno> {
    let scheduling = live.task.as_ref().map(|task| *task.scheduling.lock()).unwrap_or_default();
    let count = live.process.family.lock().tasks.len();
    let spent: u64 = threads(live).iter().map(|task| task.cpu_ns()).sum();
    let mut text = format!("{} ({}, #threads: {count})\n{}\n", printable_name(live), live.numbers.show(live.id()), "-".repeat(67));
    let _ = writeln!(text, "{:<45}:{:>21}", "se.sum_exec_runtime", format!("{}.{:06}", spent / 1_000_000, spent % 1_000_000));
    let _ = writeln!(text, "{:<45}:{:>21}", "policy", scheduling.policy);
    let _ = writeln!(text, "{:<45}:{:>21}", "prio", 120 + scheduling.nice);
    Ok(text.into_bytes())
}
