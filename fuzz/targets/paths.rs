//! Calls that take names and descriptors: paths, mounts, links, directories.

#![no_main]

use arbitrary::Unstructured;
use cloudpilot_fuzz::generator::{Kind, Program};
use cloudpilot_fuzz::guest;
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Ok(program) = Program::arbitrary(Kind::Paths, &mut Unstructured::new(bytes)) else { return Corpus::Reject };
    guest::execute(&program.encode());
    Corpus::Keep
});
