//! Filesystems that programs inside may mount, and their options.

use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};

use super::tmpfs::Tmpfs;
use crate::Kernel;
use crate::task::{Credentials, Task};
use crate::vfs::inode::{Inode, SetAttributes};

/// A new filesystem of a kind, with options as in `mount -o`: its root. `ENODEV` for kinds that are not there, `EPERM` for a procfs of a PID
/// namespace over which the task has no power.
pub fn make(task: &Task, kind: &[u8], options: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
    let kernel = &task.kernel;
    match kind {
        b"tmpfs" | b"ramfs" => memory(kernel, options, &task.credentials()),
        b"proc" => {
            let numbers = &task.process.numbers;
            if !task.credentials().has_in(&numbers.owner, raw::CAP_SYS_ADMIN) {
                return Err(Errno::EPERM);
            }
            Ok(super::proc::root_of(kernel, numbers))
        }
        b"sysfs" => Ok(super::sys::root(kernel)),
        b"cgroup2" => Ok(super::sys::cgroup::root(kernel)),
        b"devpts" => Ok(super::devpts::root(kernel)),
        _ => Err(Errno::ENODEV),
    }
}

/// Whether there are filesystems of a kind.
pub fn exists(kind: &[u8]) -> bool {
    matches!(kind, b"tmpfs" | b"ramfs" | b"proc" | b"sysfs" | b"cgroup2" | b"devpts")
}

/// What `mount -o` says about a tmpfs.
struct MemoryOptions {
    bytes: u64,
    permissions: u32,
    user: u32,
    group: u32,
}

fn memory(kernel: &Arc<Kernel>, options: &[u8], maker: &Credentials) -> Result<Arc<dyn Inode>, Errno> {
    let most = kernel.limits.tmpfs_bytes;
    let mut chosen = MemoryOptions { bytes: most, permissions: 0o1777, user: maker.fsuid, group: maker.fsgid };
    for option in options.split(|byte| *byte == b',').filter(|option| !option.is_empty()) {
        let text = std::str::from_utf8(option).map_err(|_| Errno::EINVAL)?;
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        chosen.set(key, value, most, maker)?;
    }
    let root = Tmpfs::create(&kernel.memory, chosen.bytes.min(most), chosen.permissions, None);
    root.set_attributes(&SetAttributes { uid: Some(chosen.user), gid: Some(chosen.group), ..SetAttributes::default() })?;
    Ok(root)
}

impl MemoryOptions {
    fn set(&mut self, key: &str, value: &str, most: u64, maker: &Credentials) -> Result<(), Errno> {
        const BLOCK: u64 = 4096;
        match key {
            // 0 is "without a limit of its own".
            "size" => self.bytes = size(value, most)?,
            "nr_blocks" => self.bytes = size(value, most)?.saturating_mul(BLOCK),
            "nr_inodes" => drop(size(value, most)?),
            "mode" => self.permissions = u32::from_str_radix(value, 8).map_err(|_| Errno::EINVAL)? & 0o7777,
            "uid" => self.user = maker.user.user(number(value)?).ok_or(Errno::EINVAL)?,
            "gid" => self.group = maker.user.group(number(value)?).ok_or(Errno::EINVAL)?,
            "huge" | "mpol" | "inode32" | "inode64" | "noswap" => {}
            _ => return Err(Errno::EINVAL),
        }
        if self.bytes == 0 {
            self.bytes = most;
        }
        Ok(())
    }
}

fn number(text: &str) -> Result<u32, Errno> {
    text.parse().map_err(|_| Errno::EINVAL)
}

/// A number with `k`, `m`, `g` behind, or a share of the most with `%`.
fn size(text: &str, most: u64) -> Result<u64, Errno> {
    let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
    let value: u64 = digits.parse().map_err(|_| Errno::EINVAL)?;
    let factor: u64 = match &text[digits.len()..] {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        "%" => return Ok(most / 100 * value.min(100)),
        _ => return Err(Errno::EINVAL),
    };
    value.checked_mul(factor).ok_or(Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!((size("16", 100), size("2k", 100), size("50%", 1000)), (Ok(16), Ok(2048), Ok(500)));
        assert_eq!((size("x", 1), size("", 1), size("1q", 1)), (Err(Errno::EINVAL), Err(Errno::EINVAL), Err(Errno::EINVAL)));
    }
}
