//! `mounts`, `mountinfo` and `mountstats` of a task: the mounts that can be reached from its root.

use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};

use super::subject::Live;
use crate::vfs::mount::NO_LINKS;
use crate::vfs::{File, Mount, Path};

/// Number that stands for the mounts of files without a name in the tree (pipes, sockets); those of the tree are higher.
const NOWHERE: u64 = 15;
/// What the root mount says lies above it.
const ABOVE_ROOT: u64 = 1;

/// A mount as these files show it.
struct Row {
    number: u64,
    parent: u64,
    device: u64,
    /// What of its filesystem is shown.
    root: Vec<u8>,
    point: Vec<u8>,
    /// Of the mount: `rw`, `nosuid`, ….
    options: String,
    /// `shared:1`, `master:2`, each with a blank in front.
    propagation: String,
    /// Of the filesystem alone, a comma in front.
    details: &'static str,
    kind: String,
    source: String,
    /// The whole filesystem.
    read_only: bool,
}

fn rows(live: &Live) -> Vec<Row> {
    let space = live.task.as_ref().map_or(0, |task| task.namespaces().mount.number);
    let mounts: Vec<_> = live.kernel.mounts.all().into_iter().filter(|mount| space == 0 || mount.space() == space).collect();
    let root = live.task.as_ref().map(|task| task.fs().root).or_else(|| mounts.first().map(Mount::root_path));
    let Some(root) = root else { return Vec::new() };
    mounts.iter().filter_map(|mount| row(mount, &root)).collect()
}

fn row(mount: &Arc<Mount>, root: &Path) -> Option<Row> {
    let point = mount.root_path().display(root);
    if !point.starts_with(b"/") {
        return None;
    }
    Some(Row {
        number: mount.id,
        parent: mount.attached().map_or(ABOVE_ROOT, |place| place.mount.id),
        device: mount.root.inode.attributes().map_or(0, |attributes| attributes.device),
        root: within_filesystem(mount),
        point,
        options: options(mount.flags()),
        propagation: propagation(mount),
        details: if mount.kind == "devpts" { ",gid=5,mode=620,ptmxmode=666" } else { "" },
        kind: mount.kind.clone(),
        source: mount.source.clone(),
        read_only: mount.filesystem_is_read_only(),
    })
}

/// Where a mount's root lies in its filesystem: `/`, or deeper for bind mounts.
pub fn within_filesystem(mount: &Mount) -> Vec<u8> {
    let mut components = Vec::new();
    let mut name = Arc::clone(&mount.root);
    while let Some(parent) = name.parent() {
        components.push(name.component());
        name = parent;
    }
    if components.is_empty() {
        return b"/".to_vec();
    }
    components.iter().rev().flat_map(|component| [b"/", &component[..]].concat()).collect()
}

fn propagation(mount: &Mount) -> String {
    let own = mount.propagation();
    let mut text = String::new();
    if own.group != 0 {
        text.push_str(&format!(" shared:{}", own.group));
    }
    if own.master != 0 {
        text.push_str(&format!(" master:{}", own.master));
    }
    if own.unbindable {
        text.push_str(" unbindable");
    }
    text
}

fn options(flags: u32) -> String {
    let known = [
        (raw::MS_NOSUID, ",nosuid"),
        (raw::MS_NODEV, ",nodev"),
        (raw::MS_NOEXEC, ",noexec"),
        (raw::MS_NOATIME, ",noatime"),
        (raw::MS_NODIRATIME, ",nodiratime"),
        (raw::MS_RELATIME, ",relatime"),
        (NO_LINKS, ",nosymfollow"),
    ];
    let mut text = String::from(if flags & raw::MS_RDONLY != 0 { "ro" } else { "rw" });
    known.iter().filter(|(flag, _)| flags & flag != 0).for_each(|(_, word)| text.push_str(word));
    text
}

/// Blanks, line ends and backslashes in octal, as these files need it.
fn escaped(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| if b" \t\n\\".contains(byte) { format!("\\{byte:03o}").into_bytes() } else { vec![*byte] }).collect()
}

/// Number of the mount that a file was opened through.
pub fn number_of(file: &File) -> u64 {
    file.path.as_ref().map_or(NOWHERE, |path| path.mount.id)
}

/// `/proc/<pid>/mounts`.
pub fn mounts(live: &Live) -> Result<Vec<u8>, Errno> {
    let mut text = Vec::new();
    for row in rows(live) {
        text.extend(escaped(row.source.as_bytes()));
        text.push(b' ');
        text.extend(escaped(&row.point));
        // Here, unlike in `mountinfo`, it does not matter which of the two cannot be written to.
        let options = if row.read_only { row.options.replacen("rw", "ro", 1) } else { row.options };
        text.extend_from_slice(format!(" {} {options}{} 0 0\n", row.kind, row.details).as_bytes());
    }
    Ok(text)
}

/// `/proc/<pid>/mountinfo`.
pub fn mountinfo(live: &Live) -> Result<Vec<u8>, Errno> {
    let mut text = Vec::new();
    for row in rows(live) {
        let (major, minor) = (rustix::fs::major(row.device), rustix::fs::minor(row.device));
        text.extend_from_slice(format!("{} {} {major}:{minor} ", row.number, row.parent).as_bytes());
        text.extend(escaped(&row.root));
        text.push(b' ');
        text.extend(escaped(&row.point));
        text.extend_from_slice(format!(" {}{} - {} ", row.options, row.propagation, row.kind).as_bytes());
        text.extend(escaped(row.source.as_bytes()));
        let access = if row.read_only { "ro" } else { "rw" };
        text.extend_from_slice(format!(" {access}{}\n", row.details).as_bytes());
    }
    Ok(text)
}

/// `/proc/<pid>/mountstats`.
pub fn mountstats(live: &Live) -> Result<Vec<u8>, Errno> {
    let mut text = Vec::new();
    for row in rows(live) {
        text.extend_from_slice(b"device ");
        text.extend(escaped(row.source.as_bytes()));
        text.extend_from_slice(b" mounted on ");
        text.extend(escaped(&row.point));
        text.extend_from_slice(format!(" with fstype {}\n", row.kind).as_bytes());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::name::Name;
    use crate::vfs::{FileType, Mounts, anonymous::AnonymousInode};

    fn directory() -> Arc<Name> {
        Name::root(AnonymousInode::new("directory", FileType::Directory))
    }

    #[test]
    fn only_what_the_root_reaches_is_shown() {
        let table = Mounts::default();
        let top = Mount::new(directory(), "overlay", "overlay", 0);
        table.set_root(&top, 1);
        let inode = AnonymousInode::new("directory", FileType::Directory);
        let place = Path { mount: Arc::clone(&top), name: top.root.adopt(b"with blank", inode) };
        let inside = Mount::new(directory(), "tmpfs", "none", raw::MS_RDONLY | raw::MS_NOSUID);
        table.attach(&inside, place.clone());
        let elsewhere = Mount::new(directory(), "tmpfs", "none", 0);
        let from_top = |mount| row(mount, &top.root_path()).expect("reachable");
        assert_eq!((from_top(&top).point, from_top(&top).parent), (b"/".to_vec(), ABOVE_ROOT));
        assert_eq!((from_top(&inside).point, from_top(&inside).parent), (b"/with blank".to_vec(), top.id));
        assert_eq!(from_top(&inside).options, "ro,nosuid,relatime");
        assert_eq!(escaped(&from_top(&inside).point), b"/with\\040blank");
        assert!(row(&elsewhere, &top.root_path()).is_none());
        assert_eq!(row(&inside, &inside.root_path()).expect("reachable").point, b"/");
        assert!(row(&top, &inside.root_path()).is_none());
        let bind = Mount::new(Arc::clone(&place.name), "overlay", "overlay", 0);
        assert_eq!(within_filesystem(&bind), b"/with blank");
    }
}
