//! Few host calls are let through, each with a reason, and their page in the documentation is current.

use cloudpilot_jail::calls::{CALLS, Needs};
use cloudpilot_sandbox::reference::{self, MOST_KERNEL_CALLS, MOST_STUB_CALLS};

#[test]
fn they_are_few() {
    let most = reference::kernel_calls(Needs { writable_volume: true, network: true });
    assert!(most < MOST_KERNEL_CALLS, "{most} host calls are let through: spare one, or make it depend on what a sandbox has");
    assert!(reference::stub_calls() < MOST_STUB_CALLS);
    assert!(reference::kernel_calls(Needs::default()) < most);
}

#[test]
fn each_is_there_once_and_says_why() {
    for (index, call) in CALLS.iter().enumerate() {
        assert!(!call.why.is_empty(), "{}", call.name);
        assert!(CALLS[..index].iter().all(|other| other.number != call.number), "{} is there twice", call.name);
    }
}

#[test]
fn the_page_is_current() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/host-calls.md");
    let present = std::fs::read_to_string(page).unwrap_or_default();
    assert!(present == reference::page(), "run: cargo run -p cloudpilot-sandbox --example host_calls > docs/reference/host-calls.md");
}
