//! Prints `docs/reference/system-calls.md`.

fn main() {
    print!("{}", cloudpilot_kernel::syscall::reference::page());
}
