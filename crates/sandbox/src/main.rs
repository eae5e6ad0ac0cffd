//! `cloudpilot-sandbox`: runs programs behind the user-space kernel.

// Without the standard library's own beginning, which looks for the stack's end in `/proc` and gives every thread an alternate stack: a fifth of the
// time until the first namespace, and two pages a thread. What it does besides is done below.
#![no_main]

use std::ffi::{c_char, c_int};

use cloudpilot_sandbox::{beginning, command, guest};

/// Called by the C library, which has told the standard library the arguments already.
#[unsafe(no_mangle)]
pub extern "C" fn main(_count: c_int, _arguments: *const *const c_char) -> c_int {
    beginning::settle_process();
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    c_int::from(command::main(&arguments, guest::boot))
}
