//! One node: an invalidator, a cache, and the threads that read and write through them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use afterwrite::bus::Bus;
use afterwrite::invalidation::cache::Store;
use afterwrite::invalidation::caches::BoundedMap;
use afterwrite::invalidation::coherent::{Coherent, Loaded};
use afterwrite::invalidation::fence::Coherence;
use afterwrite::invalidation::subject::{Entity, Prefix};
use afterwrite::invalidation::{Invalidator, Settings, Watch};

use crate::ledger::Ledger;
use crate::random::Random;
use crate::run::{RunError, Stop};
use crate::store::Rows;
use crate::wire::{Harm, Wire};

/// Reads of one thread between two pauses.
const BURST: usize = 50;
/// The pause: the threads of both nodes share the machine with those of the library.
const BREATH: Duration = Duration::from_millis(5);

/// What a node's threads have seen.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) reads: AtomicU64,
    pub(crate) loads: AtomicU64,
    pub(crate) writes: AtomicU64,
    /// The cache held an entry, and did not serve it.
    pub(crate) bypassed: AtomicU64,
    /// Old values served while the cache was Coherent, within the bound and past it.
    pub(crate) stale: AtomicU64,
    pub(crate) past_bound: AtomicU64,
    /// The oldest of them, in nanoseconds since it was superseded.
    pub(crate) stalest: AtomicU64,
    /// Old values served while the cache said that it may not be trusted.
    pub(crate) stale_in_doubt: AtomicU64,
}

/// A node, as its threads share it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) entity: Entity,
    pub(crate) invalidator: Invalidator,
    pub(crate) cache: Coherent<BoundedMap<usize>>,
    pub(crate) watch: Watch,
    pub(crate) harm: Arc<Harm>,
    pub(crate) counts: Counts,
}

/// Short times, so that a harm is noticed while one watches: B is 0.85 s.
pub(crate) fn settings(name: &str, prefix: Prefix) -> Settings {
    Settings::new(name)
        .prefix(prefix)
        .beat(Duration::from_millis(200))
        .e_max(Duration::from_millis(200))
}

impl Node {
    pub(crate) fn start(
        name: &'static str,
        prefix: Prefix,
        bus: Box<dyn Bus>,
        keys: usize,
    ) -> Result<Self, RunError> {
        let entity = Entity::new("row")?;
        let harm = Arc::<Harm>::default();
        let wire = Wire::new(bus, harm.clone());
        let invalidator = Invalidator::new(wire, settings(name, prefix))?;
        let cache = Coherent::new(BoundedMap::new(keys));
        let watch = invalidator.watch_inline(&entity, &cache)?;
        Ok(Self {
            name,
            entity,
            invalidator,
            cache,
            watch,
            harm,
            counts: Counts::default(),
        })
    }

    /// Writes random rows at a rate, until told to stop.
    pub(crate) fn write(
        &self,
        database: &Path,
        ledger: &Ledger,
        keys: usize,
        every: Duration,
        mut random: Random,
        stop: &Stop,
    ) -> Result<(), RunError> {
        let mut rows = Rows::open(database)?;
        while !stop.wait(random.pause(every)) {
            let key = random.below(keys);
            let writing = self.invalidator.writing(&self.entity, &key.to_string())?;
            let version = rows.write(key)?;
            writing.committed()?;
            ledger.told(key, version, Instant::now());
            self.counts.writes.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    /// Reads random rows through the cache, until told to stop.
    pub(crate) fn read(
        &self,
        database: &Path,
        ledger: &Ledger,
        keys: usize,
        mut random: Random,
        stop: &Stop,
    ) -> Result<(), RunError> {
        let rows = Rows::open(database)?;
        while !stop.wait(BREATH) {
            for _ in 0..BURST {
                self.read_one(&rows, ledger, random.below(keys))?;
            }
        }
        Ok(())
    }

    fn read_one(&self, rows: &Rows, ledger: &Ledger, key: usize) -> Result<(), RunError> {
        let (counts, id) = (&self.counts, key.to_string());
        let began = Instant::now();
        // In this order: what was told a bound before `began` is applied where this says Coherent.
        let coherent = self.watch.coherence() == Coherence::Coherent;
        if !coherent && self.cache.store().get(&id).is_some() && self.cache.get(&id).is_none() {
            counts.bypassed.fetch_add(1, Relaxed);
        }
        let load = || {
            counts.loads.fetch_add(1, Relaxed);
            rows.version(key).map(Loaded::primary)
        };
        let version = self.cache.get_or_load_blocking(&id, load)?;
        counts.reads.fetch_add(1, Relaxed);
        let version = version.ok_or(RunError::NoRow(key))?;
        let Some(age) = ledger.stale(key, version, began) else {
            return Ok(());
        };
        if !coherent {
            counts.stale_in_doubt.fetch_add(1, Relaxed);
            return Ok(());
        }
        let past = age > self.invalidator.settings().bound();
        let count = if past {
            &counts.past_bound
        } else {
            &counts.stale
        };
        count.fetch_add(1, Relaxed);
        let nanos = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        counts.stalest.fetch_max(nanos, Relaxed);
        Ok(())
    }
}
