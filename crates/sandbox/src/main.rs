//! `cloudpilot-sandbox`: runs programs behind the user-space kernel.

use std::process::ExitCode;
use std::sync::Arc;

use cloudpilot_kernel::config::BootConfig;
use cloudpilot_sandbox::command;
use cloudpilot_sandbox::failure::{Code, Failure};
use cloudpilot_sandbox::machine::Machine;

fn boot(_config: BootConfig) -> Result<Arc<dyn Machine>, Failure> {
    Err(Failure::new(Code::Internal, "The kernel has not landed yet"))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    command::main(&arguments, boot).into()
}
