//! Filesystems, one folder each.

pub mod dev;
pub mod devpts;
pub mod epoll;
pub mod eventfd;
pub mod generated;
pub mod host;
pub mod inotify;
pub mod memfd;
pub mod mountable;
pub mod pidfd;
pub mod pipe;
pub mod proc;
pub mod signalfd;
pub mod stdio;
pub mod sys;
pub mod timerfd;
pub mod tmpfs;

/// Filesystem types as `/proc/filesystems` lists them; true for those without a device.
pub const FILESYSTEMS: &[(&str, bool)] = &[
    ("sysfs", true),
    ("tmpfs", true),
    ("proc", true),
    ("cgroup2", true),
    ("devtmpfs", true),
    ("devpts", true),
    ("sockfs", true),
    ("pipefs", true),
    ("mqueue", true),
    ("overlay", true),
];
