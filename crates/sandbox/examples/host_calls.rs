//! Prints `docs/reference/host-calls.md`.

fn main() {
    print!("{}", cloudpilot_sandbox::reference::page());
}
