//! The user-space kernel.

pub mod config;
