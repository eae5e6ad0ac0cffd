//! Guest memory: one sparse memory file per sandbox, mapped as a whole in the kernel process and piecewise in the guests' stubs.
//!
//! [`MemoryFile`] hands out ranges and counts who shares them (forks, mappings of a file's pages); [`Object`] is a sparse file made of
//! such ranges: tmpfs files, memfds, shared mappings. Lock order: an object's pages, then the file's ranges.

mod file;
mod object;
mod pool;
mod ranges;

pub use file::{MemoryError, MemoryFile, Range, window_hint};
pub use object::{Account, Mapper, Object};
