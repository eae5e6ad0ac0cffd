//! Writable host directories.
