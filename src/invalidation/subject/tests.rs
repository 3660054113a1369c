use super::scan::{first_special, is_plain};
use super::*;

#[test]
fn the_scan_finds_each_byte_at_each_place() {
    // Beside the byte under test stand those from which a borrow or a carry could run.
    for around in [b'a', 0x21, 0x7e, b'/', b'-', b'$', b'&', b'?', b'='] {
        for len in 0..28 {
            let mut text = vec![around; len];
            assert_eq!(first_special(&text), None);
            for at in 0..len {
                for byte in 0..=u8::MAX {
                    text[at] = byte;
                    let wanted = (!is_plain(byte)).then_some(at);
                    assert_eq!(first_special(&text), wanted, "{byte:#x} at {at} of {len}");
                }
                text[at] = around;
            }
        }
    }
}

#[test]
fn the_scan_finds_the_first_of_two() {
    for one in 0..=u8::MAX {
        for two in 0..=u8::MAX {
            for (at_one, at_two) in [(0, 1), (3, 4), (6, 7), (7, 8), (9, 12)] {
                let mut text = *b"abcdefghijklmno";
                (text[at_one], text[at_two]) = (one, two);
                let wanted = text.iter().position(|&byte| !is_plain(byte));
                assert_eq!(first_special(&text), wanted, "{text:?}");
            }
        }
    }
}

#[test]
fn plain_bytes_are_visible_and_no_syntax() {
    let plain: Vec<u8> = (0..=u8::MAX).filter(|&byte| is_plain(byte)).collect();
    assert_eq!(plain.len(), 94 - 4);
    assert!(plain.iter().all(u8::is_ascii_graphic));
    assert!(!plain.iter().any(|byte| b".*>%".contains(byte)));
}

#[test]
fn the_longest_subject_stays_within_a_control_line() {
    let prefix = Prefix::new(&"p".repeat(MAX_PREFIX_LEN)).expect("the longest prefix");
    let entity = Entity::new(&"e".repeat(MAX_ENTITY_LEN)).expect("the longest entity");
    let text = "\u{7f}".repeat(MAX_ID_LEN);
    let id = IdRef::new(&text).expect("the longest id");
    let mut buf = Topic::buffer();
    let capacity = buf.capacity();
    let subject = prefix.topic(&entity).one(id, &mut buf);
    assert_eq!(subject.as_str().len(), MAX_SUBJECT_LEN);
    assert_eq!(Subject::new(subject.as_str()), Ok(subject));
    // The server's limit on a control line, the verb, a reply inbox of twice the usual length,
    // and the sizes of headers and payload.
    let line = "HPUB  \r\n".len() + 2 * 64 + 2 * 10;
    const { assert!(MAX_SUBJECT_LEN < 4_096) };
    assert!(MAX_SUBJECT_LEN + line < 4_096);
    assert_eq!(buf.capacity(), capacity);
}
