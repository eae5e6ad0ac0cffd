//! What the targets share: a kernel in this process, whose coverage the engine sees, with a real guest in it that makes system calls.

pub mod generator;
pub mod guest;
