//! Program loading: ELF and scripts.
