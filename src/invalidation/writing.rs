//! A guard over a write: whatever becomes of the write, everybody hears of it.

use super::invalidator::{EmitError, Emitted, Invalidator};
use super::outbox::GuardId;
use super::subject::{Entity, Id};

/// An open write. Dropping it emits: after an error, a panic or a cancelled future nobody knows
/// whether the write happened, so everybody drops the value. Only [`rolled_back`](Self::rolled_back)
/// emits nothing.
///
/// A guard that is open for longer than [`write_limit`](super::Settings::write_limit) puts its
/// entity in doubt on all nodes until it ends. A process that dies with an open guard says no
/// goodbye: the others find it silent, and doubt.
///
/// ```
/// # use afterwrite::invalidation::{Invalidator, EmitError, subject::Entity};
/// # let invalidator = Invalidator::local();
/// # let user = Entity::new("user")?;
/// # fn commit() -> Result<(), std::io::Error> { Ok(()) }
/// let writing = invalidator.writing(&user, "42")?;
/// commit()?; // an error here drops the guard, which emits
/// writing.committed()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "a guard that is dropped at once guards nothing"]
pub struct Writing {
    invalidator: Invalidator,
    entity: Entity,
    ids: Vec<Id>,
    position: Option<u64>,
    guard: Option<(usize, GuardId)>,
    ended: bool,
}

impl Writing {
    pub(super) fn new(
        invalidator: Invalidator,
        entity: Entity,
        id: Id,
        guard: Option<(usize, GuardId)>,
    ) -> Self {
        Self {
            invalidator,
            entity,
            ids: vec![id],
            position: None,
            guard,
            ended: false,
        }
    }

    /// The same write changes another id of the same entity.
    ///
    /// # Errors
    /// [`EmitError::Subject`] if it is no valid id.
    pub fn also(&mut self, id: &str) -> Result<(), EmitError> {
        self.ids.push(Id::new(id)?);
        Ok(())
    }

    /// The write is visible from this position on; see [`Invalidator::emit_at`].
    pub fn at(&mut self, position: u64) {
        self.position = self.position.max(Some(position));
    }

    /// The write is committed: emits, and says what became of that.
    ///
    /// # Errors
    /// [`EmitError`]. The others notice by this node's next beat, and flush; or find it silent.
    pub fn committed(mut self) -> Result<Emitted, EmitError> {
        self.end()
    }

    /// The write certainly did not happen: nothing is emitted.
    pub fn rolled_back(mut self) {
        self.ended = true;
        self.invalidator.drop_guard(self.guard.take());
    }

    fn end(&mut self) -> Result<Emitted, EmitError> {
        self.ended = true;
        let guard = self.guard.take();
        self.invalidator
            .end_writing(&self.entity, &self.ids, self.position, guard)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if !self.ended
            && let Err(error) = self.end()
        {
            self.invalidator.untold(&self.entity, &error);
        }
    }
}
