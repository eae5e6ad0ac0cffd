//! The page `docs/reference/system-calls.md`, made from the table.

use std::fmt::Write;

use super::Support;
use super::table::table;
use cloudpilot_abi::syscall::NAMES;

const HEAD: &str = "\
# System calls

Every system-call number of x86-64 and what the kernel inside a sandbox makes of it. Made from the kernel's own table by
`cargo run -p cloudpilot-kernel --example system_calls > docs/reference/system-calls.md`; a test fails when the two differ.

- **full**: as on Linux.
- **partial**: served, with the limits that the note names.
- **refused**: answers `EPERM`, as in a container without the privilege.
- **unsupported**: answers `ENOSYS` and is counted (`pilot stats`).

";

/// The page.
pub fn page() -> String {
    let table = table();
    let count = |support: Support| NAMES.iter().filter(|(number, _)| table[*number as usize].support == support).count();
    let mut page = HEAD.to_owned();
    let _ = writeln!(
        page,
        "{} numbers: {} full, {} partial, {} refused, {} unsupported.\n\n| number | name | support | note |\n|---:|---|---|---|",
        NAMES.len(),
        count(Support::Full),
        count(Support::Partial),
        count(Support::Refused),
        count(Support::Unsupported)
    );
    for (number, name) in NAMES {
        let call = &table[*number as usize];
        let support = match call.support {
            Support::Full => "full",
            Support::Partial => "partial",
            Support::Refused => "refused",
            Support::Unsupported => "unsupported",
        };
        let _ = writeln!(page, "| {number} | `{name}` | {support} | {} |", call.note);
    }
    page
}

/// Names of the calls that are not served and of which nobody says why.
pub fn unexplained() -> Vec<&'static str> {
    let table = table();
    let silent = |number: u32| table[number as usize].support != Support::Full && table[number as usize].note.is_empty();
    NAMES.iter().filter(|(number, _)| silent(*number)).map(|(_, name)| *name).collect()
}
