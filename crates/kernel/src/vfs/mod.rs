//! The virtual file system: inodes, names, mounts, path walk, open files and descriptors.
//!
//! Lock order: mount table, then a directory's names (parents before children; for renames by address), then an inode's own locks,
//! then a file's position. A descriptor table's lock is held alone.

pub mod acl;
pub mod anonymous;
pub mod async_notice;
pub mod directory_notice;
pub mod entries;
pub mod fd;
pub mod file;
pub mod inode;
pub mod leases;
pub mod locks;
pub mod mount;
pub mod name;
pub mod open;
pub mod permission;
pub mod walk;
pub mod watch;
pub mod write_access;

pub use fd::FdTable;
pub use file::{File, FileOps};
pub use inode::{Attributes, FileType, Inode, InodeCommon, NewNode, SetAttributes};
pub use mount::{Mount, Mounts};
pub use name::{Name, Path};
pub use walk::Walk;
