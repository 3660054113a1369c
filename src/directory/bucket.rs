//! One bucket: the tags of what it may hold, and the snapshot of what it holds.

use super::cell::SnapshotCell;
use super::hash::Fingerprint;
use super::order;
use super::sizes::WORDS;
use super::snapshot::{Entry, Snapshot};
use super::tags::TagWord;
use super::witness::Witness;
use crate::sync::AtomicU64;

/// Half a cache line, so that tags and cell come in one miss.
#[repr(align(32))]
pub(super) struct Bucket<C> {
    /// Which tags are here; each key's hash names the one word that its tag is in, so that a reader
    /// sees all that concerns it in one load.
    words: [AtomicU64; WORDS],
    cell: C,
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

    /// The cell with the snapshot.
    #[inline]
    pub(super) fn cell(&self) -> &C {
        &self.cell
    }

    /// Replaces the snapshot, then the tags of one word, or of all.
    ///
    /// Only under the stripe's writers' lock.
    pub(super) fn publish<V>(
        &self,
        next: Option<Snapshot<V>>,
        changed: Option<Fingerprint>,
    ) -> Option<Snapshot<V>>
    where
        C: SnapshotCell<V>,
    {
        let tags: [TagWord; WORDS] = std::array::from_fn(|word| tags(next.as_ref(), word));
        let last = self.cell.replace(next);
        for (word, tags) in tags.into_iter().enumerate() {
            if changed.is_none_or(|fingerprint| fingerprint.word() == word) {
                self.words[word].store(tags.0, order::word_publish());
            }
        }
        last
    }
}

/// The tags of the entries that belong to `word`.
fn tags<V>(snapshot: Option<&Snapshot<V>>, word: usize) -> TagWord {
    let entries = snapshot.into_iter().flat_map(Snapshot::entries);
    let here = entries.filter(|(fingerprint, _): &Entry<V>| fingerprint.word() == word);
    TagWord::of(here.map(|(fingerprint, _)| fingerprint.tag()))
}
