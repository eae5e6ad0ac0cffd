//! The system-call table is complete, and its page in the documentation is current.

use cloudpilot_kernel::syscall::reference;

#[test]
fn every_call_that_is_not_full_says_why() {
    assert_eq!(reference::unexplained(), Vec::<&str>::new());
}

#[test]
fn the_page_is_current() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/system-calls.md");
    let present = std::fs::read_to_string(page).unwrap_or_default();
    assert!(present == reference::page(), "run: cargo run -p cloudpilot-kernel --example system_calls > docs/reference/system-calls.md");
}
