//! The jail around our own processes: what the kernel process may still do if the guest breaks out into it.
//!
//! Order of use, because each step needs a right that the next gives up:
//! 1. [`handles::open`]: host directories become handles to detached mounts;
//! 2. [`namespaces::clone`]: the process is born into its namespaces, and [`namespaces::Identity::write_maps`] gives it users;
//! 3. [`root::leave_host`]: no path of the host is left;
//! 4. [`privileges::drop_all`]: no user that owns anything, no capability, no way to get one;
//! 5. [`landlock::confine`], before there are threads: files only beneath the handles;
//! 6. [`seccomp::install`], once boot is done, for all threads: the host calls of [`calls`], and no others.

pub mod calls;
pub mod cgroup;
mod error;
pub mod handles;
pub mod landlock;
pub mod namespaces;
pub mod privileges;
pub mod root;
pub mod seccomp;

pub use error::JailError;
