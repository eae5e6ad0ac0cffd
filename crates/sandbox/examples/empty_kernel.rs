//! The sandbox binary with an empty kernel whose programs end at once: what a start costs without one, and a stand-in for tests of everything around.

use std::process::ExitCode;
use std::sync::Arc;

use cloudpilot_abi::Errno;
use cloudpilot_kernel::config::{BootConfig, ExitStatus, Program, User};
use cloudpilot_sandbox::command;
use cloudpilot_sandbox::failure::Failure;
use cloudpilot_sandbox::machine::{Entry, Files, Machine, OnChange, OnExit, OnNotice};
use serde_json::{Value, json};
use std::os::fd::OwnedFd;

/// Programs are not run: `["exit", "3"]` ends with status 3, `["sleep"]` never ends, `["panic"]` and `["socket"]` break the kernel process.
struct Empty;

static PROGRAM: std::sync::Mutex<Vec<String>> = std::sync::Mutex::new(Vec::new());

impl Machine for Empty {
    fn spawn(&self, program: Program) -> Result<i32, Failure> {
        *PROGRAM.lock().unwrap() = program.args.iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect();
        Ok(2)
    }

    fn on_exit(&self, _pid: i32, then: OnExit) -> Result<(), Errno> {
        let args = PROGRAM.lock().unwrap().clone();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        match args[..] {
            ["exit", code] => then(ExitStatus::Exited(code.parse().unwrap())),
            ["panic"] => panic!("as asked"),
            ["socket"] => {
                let _ = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None);
            }
            _ => std::mem::forget(then),
        }
        Ok(())
    }

    fn on_notice(&self, _then: OnNotice) {}

    fn signal(&self, _pid: i32, _signal: i32) -> Result<(), Errno> {
        Ok(())
    }

    fn resize(&self, _pid: i32, _rows: u16, _columns: u16) -> Result<(), Errno> {
        Ok(())
    }

    fn connect(&self, _port: u16, _host: OwnedFd, _over: Box<dyn Send>) -> Result<(), Failure> {
        Err(Failure::new(cloudpilot_sandbox::failure::Code::NotFound, "Nothing listens here"))
    }

    fn listen(&self, _port: u16) -> Result<(), Failure> {
        Ok(())
    }

    fn accept(&self, _port: u16, _host: OwnedFd, _over: Box<dyn Send>) -> Result<(), Failure> {
        Err(Failure::new(cloudpilot_sandbox::failure::Code::NotFound, "Nobody connects here"))
    }

    fn processes(&self) -> Vec<Value> {
        Vec::new()
    }

    fn stats(&self) -> Value {
        json!({})
    }

    fn files(&self) -> &dyn Files {
        self
    }
}

impl Files for Empty {
    fn read_file(&self, _user: &User, _path: &[u8], _to: OwnedFd) -> Result<u64, Errno> {
        Err(Errno::ENOENT)
    }

    fn write_file(&self, _user: &User, _path: &[u8], _mode: u32, _from: OwnedFd) -> Result<u64, Errno> {
        Err(Errno::EROFS)
    }

    fn list_directory(&self, _user: &User, _path: &[u8], _depth: u32) -> Result<Vec<Entry>, Errno> {
        Err(Errno::ENOENT)
    }

    fn stat(&self, _user: &User, _path: &[u8]) -> Result<Entry, Errno> {
        Err(Errno::ENOENT)
    }

    fn make_directory(&self, _user: &User, _path: &[u8]) -> Result<bool, Errno> {
        Err(Errno::EROFS)
    }

    fn remove(&self, _user: &User, _path: &[u8]) -> Result<(), Errno> {
        Err(Errno::ENOENT)
    }

    fn rename(&self, _user: &User, _from: &[u8], _to: &[u8]) -> Result<(), Errno> {
        Err(Errno::ENOENT)
    }

    fn write_layer(&self, _: &[Vec<u8>], _: OwnedFd) -> Result<u64, Errno> {
        Err(Errno::ENOSYS)
    }

    fn watch(&self, _user: &User, _path: &[u8], _recursive: bool, _then: OnChange) -> Result<Box<dyn Send>, Errno> {
        Ok(Box::new(()))
    }
}

fn boot(_config: BootConfig) -> Result<Arc<dyn Machine>, Failure> {
    Ok(Arc::new(Empty))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    command::main(&arguments, boot).into()
}
