//! The configuration of a sandbox.

#![no_main]

use cloudpilot_sandbox::config::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match Config::parse(bytes) {
        // What is accepted is within its limits.
        Ok(config) => assert!(!config.id.contains('/') && config.volumes.iter().all(|volume| volume.guest.starts_with('/'))),
        Err(failure) => assert!(!failure.message.is_empty()),
    }
});
