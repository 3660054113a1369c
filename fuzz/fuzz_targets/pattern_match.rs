//! What a pattern matches, and what is a subject or a pattern at all, by naive rules of NATS.
//!
//! Input: pattern and subject, parted by the first line end.
#![no_main]

use afterwrite::invalidation::subject::{Pattern, Subject};
use libfuzzer_sys::fuzz_target;

const MAX: usize = 128 + 1 + 128 + 1 + 3 * 1024;

fn matches(pattern: &[&str], subject: &[&str]) -> bool {
    match (pattern, subject) {
        ([], []) => true,
        ([">"], [_, ..]) => true,
        (["*", pattern @ ..], [_, subject @ ..]) => matches(pattern, subject),
        ([one, pattern @ ..], [two, subject @ ..]) => one == two && matches(pattern, subject),
        _ => false,
    }
}

fn well_formed(tokens: &[&str]) -> bool {
    let bad = |byte: u8| byte <= b' ' || byte == 0x7f;
    let well = |token: &&str| !token.is_empty() && !token.bytes().any(bad);
    tokens.iter().all(well)
}

fuzz_target!(|input: &str| {
    let (pattern_text, subject_text) = input.split_once('\n').unwrap_or((input, input));
    let subject: Vec<&str> = subject_text.split('.').collect();
    let tokens: Vec<&str> = pattern_text.split('.').collect();

    let literal = !subject.iter().any(|token| matches!(*token, "*" | ">"));
    let is_subject = well_formed(&subject) && literal && subject_text.len() <= MAX;
    assert_eq!(Subject::new(subject_text).is_ok(), is_subject, "{subject_text:?}");

    let (_, init) = tokens.split_last().expect("at least one token");
    let is_pattern =
        well_formed(&tokens) && !init.contains(&">") && pattern_text.len() <= MAX;
    let pattern = Pattern::new(pattern_text);
    assert_eq!(pattern.is_ok(), is_pattern, "{pattern_text:?}");

    if let Ok(pattern) = pattern {
        // A subject with an empty token reaches nobody.
        let wanted = !subject.contains(&"") && matches(&tokens, &subject);
        assert_eq!(pattern.matches(subject_text), wanted, "{pattern_text:?} {subject_text:?}");
    }
});
