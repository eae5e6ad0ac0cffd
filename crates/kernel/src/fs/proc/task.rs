//! The directories `/proc/<pid>` and `/proc/<pid>/task/<tid>`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cloudpilot_abi::Errno;

use super::subject::{Live, Subject, parse_number};
use super::{links, memory, mounts, net, status};
use crate::Kernel;
use crate::fs::generated::{Directory, Entry, Fixed, Listing, Plan};
use crate::namespace::pid::PidNamespace;
use crate::namespace::user::Map;
use crate::task::{Process, Task};
use crate::vfs::inode::FileType;

/// `CAP_SYS_RESOURCE`.
const CAP_SYS_RESOURCE: u32 = 24;

/// `/proc/<pid>`.
pub fn process_directory(kernel: &Arc<Kernel>, numbers: &Arc<PidNamespace>, process: &Arc<Process>) -> Plan {
    let subject = Subject::process(kernel, numbers, process);
    let owner = subject.directory_owner();
    Plan::directory(Both { fixed: Fixed { about: subject, listing: COMMON }, more: PROCESS_ONLY }).owned(owner)
}

/// A fixed directory with some entries more.
struct Both {
    fixed: Fixed<Subject>,
    more: Listing<Subject>,
}

impl Directory for Both {
    fn lookup(&self, name: &[u8]) -> Result<Plan, Errno> {
        // Fails for the subject's sake first: nothing can be found in the directory of a process that is gone.
        self.fixed.about.live()?;
        match self.more.iter().find(|entry| entry.0.as_bytes() == name) {
            Some(entry) => Ok(entry.2(&self.fixed.about)),
            None => self.fixed.lookup(name),
        }
    }

    fn process(&self) -> Option<Arc<Process>> {
        Some(self.fixed.about.live().ok()?.process)
    }

    fn entries(&self) -> Result<Vec<Entry>, Errno> {
        self.fixed.about.live().map_err(|_| Errno::ENOENT)?;
        let listings = self.fixed.listing.iter().chain(self.more);
        let mut names: Vec<(&str, FileType)> = listings.map(|entry| (entry.0, entry.1)).collect();
        names.sort_unstable_by_key(|entry| entry.0);
        let entry =
            |(index, (name, file_type)): (usize, (&str, FileType))| Entry { name: name.into(), file_type, cursor: index as u64 + 3 };
        Ok(names.into_iter().enumerate().map(entry).collect())
    }
}

struct Threads {
    subject: Subject,
}

impl Directory for Threads {
    fn lookup(&self, name: &[u8]) -> Result<Plan, Errno> {
        let live = self.subject.live().map_err(|_| Errno::ENOENT)?;
        let tid = live.numbers.number(parse_number(name).ok_or(Errno::ENOENT)?);
        let tasks = live.process.family.lock().tasks.clone();
        let subject = match tasks.iter().find(|task| task.tid() == tid) {
            Some(task) => self.subject.thread(task),
            // A zombie still counts as its first thread.
            None if tasks.is_empty() && tid == live.process.pid => self.subject.clone(),
            None => return Err(Errno::ENOENT),
        };
        let owner = subject.directory_owner();
        Ok(Plan::directory(Both { fixed: Fixed { about: subject, listing: COMMON }, more: THREAD_ONLY }).owned(owner))
    }

    fn entries(&self) -> Result<Vec<Entry>, Errno> {
        let live = self.subject.live().map_err(|_| Errno::ENOENT)?;
        let mut numbers: Vec<i32> = live.process.family.lock().tasks.iter().map(|task| live.numbers.show(task.tid())).collect();
        if numbers.is_empty() {
            numbers.push(live.numbers.show(live.process.pid));
        }
        numbers.sort_unstable();
        let entry = |tid: i32| Entry { name: tid.to_string().into_bytes(), file_type: FileType::Directory, cursor: 3 + tid as u64 };
        Ok(numbers.into_iter().map(entry).collect())
    }
}

fn threads(subject: &Subject) -> Plan {
    Plan::directory(Threads { subject: subject.clone() }).owned(subject.directory_owner())
}

fn comm(subject: &Subject) -> Plan {
    let target = subject.clone();
    subject.open_file(status::comm).mode(0o644).taking(move |writer, bytes| {
        let live = target.live()?;
        // Only threads of the same process may rename each other.
        if writer.is_some_and(|writer| !Arc::ptr_eq(&writer.process, &live.process)) {
            return Err(Errno::EINVAL);
        }
        let end = bytes.iter().position(|byte| matches!(byte, 0 | b'\n')).unwrap_or(bytes.len());
        *live.task()?.name.lock() = bytes[..end.min(15)].to_vec();
        Ok(())
    })
}

/// Parses a decimal number with blanks around it, as settings are written.
pub fn parse_setting(bytes: &[u8]) -> Result<i64, Errno> {
    let text = std::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?;
    text.trim_end_matches('\0').trim().parse().map_err(|_| Errno::EINVAL)
}

fn oom_score_adj(subject: &Subject) -> Plan {
    let target = subject.clone();
    let show = |live: &Live| Ok(format!("{}\n", live.process.oom_score_adjustment.load(Ordering::Relaxed)).into_bytes());
    subject.open_file(show).mode(0o644).taking(move |writer, bytes| {
        let live = target.live()?;
        let wanted = i32::try_from(parse_setting(bytes)?).map_err(|_| Errno::EINVAL)?;
        if !(-1000..=1000).contains(&wanted) {
            return Err(Errno::EINVAL);
        }
        let present = live.process.oom_score_adjustment.load(Ordering::Relaxed);
        if wanted < present && writer.is_some_and(|writer| !writer.credentials().has(CAP_SYS_RESOURCE)) {
            return Err(Errno::EACCES);
        }
        live.process.oom_score_adjustment.store(wanted, Ordering::Relaxed);
        Ok(())
    })
}

/// `clear_refs`: what was touched is not counted, so that forgetting it changes nothing.
fn clear_refs(subject: &Subject) -> Plan {
    const KINDS: std::ops::RangeInclusive<i64> = 1..=5;
    let plan = subject.open_file(|_| Err(Errno::EINVAL));
    plan.mode(0o200).taking(|_, bytes| if KINDS.contains(&parse_setting(bytes)?) { Ok(()) } else { Err(Errno::EINVAL) })
}

fn oom_score(live: &Live) -> Result<Vec<u8>, Errno> {
    let resident = live.mm().map_or(0, |mm| memory::Usage::of(&mm).resident);
    let share = (resident.saturating_mul(1000) / live.kernel.limits.memory_bytes.max(1)) as i32;
    // As Linux: 666 stands for nothing used, 1333 for everything.
    let score = (1000 + share + live.process.oom_score_adjustment.load(Ordering::Relaxed)) * 2 / 3;
    Ok(format!("{}\n", score.max(0)).into_bytes())
}

/// A setting that is accepted and always reads the same.
fn constant(subject: &Subject, permissions: u32, text: &'static str) -> Plan {
    fixed(subject, text).mode(permissions).taking(|_, _| Ok(()))
}

/// A text that cannot be changed.
fn fixed(subject: &Subject, text: &'static str) -> Plan {
    let about = subject.clone();
    Plan::file(move || about.live().map(|_| text.as_bytes().to_vec())).owned(subject.owner())
}

fn memory_file(subject: &Subject) -> Plan {
    subject.traced_special(0o600, memory::open_memory(subject))
}

fn pagemap(subject: &Subject) -> Plan {
    subject.traced_special(0o400, memory::open_pagemap(subject))
}

fn personality(live: &Live) -> Result<Vec<u8>, Errno> {
    let task: &Arc<Task> = live.task()?;
    Ok(format!("{:08x}\n", task.scheduling.lock().personality).into_bytes())
}

fn system_call(live: &Live) -> Result<Vec<u8>, Errno> {
    live.task()?;
    Ok(b"running\n".to_vec())
}

/// `uid_map` and `gid_map`: shown in the numbers of the namespace above, written once.
fn id_map(subject: &Subject, which: Map) -> Plan {
    let target = subject.clone();
    // The namespace outlives the process.
    let shown = subject.live().map(|live| Arc::clone(&live.credentials().user));
    let make = move || Ok(shown.as_ref().map_err(|errno| *errno)?.map_text(which).into_bytes());
    Plan::file(make).mode(0o644).owned(subject.owner()).taking(move |writer, bytes| {
        let user = Arc::clone(&target.live()?.credentials().user);
        let writer = writer.ok_or(Errno::EPERM)?;
        user.write_map(which, &writer.credentials(), bytes)
    })
}

/// Project numbers mean nothing here.
const PROJECT_MAP: &str = "         0          0 4294967295\n";

fn setgroups(subject: &Subject) -> Plan {
    let (shown, target) = (subject.clone(), subject.clone());
    let make = move || Ok(shown.live()?.credentials().user.setgroups_text().as_bytes().to_vec());
    Plan::file(make).mode(0o644).owned(subject.owner()).taking(move |writer, bytes| {
        let user = Arc::clone(&target.live()?.credentials().user);
        let writer = writer.ok_or(Errno::EPERM)?;
        user.write_setgroups(&writer.credentials(), bytes)
    })
}

/// What processes and threads have.
const COMMON: Listing<Subject> = &[
    ("arch_status", FileType::Regular, |subject| fixed(subject, "")),
    ("auxv", FileType::Regular, |subject| subject.traced_file(0o400, memory::auxv)),
    ("cgroup", FileType::Regular, |subject| fixed(subject, "0::/\n")),
    ("clear_refs", FileType::Regular, clear_refs),
    ("cmdline", FileType::Regular, |subject| subject.open_file(memory::cmdline)),
    ("comm", FileType::Regular, comm),
    ("cpuset", FileType::Regular, |subject| fixed(subject, "/\n")),
    ("cwd", FileType::Symlink, links::cwd),
    ("environ", FileType::Regular, |subject| subject.traced_file(0o400, memory::environ)),
    ("exe", FileType::Symlink, links::exe),
    ("fd", FileType::Directory, links::descriptors),
    ("fdinfo", FileType::Directory, links::descriptor_infos),
    ("gid_map", FileType::Regular, |subject| id_map(subject, Map::Groups)),
    ("io", FileType::Regular, |subject| subject.traced_file(0o400, status::io)),
    ("limits", FileType::Regular, |subject| subject.open_file(status::limits)),
    ("loginuid", FileType::Regular, |subject| constant(subject, 0o644, "4294967295")),
    ("maps", FileType::Regular, |subject| subject.traced_file(0o444, memory::maps)),
    ("mem", FileType::Regular, memory_file),
    ("mountinfo", FileType::Regular, |subject| subject.open_file(mounts::mountinfo)),
    ("mounts", FileType::Regular, |subject| subject.open_file(mounts::mounts)),
    ("net", FileType::Directory, net::directory),
    ("ns", FileType::Directory, links::namespaces),
    ("numa_maps", FileType::Regular, |subject| subject.traced_file(0o444, memory::numa_maps)),
    ("oom_adj", FileType::Regular, |subject| constant(subject, 0o644, "0\n")),
    ("oom_score", FileType::Regular, |subject| subject.open_file(oom_score)),
    ("oom_score_adj", FileType::Regular, oom_score_adj),
    ("pagemap", FileType::Regular, pagemap),
    ("personality", FileType::Regular, |subject| subject.traced_file(0o400, personality)),
    ("projid_map", FileType::Regular, |subject| fixed(subject, PROJECT_MAP)),
    ("root", FileType::Symlink, links::root),
    ("sched", FileType::Regular, |subject| subject.open_file(status::sched)),
    ("schedstat", FileType::Regular, |subject| subject.open_file(status::schedstat)),
    ("sessionid", FileType::Regular, |subject| fixed(subject, "4294967295")),
    ("setgroups", FileType::Regular, setgroups),
    ("smaps", FileType::Regular, |subject| subject.traced_file(0o444, memory::smaps)),
    ("smaps_rollup", FileType::Regular, |subject| subject.traced_file(0o444, memory::smaps_rollup)),
    ("stack", FileType::Regular, |subject| subject.traced_file(0o400, |_| Ok(Vec::new()))),
    ("stat", FileType::Regular, |subject| subject.open_file(status::stat)),
    ("statm", FileType::Regular, |subject| subject.open_file(status::statm)),
    ("status", FileType::Regular, |subject| subject.open_file(status::status)),
    ("syscall", FileType::Regular, |subject| subject.traced_file(0o400, system_call)),
    ("uid_map", FileType::Regular, |subject| id_map(subject, Map::Users)),
    ("wchan", FileType::Regular, |subject| fixed(subject, "0")),
];

/// What only processes have.
const PROCESS_ONLY: Listing<Subject> = &[
    ("autogroup", FileType::Regular, |subject| constant(subject, 0o644, "/autogroup-1 nice 0\n")),
    ("coredump_filter", FileType::Regular, |subject| constant(subject, 0o644, "00000033\n")),
    ("mountstats", FileType::Regular, |subject| subject.traced_file(0o400, mounts::mountstats)),
    ("task", FileType::Directory, threads),
    ("timers", FileType::Regular, |subject| fixed(subject, "")),
    ("timerslack_ns", FileType::Regular, |subject| constant(subject, 0o666, "50000\n")),
];

/// What only threads have.
const THREAD_ONLY: Listing<Subject> = &[("children", FileType::Regular, |subject| {
    subject.open_file(|live| {
        let leads = live.task()?.tid() == live.process.pid;
        let children = if leads { live.process.family.lock().children.clone() } else { Vec::new() };
        Ok(children.iter().map(|child| format!("{} ", live.numbers.show(child.pid))).collect::<String>().into_bytes())
    })
})];
