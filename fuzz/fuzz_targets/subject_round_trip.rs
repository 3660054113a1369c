//! Any entity and any id make a subject that gives them back, and that a naive encoder makes too.
//!
//! Input: prefix, entity and id, parted by the first two line ends.
#![no_main]

use afterwrite::invalidation::subject::{Address, Entity, IdRef, Prefix, Subject, Topic};
use libfuzzer_sys::fuzz_target;

fn naive(prefix: &str, entity: &str, id: &str) -> String {
    let mut subject = format!("{prefix}.{entity}.");
    for byte in id.bytes() {
        if byte.is_ascii_graphic() && !b".*>%".contains(&byte) {
            subject.push(char::from(byte));
        } else {
            subject.push_str(&format!("%{byte:02X}"));
        }
    }
    subject
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b".*>%".contains(&byte);
    (1..=128).contains(&name.len()) && name.bytes().all(plain)
}

fuzz_target!(|input: &str| {
    let mut parts = input.splitn(3, '\n');
    let (Some(prefix_text), Some(entity_text), Some(id_text)) =
        (parts.next(), parts.next(), parts.next())
    else {
        return;
    };
    let prefix = Prefix::new(prefix_text);
    let tokens = prefix_text.split('.').all(is_name);
    let is_prefix = tokens && prefix_text.len() <= 128 && !prefix_text.starts_with('$');
    assert_eq!(prefix.is_ok(), is_prefix, "{prefix_text:?}");
    let entity = Entity::new(entity_text);
    assert_eq!(entity.is_ok(), is_name(entity_text), "{entity_text:?}");
    let id = IdRef::new(id_text);
    assert_eq!(id.is_ok(), (1..=1024).contains(&id_text.len()));
    let prefix = prefix.unwrap_or_default();
    let (Ok(entity), Ok(id)) = (entity, id) else {
        return;
    };

    let wanted = naive(prefix.as_str(), entity.as_str(), id.as_str());
    let (mut buf, mut decoded) = (Topic::buffer(), String::new());
    assert_eq!(prefix.one(entity.borrowed(), id, &mut buf).as_str(), wanted);
    assert_eq!(prefix.topic(&entity).one(id, &mut buf).as_str(), wanted);
    assert!(Subject::new(&wanted).is_ok());
    assert!(prefix.everything().matches(&wanted));
    match prefix.parse(&wanted) {
        Ok(Address::One {
            entity: parsed,
            id: encoded,
        }) => {
            assert_eq!(parsed, entity.borrowed());
            assert_eq!(encoded.decode_into(&mut decoded), id);
            assert_eq!(encoded.decode(), id.as_str());
        }
        other => panic!("{wanted:?}: {other:?}"),
    }
});
