//! Writes to the memory that a guest thread shares with its kernel thread, between and beside calls.

#![no_main]

use arbitrary::Unstructured;
use cloudpilot_fuzz::generator::{Kind, Program};
use cloudpilot_fuzz::guest;
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Ok(program) = Program::arbitrary(Kind::Context, &mut Unstructured::new(bytes)) else { return Corpus::Reject };
    guest::execute(&program.encode());
    Corpus::Keep
});
