//! `cloudpilot-sandbox`: runs programs behind the user-space kernel.

use std::process::ExitCode;

use cloudpilot_sandbox::{command, guest};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    command::main(&arguments, guest::boot).into()
}
