//! The page `docs/reference/host-calls.md`, made from the filters themselves.

use std::fmt::Write;

use cloudpilot_jail::calls::{CALLS, Call, Needs, Rule, When};
use cloudpilot_platform::systrap::filter::{self, AllowedCall};

const HEAD: &str = "\
# Host calls

Which system calls of the host the processes of a sandbox may make, with what arguments, and why. Made from the filters themselves by
`cargo run -p cloudpilot-sandbox --example host_calls > docs/reference/host-calls.md`; a test fails when the two differ, or when there are more
than the limits that it names.

";

const KERNEL: &str = "\
## The kernel process

It serves the guest's system calls. A call that is not here, or whose arguments are not as said, ends the sandbox; calls of another architecture
do as well. The list holds from before the first instruction of the guest to the end, for all of its threads.

";

const REFUSED: &str = "\
### Refused

These are answered with an error by the filter, without being made: library code tries them, and does without.

";

const STUB: &str = "\
## A stub

It runs guest code. These calls are let through from the one page that the guest cannot change, with the arguments said; with others they end the
stub. From anywhere else, every call traps to the kernel process and none is made. A guest that jumps into that page can make them, too.

";

/// Most calls of the host that any kernel process may make, and any stub.
pub const MOST_KERNEL_CALLS: usize = 60;
/// Likewise for stubs.
pub const MOST_STUB_CALLS: usize = 12;

/// How many calls a kernel process with these needs may make.
pub fn kernel_calls(needs: Needs) -> usize {
    CALLS.iter().filter(|call| needs.include(call) && !matches!(call.rule, Rule::Refused(_))).count()
}

/// How many calls a stub may make.
pub fn stub_calls() -> usize {
    filter::CALLS.len()
}

/// The page.
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    page.push_str(KERNEL);
    let count = |writable_volume, network| kernel_calls(Needs { writable_volume, network });
    let _ = writeln!(
        page,
        "{} calls; {} with a writable volume, {} with the host's network, {} with both.\n\n| call | arguments | for | why |\n|---|---|---|---|",
        count(false, false),
        count(true, false),
        count(false, true),
        count(true, true)
    );
    for call in CALLS.iter().filter(|call| !matches!(call.rule, Rule::Refused(_))) {
        let _ = writeln!(page, "| `{}` | {} | {} | {} |", call.name, condition(call), sandboxes(call.when), call.why);
    }
    let _ = writeln!(page, "\n{REFUSED}| call | error | why |\n|---|---|---|");
    for call in CALLS {
        if let Rule::Refused(errno) = call.rule {
            let _ = writeln!(page, "| `{}` | {} | {} |", call.name, error_name(errno), call.why);
        }
    }
    let _ = writeln!(page, "\n{STUB}{} calls.\n\n| call | arguments | why |\n|---|---|---|", stub_calls());
    for call in filter::CALLS {
        let _ = writeln!(page, "| `{}` | {} | {} |", call.name, stub_condition(call), call.why);
    }
    page
}

fn sandboxes(when: When) -> &'static str {
    match when {
        When::Always => "all",
        When::WritableVolume => "writable volumes",
        When::Network => "the host's network",
    }
}

fn error_name(errno: i32) -> &'static str {
    match errno {
        libc::EACCES => "`EACCES`",
        libc::ENOMEM => "`ENOMEM`",
        libc::ENOSYS => "`ENOSYS`",
        _ => "an error",
    }
}

fn condition(call: &Call) -> String {
    match call.rule {
        Rule::OneOf(argument, u32::MAX, values) => one_of(argument, values),
        Rule::OneOf(argument, mask, [0]) => format!("{} without {mask:#x}", ordinal(argument)),
        Rule::OneOf(argument, mask, values) => format!("{}, apart from {:#x}", one_of(argument, values), !mask),
        Rule::Always | Rule::Refused(_) => "any".to_owned(),
    }
}

fn stub_condition(call: &AllowedCall) -> String {
    call.argument.map_or_else(|| "any".to_owned(), |argument| one_of(argument, call.values))
}

fn one_of(argument: usize, values: &[u32]) -> String {
    let values: Vec<String> = values.iter().map(|value| format!("{value:#x}")).collect();
    format!("{} {}", ordinal(argument), values.join(", "))
}

fn ordinal(argument: usize) -> &'static str {
    ["first", "second", "third", "fourth", "fifth", "sixth"][argument]
}
