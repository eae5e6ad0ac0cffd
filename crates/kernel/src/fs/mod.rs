//! Filesystems, one folder each.
