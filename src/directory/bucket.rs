//! One bucket: the tags of what it may hold, and the snapshot of what it holds.

use super::cell::SnapshotCell;
use super::hash::Fingerprint;
use super::hints::Hints;
use super::order;
use super::sizes::WORDS;
use super::snapshot::Snapshot;
use super::tags::TagWord;
use crate::sync::witness::Witness;
use crate::sync::{AtomicU64, Ordering};

/// A cache line, so that all of it comes in one miss.
#[repr(align(64))]
pub(super) struct Bucket<C> {
    /// Which tags are here; each key's hash names the one word that its tag is in, so that a reader
    /// sees all that concerns it in one load.
    words: [AtomicU64; WORDS],
    cell: C,
    hints: Hints,
    witness: Witness,
}

impl<C> Bucket<C> {
    /// A bucket that holds `snapshot`.
    pub(super) fn new<V>(snapshot: Option<Snapshot<V>>) -> Self
    where
        C: SnapshotCell<V>,
    {
        Self {
            words: std::array::from_fn(|word| AtomicU64::new(tags(snapshot.as_ref(), word).0)),
            hints: Hints::new(snapshot.as_ref()),
            cell: C::new(snapshot),
            witness: Witness::new(),
        }
    }

    /// Whether a key of this fingerprint may be here: `false` is certain, of this moment.
    #[inline]
    pub(super) fn may_contain(&self, fingerprint: Fingerprint) -> bool {
        self.witness.check();
        // `word()` is below `WORDS` by its arithmetic, which the compiler sees.
        let word = self.words[fingerprint.word()].load(order::word_load());
        TagWord(word).may_contain(fingerprint.tag())
    }

    /// Remembers where the values of the snapshot are that comes next. Worth it in large directories alone.
    pub(super) fn remember<V>(&self, next: &Snapshot<V>) {
        self.hints.follow(next);
    }

    /// Asks for the value of this fingerprint, if there is a hint where it is.
    #[inline]
    pub(super) fn prefetch_hinted<V>(&self, fingerprint: Fingerprint, snapshot: &Snapshot<V>) {
        if let Some(place) = self.place(fingerprint) {
            self.hints.prefetch(place, snapshot);
        }
    }

    /// The line that would be asked for first, and whether a value at `address` can have a hint.
    #[cfg(all(test, not(afterwrite_loom)))]
    pub(super) fn hinted<V>(
        &self,
        fingerprint: Fingerprint,
        snapshot: &Snapshot<V>,
        address: usize,
    ) -> (Option<usize>, bool) {
        let near = snapshot.as_raw().addr();
        let place = self.place(fingerprint);
        let line = place.and_then(|place| self.hints.first_line(place, near));
        (line, Hints::in_one_region(near, address))
    }

    /// The place of this fingerprint's tag, counted through all words.
    #[inline]
    fn place(&self, fingerprint: Fingerprint) -> Option<usize> {
        let load = |word: &AtomicU64| TagWord(word.load(Ordering::Relaxed));
        let (before, from) = self.words.split_at(fingerprint.word());
        let place = load(from.first()?).place(fingerprint.tag())?;
        let before: usize = before.iter().map(|word| load(word).len()).sum();
        Some(before + place)
    }

    /// The cell with the snapshot.
    #[inline]
    pub(super) fn cell(&self) -> &C {
        &self.cell
    }

    /// Adds an entry: its tag first, so that whoever finds it in the snapshot finds it again.
    ///
    /// `next` is the current snapshot with the entry. Only under the stripe's writers' lock.
    pub(super) fn insert<V>(&self, next: Snapshot<V>, added: Fingerprint) -> Option<Snapshot<V>>
    where
        C: SnapshotCell<V>,
    {
        if order::planted(order::SNAPSHOT_FIRST) {
            return self.publish(Some(next), Some(added));
        }
        let word = added.word();
        self.words[word].store(tags(Some(&next), word).0, order::word_publish());
        self.cell.replace(Some(next))
    }

    /// Replaces the snapshot by one with fewer entries, then the tags of one word, or of all.
    ///
    /// Only under the stripe's writers' lock.
    pub(super) fn publish<V>(
        &self,
        next: Option<Snapshot<V>>,
        removed: Option<Fingerprint>,
    ) -> Option<Snapshot<V>>
    where
        C: SnapshotCell<V>,
    {
        let words = removed.map_or(0..WORDS, |it| it.word()..it.word() + 1);
        // Before the snapshot is given away.
        let mut new_tags = [TagWord::EMPTY; WORDS];
        for word in words.clone() {
            new_tags[word] = tags(next.as_ref(), word);
        }
        let last = self.cell.replace(next);
        for word in words {
            self.words[word].store(new_tags[word].0, order::word_publish());
        }
        last
    }
}

/// The tags of the entries that belong to `word`: from the snapshot, not from the word as it was, which
/// cannot tell how often a tag is there.
fn tags<V>(snapshot: Option<&Snapshot<V>>, word: usize) -> TagWord {
    let entries = snapshot.into_iter().flat_map(Snapshot::entries);
    TagWord::of(entries.map(|(it, _)| (it.word() == word).then_some(it.tag())))
}

#[cfg(test)]
mod tests {
    use super::super::cell::DefaultCell;
    use super::*;
    use crate::arena::Memory;
    use std::ptr::NonNull;

    fn fingerprint(bits: u32) -> Fingerprint {
        Fingerprint(bits)
    }

    #[test]
    fn its_size_is_a_line() {
        assert_eq!(size_of::<Bucket<DefaultCell<String>>>(), 64);
    }

    #[test]
    fn the_tags_follow_the_snapshot() {
        // Never looked through, as a bucket does not look at values.
        let entry = |bits| (fingerprint(bits), NonNull::<String>::dangling());
        let both = [entry(1), entry(u32::MAX)];
        assert_ne!(both[0].0.word(), both[1].0.word());

        let bucket = Bucket::<DefaultCell<String>>::new(None);
        assert!(!both.iter().any(|(it, _)| bucket.may_contain(*it)));
        let one = Snapshot::with(&mut Memory::global(), None, both[0]);
        let two = Snapshot::with(&mut Memory::global(), Some(&one), both[1]);
        drop(bucket.insert(one, both[0].0));
        assert!(bucket.may_contain(both[0].0) && !bucket.may_contain(both[1].0));
        drop(bucket.insert(two, both[1].0));
        assert!(bucket.may_contain(both[0].0) && bucket.may_contain(both[1].0));
        drop(bucket.publish(None, None));
        assert!(
            !both.iter().any(|(it, _)| bucket.may_contain(*it)),
            "all words"
        );
    }
}
