//! `checks/skill.rs` says what must hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    checks::skill::skill_md(input);
});
