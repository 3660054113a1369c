//! The workloads of invalidation that one thread does: subjects, and what a cache hit pays.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use afterwrite::bus::LocalBus;
use afterwrite::invalidation::cache::Entry;
use afterwrite::invalidation::caches::QuickCache;
use afterwrite::invalidation::coherent::Coherent;
use afterwrite::invalidation::fence::Coherence;
use afterwrite::invalidation::subject::{Address, Entity, IdRef, Prefix, Topic};
use afterwrite::invalidation::{Invalidator, Settings};

use crate::workload::{Contender, Workload, timed};

/// A subject as services publish it.
pub const SUBJECT: &str = "cache.invalidate.user.0192f3a4-77c1";
const PREFIX: &str = "cache.invalidate";
const ENTITY: &str = "user";
const ID: &str = "0192f3a4-77c1";

/// Words of what a coherent cache keeps for a `u64`.
const WORDS: usize = size_of::<Entry<u64>>() / size_of::<u64>();

/// A look-up by id.
type Hit = Box<dyn Fn(&str) -> Option<u64>>;

fn each(name: &'static str, mut one: impl FnMut() + 'static) -> Contender {
    Contender::new(name, move |units| {
        timed(units, || {
            for _ in 0..units {
                one();
            }
        })
    })
}

/// `subject_parse`: a subject to its entity and id.
///
/// # Panics
/// If a contender parses it to something else.
#[must_use]
pub fn subject_parse() -> Workload {
    let prefix = Prefix::default();
    let is_ours = |address| match address {
        Ok(Address::One { entity, id }) => entity.as_str() == ENTITY && id.decode() == ID,
        _ => false,
    };
    assert!(is_ours(prefix.parse(SUBJECT)), "ours parses it");
    let split = |subject: &str| -> Option<(String, String)> {
        let tokens: Vec<&str> = subject.split('.').collect();
        match tokens.as_slice() {
            ["cache", "invalidate", entity, id] => Some((entity.to_string(), id.to_string())),
            _ => None,
        }
    };
    assert_eq!(split(SUBJECT), Some((ENTITY.to_owned(), ID.to_owned())));
    let find = |subject: &'static str| subject.strip_prefix(PREFIX)?.get(1..)?.split_once('.');
    assert_eq!(find(SUBJECT), Some((ENTITY, ID)));
    Workload {
        name: "subject_parse",
        size: 1,
        unit: "subject",
        contenders: vec![
            each("afterwrite", move || {
                let _ = black_box(prefix.parse(black_box(SUBJECT)));
            }),
            each("split and copy (checks nothing)", move || {
                black_box(split(black_box(SUBJECT)));
            }),
            each("floor: strip the prefix, find the dot", move || {
                black_box(find(black_box(SUBJECT)));
            }),
        ],
    }
}

/// `subject_format`: an entity and an id to their subject.
///
/// # Panics
/// If a contender formats something else.
#[must_use]
pub fn subject_format() -> Workload {
    let topic = Prefix::default().topic(&Entity::new(ENTITY).expect("it is a token"));
    let mut buffer = Topic::buffer();
    let id = IdRef::new(ID).expect("it is not empty");
    assert_eq!(topic.one(id, &mut buffer).as_str(), SUBJECT);
    Workload {
        name: "subject_format",
        size: 1,
        unit: "subject",
        contenders: vec![
            each("afterwrite", move || {
                let id = IdRef::new(black_box(ID)).expect("it is not empty");
                black_box(topic.one(id, &mut buffer).as_str());
            }),
            each("format! (escapes nothing)", || {
                black_box(format!("{PREFIX}.{}.{}", black_box(ENTITY), black_box(ID)));
            }),
        ],
    }
}

/// `cache_hit`: a hit in a cache of `n` ids that a node keeps coherent, with the fence and coherence
/// looked at, and without.
///
/// # Panics
/// If a contender misses, or the node does not trust its cache.
#[must_use]
pub fn cache_hit(n: usize) -> Workload {
    let ids: Arc<[String]> = crate::input::keys(n).into();
    let inner = quick_cache::sync::Cache::new(2 * n);
    let users = Coherent::new(QuickCache::<String, _>::new(inner));
    let node = Invalidator::new(LocalBus::new(), Settings::new("bench")).expect("it is alone");
    let entity = Entity::new(ENTITY).expect("it is a token");
    let watch = Arc::new(node.watch(&entity, users.clone()).expect("nobody else"));
    let begun = Instant::now();
    while watch.coherence() != Coherence::Coherent {
        assert!(begun.elapsed() < Duration::from_secs(20), "never coherent");
        std::thread::sleep(Duration::from_millis(1));
    }
    let bare = quick_cache::sync::Cache::<String, u64>::new(2 * n);
    let as_large = quick_cache::sync::Cache::<String, [u64; WORDS]>::new(2 * n);
    for id in ids.iter() {
        let loaded = users.get_or_load_blocking(id, || Ok::<_, std::io::Error>(Some(7_u64)));
        assert_eq!(loaded.expect("the loader answers"), Some(7));
        bare.insert(id.clone(), 7);
        as_large.insert(id.clone(), [7; WORDS]);
    }
    let picks = crate::workload::picks(n);
    let visit = move |name, hit: Hit| {
        let (ids, picks) = (ids.clone(), picks.clone());
        assert_eq!(hit(&ids[0]), Some(7));
        let mut at = 0;
        each(name, move || {
            black_box(hit(&ids[picks[at] as usize]));
            at = (at + 1) & (picks.len() - 1);
        })
    };
    let asked = (users.clone(), watch.clone(), node);
    Workload {
        name: "cache_hit",
        size: n,
        unit: "hit",
        contenders: vec![
            visit(
                "afterwrite (over quick_cache)",
                Box::new(move |id| users.get(id).flatten()),
            ),
            visit(
                "afterwrite, asking coherence() too",
                Box::new(move |id| {
                    let (users, watch, _node) = &asked;
                    black_box(watch.coherence());
                    users.get(id).flatten()
                }),
            ),
            visit("floor: bare quick_cache", Box::new(move |id| bare.get(id))),
            visit(
                "floor: bare quick_cache, values as large",
                Box::new(move |id| as_large.get(id).map(|value| value[0])),
            ),
        ],
    }
}
