//! System calls that answer `ENOSYS`, each with the reason.

/// Number and reason.
pub const UNSUPPORTED: &[(u32, &str)] = &[];
