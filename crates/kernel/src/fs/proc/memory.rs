//! Files about an address space: `maps`, `smaps`, `cmdline`, `environ`, `auxv`, `mem`, `pagemap`.

use std::any::Any;
use std::fmt::Write;
use std::sync::Arc;

use cloudpilot_abi::{Errno, PAGE_SIZE, raw};

use super::links::place_text;
use super::subject::{Live, Subject};
use crate::io::{Destination, Source};
use crate::mm::report::AreaInfo;
use crate::mm::{Mm, policy};
use crate::task::Task;
use crate::vfs::file::{File, FileOps};

/// Operations of an open file.
pub type Ops = Arc<dyn FileOps>;

/// Most bytes of arguments or environment that are shown; exec lets no more through.
const STRINGS_LIMIT: u64 = 8 << 20;
/// Bytes moved at once between two tasks' memory.
const PIECE: usize = 64 << 10;

/// Sums over the areas of an address space, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub size: u64,
    pub resident: u64,
    pub locked: u64,
    pub resident_anonymous: u64,
    pub resident_file: u64,
    pub resident_shared: u64,
    pub code: u64,
    pub libraries: u64,
    pub data: u64,
    pub stack: u64,
}

impl Usage {
    /// Of an address space.
    pub fn of(mm: &Mm) -> Self {
        let layout = mm.layout();
        let mut usage = Self::default();
        for area in mm.areas() {
            let length = area.end - area.start;
            usage.size += length;
            usage.resident += area.resident;
            usage.locked += if area.marks.locked { length } else { 0 };
            match (&area.file, area.shared) {
                (_, true) => usage.resident_shared += area.resident,
                (Some(_), false) => usage.resident_file += area.resident,
                (None, false) => usage.resident_anonymous += area.resident,
            }
            if area.name.as_deref() == Some("[stack]") {
                usage.stack += length;
            } else if area.protection & raw::PROT_EXEC != 0 && area.file.is_some() {
                let program = area.start <= layout.code.0 && layout.code.0 < area.end;
                *if program { &mut usage.code } else { &mut usage.libraries } += length;
            } else if area.protection & raw::PROT_WRITE != 0 && !area.shared {
                usage.data += length;
            }
        }
        usage
    }
}

/// The first line of an area, as `maps` and `smaps` have it.
fn area_line(line: &mut Vec<u8>, area: &AreaInfo, live: &Live) {
    let flag = |bit: u32, letter: char| if area.protection & bit != 0 { letter } else { '-' };
    let head = format!(
        "{:08x}-{:08x} {}{}{}{} {:08x} {:02x}:{:02x} {} ",
        area.start,
        area.end,
        flag(raw::PROT_READ, 'r'),
        flag(raw::PROT_WRITE, 'w'),
        flag(raw::PROT_EXEC, 'x'),
        if area.shared { 's' } else { 'p' },
        area.offset,
        area.device >> 8 & 0xfff,
        area.device & 0xff,
        area.inode
    );
    line.extend_from_slice(head.as_bytes());
    let name = match (&area.file, &area.name) {
        (_, Some(name)) => name.clone().into_bytes(),
        (Some(path), None) => place_text(path, live.task.as_deref()),
        (None, None) => Vec::new(),
    };
    if !name.is_empty() {
        // Names start in column 74, as on Linux.
        line.extend(std::iter::repeat_n(b' ', 73_usize.saturating_sub(head.len())));
        for byte in name {
            if byte == b'\n' { line.extend_from_slice(b"\\012") } else { line.push(byte) }
        }
    }
    line.push(b'\n');
}

/// `/proc/<pid>/maps`.
pub fn maps(live: &Live) -> Result<Vec<u8>, Errno> {
    let mut text = Vec::new();
    for area in live.mm().map(|mm| mm.areas()).unwrap_or_default() {
        area_line(&mut text, &area, live);
    }
    Ok(text)
}

/// The figures of some areas; sharing between processes is not told apart, so that proportional and resident sizes agree.
fn figures(areas: &[AreaInfo], single: bool) -> String {
    let sum = |select: &dyn Fn(&AreaInfo) -> bool| areas.iter().filter(|area| select(area)).map(|area| area.resident / 1024).sum::<u64>();
    let resident = sum(&|_| true);
    let anonymous = sum(&|area| area.file.is_none() && !area.shared);
    let shared = sum(&|area| area.shared);
    let (clean, dirty) = (sum(&|area| area.file.is_some() && !area.shared), anonymous);
    let mut text = String::new();
    if single {
        let size = areas.iter().map(|area| (area.end - area.start) / 1024).sum::<u64>();
        let _ = write!(text, "Size:           {size:8} kB\nKernelPageSize:        4 kB\nMMUPageSize:           4 kB\n");
    }
    let rows = [
        ("Rss", resident),
        ("Pss", resident),
        ("Pss_Dirty", dirty),
        ("Shared_Clean", 0),
        ("Shared_Dirty", shared),
        ("Private_Clean", clean),
        ("Private_Dirty", dirty),
        ("Referenced", resident),
        ("Anonymous", anonymous),
        ("KSM", 0),
        ("LazyFree", 0),
        ("AnonHugePages", 0),
        ("ShmemPmdMapped", 0),
        ("FilePmdMapped", 0),
        ("Shared_Hugetlb", 0),
        ("Private_Hugetlb", 0),
        ("Swap", 0),
        ("SwapPss", 0),
        ("Locked", sum(&|area| area.marks.locked)),
    ];
    for (label, value) in rows {
        let _ = writeln!(text, "{:<16}{value:8} kB", format!("{label}:"));
    }
    text
}

/// `/proc/<pid>/smaps`.
pub fn smaps(live: &Live) -> Result<Vec<u8>, Errno> {
    let mut text = Vec::new();
    for area in live.mm().map(|mm| mm.areas()).unwrap_or_default() {
        area_line(&mut text, &area, live);
        text.extend_from_slice(figures(std::slice::from_ref(&area), true).as_bytes());
        text.extend_from_slice(format!("THPeligible:           0\nVmFlags: {}\n", flag_words(&area)).as_bytes());
    }
    Ok(text)
}

/// The two letters of each flag of an area, in Linux's order.
fn flag_words(area: &AreaInfo) -> String {
    let marks = area.marks;
    let own_writable = !area.shared && area.protection & raw::PROT_WRITE != 0;
    let flags = [
        (area.protection & raw::PROT_READ != 0, "rd"),
        (area.protection & raw::PROT_WRITE != 0, "wr"),
        (area.protection & raw::PROT_EXEC != 0, "ex"),
        (area.shared, "sh"),
        (true, "mr"),
        (marks.may_write, "mw"),
        (true, "me"),
        (area.shared && marks.may_write, "ms"),
        (marks.grows_down, "gd"),
        (marks.locked, "lo"),
        (marks.keep_from_fork, "dc"),
        (own_writable, "ac"),
        (marks.wipe_on_fork, "wf"),
        (marks.sealed, "sl"),
    ];
    flags.iter().filter(|(is_set, _)| *is_set).map(|(_, word)| format!("{word} ")).collect()
}

/// `/proc/<pid>/numa_maps`: everything is on the only node.
pub fn numa_maps(live: &Live) -> Result<Vec<u8>, Errno> {
    let Some(mm) = live.mm() else { return Ok(Vec::new()) };
    let mut text = Vec::new();
    for area in mm.areas() {
        let policy = match mm.policy_at(area.start).flatten() {
            None => "default",
            Some(policy) => match policy.kind {
                policy::PREFERRED => "prefer:0",
                policy::BIND => "bind:0",
                policy::LOCAL => "local",
                policy::PREFERRED_MANY => "prefer (many):0",
                policy::WEIGHTED_INTERLEAVE => "weighted interleave:0",
                _ => "interleave:0",
            },
        };
        text.extend_from_slice(format!("{:08x} {policy}", area.start).as_bytes());
        match (&area.file, area.name.as_deref()) {
            (_, Some("[heap]")) => text.extend_from_slice(b" heap"),
            (_, Some("[stack]")) => text.extend_from_slice(b" stack"),
            (Some(path), _) => {
                text.extend_from_slice(b" file=");
                text.extend(place_text(path, live.task.as_deref()));
            }
            _ => {}
        }
        let pages = area.resident / PAGE_SIZE;
        if pages > 0 {
            let kind = if area.file.is_some() { "mapped" } else { "anon" };
            text.extend_from_slice(format!(" {kind}={pages} N0={pages} kernelpagesize_kB=4").as_bytes());
        }
        text.push(b'\n');
    }
    Ok(text)
}

/// `/proc/<pid>/smaps_rollup`.
pub fn smaps_rollup(live: &Live) -> Result<Vec<u8>, Errno> {
    let areas = live.mm().ok_or(Errno::ESRCH)?.areas();
    let (start, end) = (areas.first().map_or(0, |area| area.start), areas.last().map_or(0, |area| area.end));
    let text = format!("{start:08x}-{end:08x} ---p 00000000 00:00 0                          [rollup]\n{}", figures(&areas, false));
    Ok(text.into_bytes())
}

fn read_range(mm: &Mm, (start, end): (u64, u64)) -> Vec<u8> {
    let mut bytes = vec![0; end.saturating_sub(start).min(STRINGS_LIMIT) as usize];
    let count = mm.read_foreign(start, &mut bytes);
    bytes.truncate(count);
    bytes
}

/// `/proc/<pid>/cmdline`. A program that overwrote the end of its arguments (`setproctitle`) has its text go on into the environment.
pub fn cmdline(live: &Live) -> Result<Vec<u8>, Errno> {
    Ok(live.mm().map_or_else(Vec::new, |mm| command_line(&mm)))
}

/// What a program was started with, each argument with its zero byte.
pub fn command_line(mm: &Mm) -> Vec<u8> {
    let layout = mm.layout();
    let mut bytes = read_range(mm, layout.arguments);
    if bytes.last().is_some_and(|last| *last != 0) {
        bytes.extend(read_range(mm, layout.environment));
        let end = bytes.iter().position(|byte| *byte == 0).map_or(bytes.len(), |end| end + 1);
        bytes.truncate(end);
    }
    bytes
}

/// `/proc/<pid>/environ`.
pub fn environ(live: &Live) -> Result<Vec<u8>, Errno> {
    Ok(live.mm().map(|mm| read_range(&mm, mm.layout().environment)).unwrap_or_default())
}

/// `/proc/<pid>/auxv`.
pub fn auxv(live: &Live) -> Result<Vec<u8>, Errno> {
    let words = live.mm().map(|mm| mm.auxiliary_vector()).unwrap_or_default();
    Ok(words.iter().flat_map(|word| word.to_le_bytes()).collect())
}

/// Opens `/proc/<pid>/mem`. The address space is the one of the open, even when the task execs later.
pub fn open_memory(subject: &Subject) -> impl Fn(u32, &Arc<Task>) -> Result<Ops, Errno> + Send + Sync + 'static {
    let subject = subject.clone();
    move |_flags, _task| Ok(Arc::new(Memory { mm: subject.live()?.mm().map(|mm| Arc::downgrade(&mm)) }) as Ops)
}

struct Memory {
    /// Weak: an open file must not keep the memory of a dead process.
    mm: Option<std::sync::Weak<Mm>>,
}

impl Memory {
    fn mm(&self) -> Option<Arc<Mm>> {
        self.mm.as_ref().and_then(std::sync::Weak::upgrade)
    }
}

impl FileOps for Memory {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _file: &File, destination: &mut Destination<'_>, offset: u64) -> Result<usize, Errno> {
        let Some(mm) = self.mm() else { return Ok(0) };
        let mut buffer = vec![0; destination.remaining().min(PIECE)];
        let mut done = 0;
        while destination.remaining() > 0 {
            let wanted = destination.remaining().min(PIECE);
            let count = mm.read_foreign(offset.wrapping_add(done as u64), &mut buffer[..wanted]);
            if count == 0 {
                return if done == 0 { Err(Errno::EIO) } else { Ok(done) };
            }
            let stored = destination.put(&buffer[..count])?;
            done += stored;
            if stored < wanted {
                break;
            }
        }
        Ok(done)
    }

    fn write(&self, _file: &File, source: &mut Source<'_>, offset: u64) -> Result<usize, Errno> {
        let Some(mm) = self.mm() else { return Ok(0) };
        let mut done = 0;
        while source.remaining() > 0 {
            let bytes = source.take_vec(PIECE)?;
            match mm.write_foreign(offset.wrapping_add(done as u64), &bytes, true) {
                Ok(count) => done += count,
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    fn seekable(&self) -> bool {
        true
    }
}

/// Opens `/proc/<pid>/pagemap`.
pub fn open_pagemap(subject: &Subject) -> impl Fn(u32, &Arc<Task>) -> Result<Ops, Errno> + Send + Sync + 'static {
    let subject = subject.clone();
    move |_flags, _task| Ok(Arc::new(Pagemap { subject: subject.clone() }) as Ops)
}

/// One word a page: whether there is one. Frame numbers read as 0, as for those without `CAP_SYS_ADMIN`.
struct Pagemap {
    subject: Subject,
}

impl FileOps for Pagemap {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _file: &File, destination: &mut Destination<'_>, offset: u64) -> Result<usize, Errno> {
        const PRESENT: u64 = 1 << 63;
        const FILE_OR_SHARED: u64 = 1 << 61;
        if !offset.is_multiple_of(8) || !destination.remaining().is_multiple_of(8) {
            return Err(Errno::EINVAL);
        }
        let areas = self.subject.live()?.mm().map(|mm| mm.areas()).unwrap_or_default();
        let mut words = Vec::new();
        for index in 0..destination.remaining().min(PIECE) as u64 / 8 {
            let Some(address) = (offset / 8 + index).checked_mul(PAGE_SIZE).filter(|address| *address < 1 << 47) else { break };
            let found = areas.partition_point(|area| area.end <= address);
            let area = areas.get(found).filter(|area| area.start <= address && area.resident > 0);
            let word = area.map_or(0, |area| PRESENT | if area.shared || area.file.is_some() { FILE_OR_SHARED } else { 0 });
            words.extend_from_slice(&word.to_le_bytes());
        }
        destination.put(&words)
    }

    fn seekable(&self) -> bool {
        true
    }
}
