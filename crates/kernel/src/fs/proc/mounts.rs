//! `mounts`, `mountinfo` and `mountstats` of a task.

use cloudpilot_abi::Errno;

use super::subject::Live;
use crate::vfs::File;

/// A mount as these files show it.
struct Row {
    number: u64,
    parent: u64,
    device: u64,
    point: Vec<u8>,
    options: String,
    kind: &'static str,
    source: &'static str,
}

fn rows(_live: &Live) -> Vec<Row> {
    let table: [(&str, &str, &str, &str); 5] = [
        ("/", "overlay", "overlay", "rw,relatime"),
        ("/proc", "proc", "proc", "rw,nosuid,nodev,noexec,relatime"),
        ("/sys", "sysfs", "sysfs", "ro,nosuid,nodev,noexec,relatime"),
        ("/dev", "tmpfs", "tmpfs", "rw,nosuid,mode=755"),
        ("/dev/pts", "devpts", "devpts", "rw,nosuid,noexec,relatime,gid=5,mode=620,ptmxmode=666"),
    ];
    let row = |(index, (point, kind, source, options)): (usize, (&str, &'static str, &'static str, &str))| Row {
        number: 20 + index as u64,
        parent: if index == 0 { 1 } else { 20 },
        device: 0x14 + index as u64,
        point: point.into(),
        options: options.to_owned(),
        kind,
        source,
    };
    table.into_iter().enumerate().map(row).collect()
}

/// Blanks, line ends and backslashes in octal, as these files need it.
fn escaped(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| if b" \t\n\\".contains(byte) { format!("\\{byte:03o}").into_bytes() } else { vec![*byte] }).collect()
}

/// Number of the mount that a file was opened through.
pub fn number_of(_file: &File) -> u64 {
    20
}

/// `/proc/<pid>/mounts`.
pub fn mounts(live: &Live) -> Result<Vec<u8>, Errno> {
    let mut text = Vec::new();
    for row in rows(live) {
        text.extend_from_slice(row.source.as_bytes());
        text.push(b' ');
        text.extend(escaped(&row.point));
        text.extend_from_slice(format!(" {} {} 0 0\n", row.kind, row.options).as_bytes());
    }
    Ok(text)
}

/// `/proc/<pid>/mountinfo`.
pub fn mountinfo(live: &Live) -> Result<Vec<u8>, Errno> {
    let mut text = Vec::new();
    for row in rows(live) {
        text.extend_from_slice(format!("{} {} {}:{} / ", row.number, row.parent, row.device >> 8, row.device & 0xff).as_bytes());
        text.extend(escaped(&row.point));
        text.extend_from_slice(format!(" {} - {} {} rw\n", row.options, row.kind, row.source).as_bytes());
    }
    Ok(text)
}

/// `/proc/<pid>/mountstats`.
pub fn mountstats(live: &Live) -> Result<Vec<u8>, Errno> {
    let mut text = Vec::new();
    for row in rows(live) {
        text.extend_from_slice(format!("device {} mounted on ", row.source).as_bytes());
        text.extend(escaped(&row.point));
        text.extend_from_slice(format!(" with fstype {}\n", row.kind).as_bytes());
    }
    Ok(text)
}
