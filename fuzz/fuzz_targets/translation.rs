#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::translation::check(data));
