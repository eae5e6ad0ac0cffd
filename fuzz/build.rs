//! Compiles the program that makes system calls inside.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=executor/executor.c");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it")).join("executor");
    let options = ["-O1", "-static", "-pthread", "-w", "-mfsgsbase", "executor/executor.c", "-o"];
    let status = Command::new("gcc").args(options).arg(&out).status().expect("gcc");
    assert!(status.success(), "the executor does not compile");
}
