//! `checks/head.rs` says what must hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    checks::head::request(input);
});
