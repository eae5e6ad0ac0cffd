//! Links of a task: `exe`, `cwd`, `root`, `fd/`, `ns/`; and `fdinfo/`.

use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};

use super::locks;
use super::subject::{Live, Subject, parse_number};
use crate::fs::generated::{Directory, Entry, Kind, Plan, Resolve};
use crate::namespace::file::Held;
use crate::task::Task;
use crate::vfs::inode::{FileType, LinkTarget};
use crate::vfs::{File, Path};

/// What a place is called, as seen by a task; without one, as seen from the root of its mounts.
pub fn place_text(path: &Path, viewer: Option<&Task>) -> Vec<u8> {
    if let Some(viewer) = viewer {
        return path.display(&viewer.fs().root);
    }
    let mut root = Arc::clone(&path.mount);
    while let Some(place) = root.attached() {
        root = place.mount;
    }
    path.display(&root.root_path())
}

/// A link to a place that is found when followed, for those who might trace the subject.
fn place_link(subject: &Subject, find: fn(&Live) -> Result<Path, Errno>) -> Plan {
    let subject = subject.clone();
    let owner = subject.owner();
    let resolve: Resolve = Box::new(move |task| {
        subject.judge(task)?;
        let path = find(&subject.live()?)?;
        // A program may have come from a file that is in no tree (`memfd_create(2)`).
        let text = path.inode().link_text().unwrap_or_else(|| place_text(&path, Some(task)));
        Ok(LinkTarget::Place { text, path: Some(path), inode: None })
    });
    Plan { permissions: 0o777, owner, kind: Kind::Link(resolve) }
}

/// `/proc/<pid>/exe`.
pub fn exe(subject: &Subject) -> Plan {
    place_link(subject, |live| {
        live.task.as_ref().ok_or(Errno::ENOENT)?;
        live.process.executable.lock().clone().ok_or(Errno::ENOENT)
    })
}

/// `/proc/<pid>/cwd`.
pub fn cwd(subject: &Subject) -> Plan {
    place_link(subject, |live| Ok(live.task.as_ref().ok_or(Errno::ENOENT)?.fs().cwd))
}

/// `/proc/<pid>/root`.
pub fn root(subject: &Subject) -> Plan {
    place_link(subject, |live| Ok(live.task.as_ref().ok_or(Errno::ENOENT)?.fs().root))
}

/// What the link to an open file reads.
fn file_text(file: &File, viewer: &Task) -> Vec<u8> {
    match &file.path {
        Some(path) => place_text(path, Some(viewer)),
        None => file.inode.link_text().unwrap_or_else(|| b"?".to_vec()),
    }
}

/// The numbers of a task's open files, and plans for them.
struct Descriptors {
    subject: Subject,
    plan: fn(&Subject, i32, &File) -> Plan,
    file_type: FileType,
}

impl Directory for Descriptors {
    fn lookup(&self, name: &[u8]) -> Result<Plan, Errno> {
        let number = parse_number(name).ok_or(Errno::ENOENT)?;
        let live = self.subject.live().map_err(|_| Errno::ENOENT)?;
        let file = live.task().and_then(|task| task.files().get(number)).map_err(|_| Errno::ENOENT)?;
        Ok((self.plan)(&self.subject, number, &file))
    }

    fn entries(&self) -> Result<Vec<Entry>, Errno> {
        let live = self.subject.live().map_err(|_| Errno::ENOENT)?;
        let numbers = live.task.as_ref().map_or_else(Vec::new, |task| task.files().numbers());
        let entry = |number: i32| Entry { name: number.to_string().into_bytes(), file_type: self.file_type, cursor: number as u64 + 3 };
        Ok(numbers.into_iter().map(entry).collect())
    }

    fn subdirectories(&self) -> u64 {
        0
    }
}

/// `/proc/<pid>/fd`.
pub fn descriptors(subject: &Subject) -> Plan {
    let directory = Descriptors { subject: subject.clone(), plan: descriptor_link, file_type: FileType::Symlink };
    // Whatever may be looked at, a process may list its own files.
    Plan::directory(directory).mode(0o500).owned(subject.directory_owner())
}

/// `/proc/<pid>/fdinfo`.
pub fn descriptor_infos(subject: &Subject) -> Plan {
    let directory = Descriptors { subject: subject.clone(), plan: descriptor_info, file_type: FileType::Regular };
    Plan::directory(directory).mode(0o555).owned(subject.directory_owner())
}

fn descriptor_link(subject: &Subject, number: i32, file: &File) -> Plan {
    let read = if file.readable() { 0o500 } else { 0o100 };
    let write = if file.writable() { 0o300 } else { 0o100 };
    let owner = subject.owner();
    let subject = subject.clone();
    let resolve: Resolve = Box::new(move |task| {
        subject.judge(task)?;
        let live = subject.live()?;
        let file = live.task().and_then(|owner| owner.files().get(number)).map_err(|_| Errno::ENOENT)?;
        let text = file_text(&file, task);
        Ok(LinkTarget::Place { text, path: file.path.clone(), inode: Some(Arc::clone(&file.inode)) })
    });
    Plan { permissions: read | write, owner, kind: Kind::Link(resolve) }
}

fn descriptor_info(subject: &Subject, number: i32, _file: &File) -> Plan {
    let judged = subject.clone();
    let owner = subject.owner();
    let subject = subject.clone();
    let make = move || {
        let live = subject.live()?;
        let (file, close_on_exec) = live.task()?.files().get_with_flag(number).map_err(|_| Errno::ENOENT)?;
        // Not waited for: a reader that holds the position may sleep.
        let position = file.position.try_lock().map_or(0, |position| *position);
        let flags = file.flags() | if close_on_exec { raw::O_CLOEXEC } else { 0 };
        let inode = file.inode.attributes().map_or(0, |attributes| attributes.inode);
        let mut text = format!("pos:\t{position}\nflags:\t0{flags:o}\nmnt_id:\t{}\nino:\t{inode}\n", super::mounts::number_of(&file));
        text.push_str(&locks::of_file(&live, &file));
        text.push_str(&file.ops.describe(&file));
        text.push_str(&crate::fs::pidfd::describe(&file, &live.numbers));
        Ok(text.into_bytes())
    };
    Plan::file(make).mode(0o400).owned(owner).judged(move |task| judged.judge(task))
}

/// The links of `ns/`.
const NAMESPACES: [&str; 10] = ["cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "time_for_children", "user", "uts"];

struct Namespaces {
    subject: Subject,
}

/// `/proc/<pid>/ns`.
pub fn namespaces(subject: &Subject) -> Plan {
    Plan::directory(Namespaces { subject: subject.clone() }).mode(0o511).owned(subject.owner())
}

impl Directory for Namespaces {
    fn lookup(&self, name: &[u8]) -> Result<Plan, Errno> {
        let name = *NAMESPACES.iter().find(|entry| entry.as_bytes() == name).ok_or(Errno::ENOENT)?;
        let subject = self.subject.clone();
        let resolve: Resolve = Box::new(move |task| {
            subject.judge(task)?;
            let held = Held::of(subject.live()?.task()?, name.as_bytes()).ok_or(Errno::ENOENT)?;
            Ok(LinkTarget::Place { text: held.text(), path: None, inode: Some(held.inode()) })
        });
        Ok(Plan { permissions: 0o777, owner: self.subject.owner(), kind: Kind::Link(resolve) })
    }

    fn entries(&self) -> Result<Vec<Entry>, Errno> {
        let entry = |(index, name): (usize, &&str)| Entry { name: (*name).into(), file_type: FileType::Symlink, cursor: index as u64 + 3 };
        Ok(NAMESPACES.iter().enumerate().map(entry).collect())
    }
}
