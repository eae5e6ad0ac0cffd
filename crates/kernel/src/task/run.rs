//! A task's life between stops of its guest thread.
