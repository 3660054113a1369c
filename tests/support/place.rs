//! What an error about a subject says of a byte and its place, looked up in that subject. The fuzzer uses
//! this file as well.

use afterwrite::invalidation::subject::SubjectError;

/// Fails if the error names a byte that does not stand where it says, or a place that is not one.
/// `prefix` is what the subject should have begun with, its dot included.
pub fn check_place(subject: &str, prefix: &str, error: &SubjectError) {
    let bytes = subject.as_bytes();
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'A'..=b'F');
    let escaped = |at: usize| {
        assert_eq!(bytes[at], b'%', "{subject:?}: {error:?}");
        u8::from_str_radix(&subject[at + 1..at + 3], 16).expect("two digits")
    };
    match *error {
        SubjectError::Byte { byte, at, .. } => {
            assert_eq!(bytes[at], byte, "{subject:?}: {error:?}")
        }
        SubjectError::Escape { at, byte } => {
            assert_eq!(bytes.get(at).copied(), byte, "{subject:?}: {error:?}");
            assert!(!byte.is_some_and(is_digit), "{subject:?}: {error:?}");
            let first = bytes[at - 1] == b'%';
            let second = bytes[at - 2] == b'%' && is_digit(bytes[at - 1]);
            assert!(first || second, "{subject:?}: {error:?}");
        }
        SubjectError::NeedlessEscape { at, byte } | SubjectError::NotUtf8 { at, byte } => {
            assert_eq!(escaped(at), byte, "{subject:?}: {error:?}");
        }
        SubjectError::Reserved { at } => assert_eq!(&bytes[at..at + 2], b"%-"),
        SubjectError::Empty { at, .. } => {
            assert!(bytes.get(at).is_none_or(|it| *it == b'.'), "{subject:?}");
        }
        SubjectError::OtherPrefix { at, byte } => {
            assert_eq!(subject.get(..at), prefix.get(..at));
            assert_eq!(bytes.get(at).copied(), byte, "{subject:?}: {error:?}");
            assert_ne!(byte, prefix.as_bytes().get(at).copied());
        }
        SubjectError::TooLong { len, max, at, .. } => {
            // So much is left from there on, or more where it is escaped.
            assert!(len > max && bytes.len() >= at + (len - max), "{error:?}");
            assert!(subject.is_char_boundary(at), "{error:?}");
        }
        SubjectError::TooShort { len, min, at, .. } => {
            assert!(len < min && at == bytes.len(), "{subject:?}: {error:?}");
        }
        ref other => panic!("{other:?}"),
    }
}
