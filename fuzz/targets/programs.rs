//! Files that are executed: ELF programs, scripts, and what they name.

#![no_main]

use std::time::Duration;

use cloudpilot_fuzz::guest;
use libfuzzer_sys::fuzz_target;

/// What a program may run; whatever it does is its own business.
const PATIENCE: Duration = Duration::from_millis(200);
/// What its end may take then.
const END_PATIENCE: Duration = Duration::from_secs(20);
const SIGKILL: i32 = 9;

fuzz_target!(|bytes: &[u8]| {
    let machine = &**guest::machine();
    guest::put(machine, "/program", bytes);
    let Some((pid, end)) = guest::start(machine, &[b"/program", b"argument"], None, None) else { return };
    if end.recv_timeout(PATIENCE).is_err() {
        let _ = machine.signal(pid, SIGKILL);
        assert!(end.recv_timeout(END_PATIENCE).is_ok(), "hang: {:?}", machine.processes());
    }
    // Its children, should it have got as far.
    for process in machine.processes() {
        if let Some(pid) = process["pid"].as_i64() {
            let _ = machine.signal(pid as i32, SIGKILL);
        }
    }
});
