//! Starts sandboxes and watches over them.
//!
//! `cloudpilot-sandbox run` and `create` become the *supervisor* of one sandbox ([`supervisor`]). It prepares what needs the starter's rights
//! ([`start`]), and makes two children: the *kernel process*, which goes to jail, boots the kernel and serves the control socket
//! ([`kernel_process`], [`control`]), and the *janitor*, which cleans up should the supervisor be killed ([`janitor`]). The kernel process dies with
//! the supervisor, and all of the guest with the kernel process, as it is the first of their PID namespace.

pub mod beginning;
pub mod command;
pub mod config;
pub mod control;
pub mod failure;
pub mod guest;
mod guest_files;
mod host_root;
mod janitor;
mod kernel_process;
mod layer;
pub mod machine;
mod news;
mod packet;
pub mod reference;
mod signals;
mod start;
mod state;
mod supervisor;
mod terminal;
