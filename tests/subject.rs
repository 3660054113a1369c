//! I1: subjects, their encoding, their errors, and the allocations that they do without.

#[path = "support/place.rs"]
#[allow(unreachable_pub)] // The fuzzer sees it.
mod place;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt::Debug;
use std::hint::black_box;
use std::str::FromStr;

use afterwrite::invalidation::subject::{
    Address, EncodedId, Entity, EntityRef, Id, IdRef, MAX_ENTITY_LEN, MAX_ID_LEN, MAX_PREFIX_LEN,
    MAX_SUBJECT_LEN, Part, Pattern, Prefix, Subject, SubjectError, Topic,
};
use place::check_place;
use proptest::prelude::*;

const NAMES: [&str; 8] = [
    "user",
    "a",
    "USER-42",
    "~!@#$^&()_+",
    "=",
    "snake_case",
    "\"quoted\"",
    "a\\b",
];

#[test]
fn i1_plain_ids_stand_unchanged() {
    let prefix = Prefix::default();
    let entity = Entity::new("user").unwrap();
    let mut buf = String::new();
    for name in NAMES
        .into_iter()
        .chain(["550e8400-e29b-41d4-a716-446655440000"])
    {
        let id = IdRef::new(name).unwrap();
        let subject = prefix
            .one(entity.borrowed(), id, &mut buf)
            .as_str()
            .to_owned();
        assert_eq!(subject, format!("cache.invalidate.user.{name}"));
        let Ok(Address::One { entity, id }) = prefix.parse(&subject) else {
            panic!("{subject}");
        };
        assert_eq!((entity.as_str(), id.token()), ("user", name));
        assert!(id.is_plain());
        assert_eq!(id.decode(), name);
    }
}

#[test]
fn i1_other_bytes_are_escaped() {
    let cases = [
        ("a.b", "a%2Eb"),
        (".", "%2E"),
        ("*", "%2A"),
        (">", "%3E"),
        ("100%", "100%25"),
        ("%-all", "%25-all"),
        ("%2E", "%252E"),
        (" ", "%20"),
        ("a\tb\r\nc", "a%09b%0D%0Ac"),
        ("\0", "%00"),
        ("\u{7f}", "%7F"),
        ("é", "%C3%A9"),
        ("Zürich 8.3", "Z%C3%BCrich%208%2E3"),
        ("€", "%E2%82%AC"),
        ("𝄞 clef", "%F0%9D%84%9E%20clef"),
        ("éé", "%C3%A9%C3%A9"),
    ];
    let topic = Prefix::default().topic(&Entity::new("user").unwrap());
    let (mut buf, mut id) = (String::new(), String::new());
    for (text, token) in cases {
        let subject = topic.one(IdRef::new(text).unwrap(), &mut buf);
        assert_eq!(subject.as_str(), format!("cache.invalidate.user.{token}"));
        let encoded = EncodedId::new(token).unwrap();
        assert!(!encoded.is_plain());
        assert_eq!(encoded.decode(), text);
        assert_eq!(encoded.decode_into(&mut id).as_str(), text);
        assert_eq!(encoded.to_id(), Id::new(text).unwrap());
    }
}

#[test]
fn i1_reserved_subjects() {
    let prefix = Prefix::new("shop.cache").unwrap();
    let entity = Entity::new("user").unwrap();
    let topic = prefix.topic(&entity);
    assert_eq!(topic.entity(), &entity);
    assert_eq!(topic.all().as_str(), "shop.cache.user.%-all");
    assert_eq!(topic.batch().as_str(), "shop.cache.user.%-batch");
    let entity = entity.borrowed();
    assert_eq!(
        prefix.parse(topic.all().as_str()),
        Ok(Address::All { entity })
    );
    assert_eq!(
        prefix.parse(topic.batch().as_str()),
        Ok(Address::Batch { entity })
    );
    let mut buf = String::new();
    for incarnation in [0, 1, 0x00c0_ffee_00c0_ffee, u64::MAX] {
        let subject = prefix.control(incarnation, &mut buf).as_str().to_owned();
        assert_eq!(subject, format!("shop.cache.%-c.{incarnation:016x}"));
        assert_eq!(prefix.parse(&subject), Ok(Address::Control { incarnation }));
    }
    assert_eq!(prefix.everything().as_str(), "shop.cache.>");
    // What looks reserved in an id is only an id.
    for text in ["%-all", "%-batch", "%-c"] {
        let subject = topic.one(IdRef::new(text).unwrap(), &mut buf);
        assert!(matches!(
            prefix.parse(subject.as_str()),
            Ok(Address::One { .. })
        ));
    }
}

#[test]
fn i1_errors_name_the_byte_and_its_place() {
    use SubjectError::*;
    let prefix = Prefix::new("p.q").unwrap();
    let long_entity = format!("p.q.{}.1", "e".repeat(MAX_ENTITY_LEN + 1));
    let long_id = format!("p.q.e.{}", "1".repeat(MAX_ID_LEN + 1));
    let long_escaped = format!("p.q.e.{}", "%20".repeat(MAX_ID_LEN + 1));
    let long_mixed = format!("p.q.e.%20{}", "1".repeat(MAX_ID_LEN));
    let byte = |part, byte, at| Byte { part, byte, at };
    let other = |at, byte| OtherPrefix { at, byte };
    let escape = |at, byte| Escape { at, byte };
    let stray = |at, byte| NotUtf8 { at, byte };
    let too_long = |part, len, max, at| TooLong { part, len, max, at };
    let too_short = |len, at| TooShort {
        part: Part::Incarnation,
        len,
        min: 16,
        at,
    };
    let id_too_long = |at| too_long(Part::Id, 1_025, MAX_ID_LEN, at);
    let cases = [
        ("", other(0, None)),
        ("p.q", other(3, None)),
        ("p.r.e.1", other(2, Some(b'r'))),
        ("P.q.e.1", other(0, Some(b'P'))),
        ("p.qe.1", other(3, Some(b'e'))),
        (
            "p.q.",
            Empty {
                part: Part::Entity,
                at: 4,
            },
        ),
        (
            "p.q..1",
            Empty {
                part: Part::Entity,
                at: 4,
            },
        ),
        (
            "p.q.e",
            Empty {
                part: Part::Id,
                at: 5,
            },
        ),
        (
            "p.q.e.",
            Empty {
                part: Part::Id,
                at: 6,
            },
        ),
        ("p.q.e.1.2", byte(Part::Id, b'.', 7)),
        ("p.q.e..2", byte(Part::Id, b'.', 6)),
        ("p.q.e.*", byte(Part::Id, b'*', 6)),
        ("p.q.e.ab>", byte(Part::Id, b'>', 8)),
        ("p.q.e.a b", byte(Part::Id, b' ', 7)),
        ("p.q.e.a\u{7f}", byte(Part::Id, 0x7f, 7)),
        ("p.q.e.é", byte(Part::Id, 0xc3, 6)),
        ("p.q.e.%20é", byte(Part::Id, 0xc3, 9)),
        ("p.q.*.1", byte(Part::Entity, b'*', 4)),
        ("p.q.u>.1", byte(Part::Entity, b'>', 5)),
        ("p.q.ué.1", byte(Part::Entity, 0xc3, 5)),
        ("p.q.a%20.1", byte(Part::Entity, b'%', 5)),
        ("p.q.%20.1", byte(Part::Entity, b'%', 4)),
        ("p.q.>", byte(Part::Entity, b'>', 4)),
        ("p.q.e.%", escape(7, None)),
        ("p.q.e.a%2", escape(9, None)),
        ("p.q.e.a%2e", escape(9, Some(b'e'))),
        ("p.q.e.a%G0", escape(8, Some(b'G'))),
        ("p.q.e.a%%20", escape(8, Some(b'%'))),
        ("p.q.e.a%41", NeedlessEscape { at: 7, byte: b'A' }),
        ("p.q.e.%20%7E", NeedlessEscape { at: 9, byte: b'~' }),
        ("p.q.e.%80", stray(6, 0x80)),
        ("p.q.e.%C3", stray(6, 0xc3)),
        ("p.q.e.%C3a", stray(6, 0xc3)),
        ("p.q.e.%C3%20", stray(6, 0xc3)),
        ("p.q.e.%C0%80", stray(6, 0xc0)),
        ("p.q.e.%ED%A0%80", stray(6, 0xed)),
        ("p.q.e.%F4%90%80%80", stray(6, 0xf4)),
        ("p.q.e.%20%FF", stray(9, 0xff)),
        ("p.q.e.%C3%2", escape(11, None)),
        ("p.q.e.%-", Reserved { at: 6 }),
        ("p.q.e.%-alle", Reserved { at: 6 }),
        ("p.q.e.%-All", Reserved { at: 6 }),
        ("p.q.e.a%-all", Reserved { at: 7 }),
        ("p.q.%-c", Reserved { at: 4 }),
        ("p.q.%-d.0123456789abcdef", Reserved { at: 4 }),
        (
            "p.q.%-c.0123456789ABCDEF",
            byte(Part::Incarnation, b'A', 18),
        ),
        (
            "p.q.%-c.0123456789abcdef0",
            too_long(Part::Incarnation, 17, 16, 24),
        ),
        ("p.q.%-c.0123456789abcde", too_short(15, 23)),
        ("p.q.%-c.", too_short(0, 8)),
        ("p.q.%-c.0123.456", byte(Part::Incarnation, b'.', 12)),
        (
            &long_entity,
            too_long(Part::Entity, 129, MAX_ENTITY_LEN, 132),
        ),
        (&long_id, id_too_long(1_030)),
        (&long_escaped, id_too_long(6 + 3 * 1_024)),
        (&long_mixed, id_too_long(6 + 3 + 1_023)),
    ];
    for (subject, error) in cases {
        assert_eq!(prefix.parse(subject), Err(error), "{subject:?}");
        check_place(subject, "p.q.", &error);
    }
}

#[test]
fn i1_errors_say_what_stands_where() {
    let say = |subject: &str| Prefix::default().parse(subject).unwrap_err().to_string();
    let cases = [
        ("cache.x", "not under the prefix: byte 0x78 at 6"),
        ("cache", "not under the prefix: its end at 5"),
        (
            "cache.invalidate.e.%2g",
            "broken escape: byte 0x67 at 21, where an upper-case hexadecimal digit should be",
        ),
        (
            "cache.invalidate.e.%2",
            "broken escape: its end at 21, where an upper-case hexadecimal digit should be",
        ),
        (
            "cache.invalidate.e.%FF",
            "escape at byte 19 of 0xFF, which begins no UTF-8 character",
        ),
        (
            "cache.invalidate.%-c.0",
            "incarnation of 1 bytes is short of 16: it ends at byte 22",
        ),
    ];
    for (subject, said) in cases {
        assert_eq!(say(subject), said);
    }
}

#[test]
fn i1_names_are_checked_when_they_are_made() {
    let byte = |part, byte, at| Err(SubjectError::Byte { part, byte, at });
    let too_long = |part, max| {
        let len = max + 1;
        let at = max;
        Err(SubjectError::TooLong { part, len, max, at })
    };
    for name in NAMES {
        assert_eq!(Entity::new(name).unwrap().as_str(), name);
        assert_eq!(name.parse::<Entity>(), Entity::new(name));
    }
    let entity = |name: &str| Entity::new(name).map(|_| ());
    let empty = |part, at| Err(SubjectError::Empty { part, at });
    assert_eq!(entity(""), empty(Part::Entity, 0));
    assert_eq!(entity("a.b"), byte(Part::Entity, b'.', 1));
    assert_eq!(entity("%-c"), byte(Part::Entity, b'%', 0));
    assert_eq!(entity("a\n"), byte(Part::Entity, b'\n', 1));
    assert_eq!(entity("größe"), byte(Part::Entity, 0xc3, 2));
    assert_eq!(entity(&"e".repeat(MAX_ENTITY_LEN)), Ok(()));
    assert_eq!(
        entity(&"e".repeat(MAX_ENTITY_LEN + 1)),
        too_long(Part::Entity, MAX_ENTITY_LEN)
    );

    let id = |text: &str| Id::new(text).map(|_| ());
    assert_eq!(id(""), empty(Part::Id, 0));
    assert_eq!(id("any . text * > %\n\0é"), Ok(()));
    assert_eq!(id(&"é".repeat(MAX_ID_LEN / 2)), Ok(()));
    assert_eq!(
        id(&"i".repeat(MAX_ID_LEN + 1)),
        too_long(Part::Id, MAX_ID_LEN)
    );

    let prefix = |text: &str| Prefix::new(text).map(|_| ());
    for text in ["p", "cache.invalidate", "a.b.c.d", "_x", "a$"] {
        assert_eq!(Prefix::new(text).unwrap().as_str(), text);
    }
    assert_eq!(prefix(""), empty(Part::Prefix, 0));
    assert_eq!(prefix(".a"), empty(Part::Prefix, 0));
    assert_eq!(prefix("a."), empty(Part::Prefix, 2));
    assert_eq!(prefix("a..b"), empty(Part::Prefix, 2));
    assert_eq!(prefix("a.*"), byte(Part::Prefix, b'*', 2));
    assert_eq!(prefix("a.>"), byte(Part::Prefix, b'>', 2));
    assert_eq!(prefix("a b"), byte(Part::Prefix, b' ', 1));
    assert_eq!(prefix("a.b%"), byte(Part::Prefix, b'%', 3));
    assert_eq!(prefix("$SYS"), byte(Part::Prefix, b'$', 0));
    assert_eq!(prefix(&"p".repeat(MAX_PREFIX_LEN)), Ok(()));
    assert_eq!(
        prefix(&"p".repeat(MAX_PREFIX_LEN + 1)),
        too_long(Part::Prefix, MAX_PREFIX_LEN)
    );
    assert_eq!(Prefix::default(), Prefix::new("cache.invalidate").unwrap());
}

#[test]
fn i1_subjects_and_patterns_are_checked_when_they_are_made() {
    let longest = "s".repeat(MAX_SUBJECT_LEN);
    assert!(Subject::new(&longest).is_ok() && Pattern::new(&longest).is_ok());
    let longer = "s".repeat(MAX_SUBJECT_LEN + 1);
    assert!(Subject::new(&longer).is_err() && Pattern::new(&longer).is_err());
    for (text, byte, at) in [
        ("a b", b' ', 1),
        ("a.\tb", b'\t', 2),
        ("a.b\n", b'\n', 3),
        ("\u{7f}", 0x7f, 0),
    ] {
        let part = Part::Subject;
        assert_eq!(
            Subject::new(text),
            Err(SubjectError::Byte { part, byte, at })
        );
        let part = Part::Pattern;
        assert_eq!(
            Pattern::new(text),
            Err(SubjectError::Byte { part, byte, at })
        );
    }
    // Other people's subjects may hold other text than ours.
    assert!(Subject::new("straße.42").is_ok() && Pattern::new("straße.*").is_ok());
}

/// Which subjects are valid: literally (to publish), and with wildcards (to subscribe). Facts from
/// nats-server's `server/sublist_test.go`, `TestSublistValidLiteralSubjects` and
/// `TestSublistValidlSubjects`.
#[test]
fn i1_validity_as_nats_server_has_it() {
    let both = [
        "foo", "foo*", "foo**", "foo.**", "foo*bar", "foo.*bar", "foo*.bar", "*bar", "foo>",
        "foo>>", "foo.>>", "foo>bar", "foo.>bar", "foo>.bar", ">bar",
    ];
    let neither = ["", ".", ".foo", "foo.", "foo..bar", "foo.bar..baz"];
    let wild = ["foo.bar.*", "foo.bar.>", "*", ">", "a.b.*.d.e.>"];
    let misplaced = [">.bar", "foo.>.bar"];
    for text in both {
        assert!(
            Subject::new(text).is_ok() && Pattern::new(text).is_ok(),
            "{text}"
        );
    }
    for text in neither.into_iter().chain(misplaced) {
        assert!(
            Subject::new(text).is_err() && Pattern::new(text).is_err(),
            "{text}"
        );
    }
    for text in wild {
        assert!(
            Subject::new(text).is_err() && Pattern::new(text).is_ok(),
            "{text}"
        );
    }
}

/// What matches what. Facts from nats-server's `server/sublist_test.go`:
/// `TestSublistMatchLiterals`, `TestSublistPartialWildcard`, `TestSublistFullWildcard`,
/// `TestSublistTwoTokenPubMatchSingleTokenSub`, `TestSublistInsertWithWildcardsAsLiterals`. The
/// same table runs against a real server in `tests/bus_nats.rs`.
#[test]
fn i1_matching_as_nats_server_has_it() {
    for (subject, pattern, matches) in include!("support/matches.in") {
        let pattern = Pattern::new(pattern).unwrap();
        assert_eq!(pattern.matches(subject), matches, "{subject} {pattern}");
    }
    // A subject with an empty token reaches nobody.
    for subject in ["", ".", "foo.", ".foo", "foo..bar"] {
        for pattern in [">", "*", "*.*", "foo.>", "*.*.*", "foo.*"] {
            let pattern = Pattern::new(pattern).unwrap();
            assert!(!pattern.matches(subject), "{subject} {pattern}");
        }
    }
}

fn any_id() -> impl Strategy<Value = String> {
    let character = prop_oneof![
        4 => prop::char::range('!', '~'),
        2 => prop::sample::select(vec!['.', '*', '>', '%', ' ', '-', '\n', '\0']),
        1 => any::<char>(),
    ];
    prop::collection::vec(character, 1..60).prop_map(String::from_iter)
}

proptest! {
    #[test]
    fn i1_every_id_comes_back(text in any_id()) {
        let prefix = Prefix::default();
        let entity = Entity::new("user").unwrap();
        let mut buf = String::new();
        let subject = prefix.one(entity.borrowed(), IdRef::new(&text).unwrap(), &mut buf);
        prop_assert!(Subject::new(subject.as_str()).is_ok());
        prop_assert!(subject.as_str().is_ascii());
        let parsed = prefix.parse(subject.as_str());
        let Ok(Address::One { entity, id }) = parsed else {
            return Err(TestCaseError::fail(format!("{parsed:?}")));
        };
        prop_assert_eq!(entity.as_str(), "user");
        prop_assert_eq!(&*id.decode(), &*text);
    }

    #[test]
    fn i1_what_parses_is_what_formatting_gives(token in "([a-c%.é-]|%[0-9A-Fa-f]{2}|%C3%A9|%E2%82%AC){1,8}") {
        if let Ok(encoded) = EncodedId::new(&token) {
            let id = encoded.to_id();
            let mut again = String::new();
            id.borrowed().encode_into(&mut again);
            prop_assert_eq!(again, token);
        }
    }

    #[test]
    fn i1_different_ids_have_different_subjects(one in any_id(), two in any_id()) {
        let (mut a, mut b) = (String::new(), String::new());
        IdRef::new(&one).unwrap().encode_into(&mut a);
        IdRef::new(&two).unwrap().encode_into(&mut b);
        prop_assert_eq!(one == two, a == b);
    }

    #[test]
    fn i1_nothing_panics(subject in "\\PC*", tail in "[ -~é]*") {
        let prefix = Prefix::new("p").unwrap();
        let parse = |subject: &str| {
            if let Err(error) = prefix.parse(subject) {
                check_place(subject, "p.", &error);
            }
        };
        parse(&subject);
        for begin in ["p.", "p.%-", "p.e.", "p.e.%", "p.e.%C3"] {
            parse(&format!("{begin}{tail}"));
        }
        Subject::new(&subject).ok();
        if let Ok(pattern) = Pattern::new(&tail) {
            pattern.matches(&subject);
        }
    }
}

#[test]
fn i1_lookups_by_text_find_typed_keys() {
    let map = std::collections::HashMap::from([(Entity::new("user").unwrap(), 1)]);
    assert_eq!(map.get("user"), Some(&1));
    let set = std::collections::BTreeSet::from([Id::new("a.b").unwrap()]);
    assert!(set.contains("a.b"));
    let entity = EntityRef::try_from("user").unwrap();
    assert_eq!(entity.to_entity().to_string(), "user");
}

#[test]
fn i1_typed_texts_are_made_from_text_and_lent_as_text() {
    fn owned<T>(text: &str)
    where
        T: FromStr<Err = SubjectError>
            + for<'a> TryFrom<&'a str, Error = SubjectError>
            + AsRef<str>
            + Debug,
    {
        assert_eq!(text.parse::<T>().unwrap().as_ref(), text);
        assert_eq!(T::try_from(text).unwrap().as_ref(), text);
        assert!(T::from_str("").is_err() && T::try_from("").is_err());
    }
    fn borrowed<'a, T>(text: &'a str)
    where
        T: TryFrom<&'a str, Error = SubjectError> + AsRef<str> + Debug,
    {
        assert_eq!(T::try_from(text).unwrap().as_ref(), text);
        assert!(T::try_from("").is_err());
    }
    owned::<Entity>("user");
    owned::<Id>("a.b");
    owned::<Prefix>("shop.cache");
    owned::<Pattern>("shop.*.>");
    borrowed::<EntityRef<'_>>("user");
    borrowed::<IdRef<'_>>("a.b");
    borrowed::<Subject<'_>>("shop.cache");
}

#[test]
fn i1_neither_parsing_nor_formatting_allocates() {
    let prefix = Prefix::default();
    let entity = Entity::new("user").unwrap();
    let topic = prefix.topic(&entity);
    let pattern = prefix.everything();
    let texts = [
        "42",
        "550e8400-e29b-41d4-a716-446655440000",
        "a.b",
        "Zürich 8.3 𝄞",
    ];
    let ids = texts.map(|text| IdRef::new(text).unwrap());
    let (mut subject, mut decoded) = (Topic::buffer(), String::with_capacity(MAX_ID_LEN));
    let allocations = count_allocations(|| {
        for id in ids {
            black_box(prefix.one(entity.borrowed(), id, &mut subject));
            black_box(prefix.control(7, &mut subject));
            let formatted = topic.one(id, &mut subject);
            assert!(pattern.matches(formatted.as_str()));
            let Ok(Address::One { id: encoded, .. }) = prefix.parse(formatted.as_str()) else {
                panic!("{formatted}");
            };
            assert_eq!(encoded.decode_into(&mut decoded), id);
        }
        for subject in [
            "cache.invalidate.user.%-all",
            "cache.invalidate.%-c.0123456789abcdef",
        ] {
            assert!(black_box(prefix.parse(subject)).is_ok());
        }
        for wrong in [
            "cache.invalidate.user.a%2e",
            "cache.invalidate..",
            "other",
            "cache.invalidate.user.é",
        ] {
            assert!(black_box(prefix.parse(wrong)).is_err());
        }
    });
    assert_eq!(allocations, 0);
    // The count itself works.
    assert!(count_allocations(|| drop(black_box(Id::new("42")))) > 0);
}

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count_allocations(run: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    run();
    ALLOCATIONS.get() - before
}

/// The system's allocator, with a count for each thread.
struct Counting;

fn count() {
    // During a thread's end the count is gone, and nobody looks at it.
    ALLOCATIONS
        .try_with(|count| count.set(count.get() + 1))
        .ok();
}

// SAFETY: every call is passed on as it is to the system's allocator, which keeps the contract;
// the count touches a constant-initialised thread-local without a destructor and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`, which is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: `block` came from `alloc` above, that is from the system's allocator.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: `block` came from the system's allocator with this layout.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
