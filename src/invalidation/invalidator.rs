//! The front door of invalidation: emit what was written, watch what is cached.
//!
//! # Role
//! Joins the parts: the [protocol](super::protocol) that decides what may be believed, the
//! [outbox](super::outbox) that numbers what is sent, the [feeds](super::watch) that apply.
//!
//! # Who takes part
//! ```text
//!  a writer ──emit──► own caches ──► outbox ──► bus ──────► other nodes
//!                                      ▲
//!  beat thread ──beats, what waits─────┘
//!
//!  bus ──message──► protocol ──► feeds ──inline──► caches
//!                      ▲           └─────lanes───► watch threads ──► caches
//!  beat thread ──time──┘
//!
//!  deadline thread ──doubt──► fences
//! ```
//!
//! # Threads
//! Two an invalidator that is not alone (beats, deadlines), one for every watch that is not inline.
//! What the bus receives is applied on the bus's own thread. No async runtime is needed.

mod beat;
mod closing;
mod confirm;
mod deadline;
mod hands;
mod inner;
mod looking;
mod types;

use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

pub use types::{
    ConfirmError, EmitError, Emitted, Farewell, InvalidatorStats, StartError, Suspect, WatchError,
    Why,
};

pub(crate) use inner::Inner;
pub(crate) use looking::worst;

use super::cache::Reason;
use super::fence::Coherence;
use super::outbox::{Giver, Handed, Outbox, Refusal, Request, Ticket};
use super::protocol::{Micros, Node, OwnMarks};
use super::settings::Settings;
use super::subject::{Entity, Id, IdRef};
use crate::bus::Bus;
use crate::error::ThreadError;
use hands::Board;
use inner::{Clock, Core, Out, Remote, random_incarnation};

/// How long an invalidator that was dropped, not closed, takes for its goodbye.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Tells all nodes what was written, and this node's caches what was written elsewhere.
///
/// Clones share one node. When the last clone and the last
/// [`Watch`](super::Watch) are dropped it says goodbye in
/// the background; [`close`](Self::close) waits for that, and should be preferred at the end of a
/// process.
///
/// ```
/// use afterwrite::bus::LocalBus;
/// use afterwrite::invalidation::caches::BoundedMap;
/// use afterwrite::invalidation::coherent::Coherent;
/// use afterwrite::invalidation::subject::Entity;
/// use afterwrite::invalidation::{Invalidator, Settings};
///
/// let bus = LocalBus::new(); // `NatsBus` between processes
/// let invalidator = Invalidator::new(bus, Settings::new("orders-1"))?;
///
/// let user = Entity::new("user")?;
/// let users = Coherent::new(BoundedMap::<String>::new(10_000));
/// let watch = invalidator.watch_inline(&user, &users)?;
///
/// let writing = invalidator.writing(&user, "42")?;
/// // ... commit to the database; whatever happens, everybody drops user 42 ...
/// writing.committed()?;
/// # drop(watch);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Invalidator {
    handle: Arc<Handle>,
}

/// Dropped with the last clone: ends what runs.
struct Handle {
    inner: Arc<Inner>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(remote) = &self.inner.remote {
            if remote.farewell.lock().is_none() {
                self.inner.begin_closing(remote, LAST_WORDS);
            }
            remote.stop_listening();
            remote.deadline.thread.wake();
        }
    }
}

impl Invalidator {
    /// A node of a fleet that talks over `bus`. Returns before anything is proved: watches are
    /// `Joining` for about one beat.
    ///
    /// # Errors
    /// [`StartError`]: the settings make no sense, the bus refuses, or a thread cannot be started.
    pub fn new(bus: impl Bus, settings: Settings) -> Result<Self, StartError> {
        Self::start(Arc::new(bus), settings)
    }

    /// As [`new`](Self::new), for a bus that is shared already.
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    pub fn start(bus: Arc<dyn Bus>, settings: Settings) -> Result<Self, StartError> {
        settings.check()?;
        let clock = Clock::start();
        let (now, incarnation) = (clock.now(), random_incarnation());
        let own = Arc::<OwnMarks>::default();
        let mut node = Node::new(settings.rules(), incarnation, now, Arc::clone(&own));
        // Its own name is heard by its own beats, without which there is no proof anyway.
        let others = settings
            .expect
            .iter()
            .filter(|name| **name != settings.name);
        node.expect(others.map(|name| name.as_str().into()));
        let core = Core {
            node,
            board: Board::default(),
            forked: false,
            lost: bus.status().lost,
            closed: false,
        };
        let out = Out {
            outbox: Outbox::new(settings.outbox_rules(), incarnation, now, own.clone()),
            wire: bus.publisher(),
        };
        let inner = Arc::new(Inner {
            settings,
            clock,
            listeners: RwLock::default(),
            meeting: Mutex::default(),
            own,
            remote: Some(Remote::new(bus.clone(), core, out)),
        });
        inner.subscribe(bus.as_ref())?;
        let handle = Handle {
            inner: inner.clone(),
        };
        let weak = Arc::downgrade(&inner);
        let deadline = spawn("aw-deadline", move || {
            deadline::run(&weak, Duration::from_secs(1));
        })?;
        let beats = inner.clone();
        let beat = spawn("aw-beat", move || beat::run(&beats))?;
        if let Some(remote) = &inner.remote {
            remote.deadline.thread.set(deadline);
            remote.beat.set(beat);
        }
        Ok(Self {
            handle: Arc::new(handle),
        })
    }

    /// A node that is alone: it drops from its own caches, and tells nobody. Needs no server; its
    /// caches are [`Coherence::Standalone`].
    #[must_use]
    pub fn local() -> Self {
        let inner = Inner {
            settings: Settings::default(),
            clock: Clock::start(),
            listeners: RwLock::default(),
            meeting: Mutex::default(),
            own: Arc::default(),
            remote: None,
        };
        Self {
            handle: Arc::new(Handle {
                inner: Arc::new(inner),
            }),
        }
    }

    fn inner(&self) -> &Arc<Inner> {
        &self.handle.inner
    }

    /// The present time on this node's clock.
    pub(super) fn now(&self) -> Micros {
        self.inner().clock.now()
    }

    fn remote(&self) -> Option<&Remote> {
        self.inner().remote.as_ref()
    }

    /// The settings it runs with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.inner().settings
    }

    /// Says that `id` of `entity` was written. Call it once the write is committed; with
    /// [`writing`](Self::writing) it cannot be forgotten.
    ///
    /// Drops from this node's caches on the calling thread, then hands over to the bus and returns:
    /// it waits for no network. May block while another thread emits, for the time of numbering a
    /// frame.
    ///
    /// # Errors
    /// [`EmitError`]: what is known at once. That the server denies it is not. Without the right to
    /// publish, emits are handed over and answered [`Emitted::Sent`] until the first refusal has come
    /// back; from then on they are [`EmitError::Denied`], and after a lease one is tried again. The others
    /// find both by the next beat, as something that they missed.
    #[inline]
    pub fn emit(&self, entity: &Entity, id: &str) -> Result<Emitted, EmitError> {
        self.hand_over(entity, id, None, None)
    }

    /// As [`emit`](Self::emit), for a write that is visible at `position` (an event number, an LSN): from
    /// then on no cache stores what was read from a replica that has not reached it.
    ///
    /// # Errors
    /// Those of [`emit`](Self::emit).
    pub fn emit_at(&self, entity: &Entity, id: &str, position: u64) -> Result<Emitted, EmitError> {
        self.hand_over(entity, id, Some(position), None)
    }

    #[inline]
    fn hand_over(
        &self,
        entity: &Entity,
        id: &str,
        position: Option<u64>,
        ticket: Option<Arc<Ticket>>,
    ) -> Result<Emitted, EmitError> {
        let id = IdRef::new(id)?;
        self.inner().drop_here(entity, id, position);
        self.send(entity, |out, topic, now| {
            let wire = out.wire.as_mut();
            {
                let request = Request {
                    id,
                    position,
                    ticket,
                    giver: Giver::Anyone,
                };
                out.outbox.emit(topic, request, now, wire)
            }
        })
    }

    /// Says that many ids of one entity were written, `position` as in [`emit_at`](Self::emit_at). Without
    /// [plain peers](Settings::plain_peers) they travel together, many times faster than one by one.
    ///
    /// # Errors
    /// Those of [`emit`](Self::emit). Invalid ids are found before anything is dropped.
    pub fn emit_batch<I>(
        &self,
        entity: &Entity,
        ids: I,
        position: Option<u64>,
    ) -> Result<Emitted, EmitError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let ids: Vec<I::Item> = ids.into_iter().collect();
        let checked: Result<Vec<_>, _> = ids.iter().map(|id| IdRef::new(id.as_ref())).collect();
        let checked = checked?;
        self.inner().note_position(entity, position);
        self.inner().here(entity, |listener| {
            for &id in &checked {
                listener.feed.remove_now(id, position);
            }
        });
        self.send(entity, |out, topic, now| {
            let wire = out.wire.as_mut();
            out.outbox
                .emit_batch(topic, checked.iter().copied(), position, now, wire)
        })
    }

    /// Says that anything of `entity` may have been written: everybody drops all of it.
    ///
    /// Everybody but peers without frames: this is one message to `<prefix>.<entity>.%-all`, which they
    /// take for an id that they do not have. See [`Settings::plain_peers`].
    ///
    /// # Errors
    /// Those of [`emit`](Self::emit).
    pub fn emit_all(&self, entity: &Entity) -> Result<Emitted, EmitError> {
        self.inner().here(entity, |listener| {
            listener.feed.flush_now(Reason::Requested, None);
        });
        self.send(entity, |out, topic, now| {
            out.outbox.emit_all(topic, None, now, out.wire.as_mut())
        })
    }

    /// Hands something to the outbox.
    #[inline]
    fn send(
        &self,
        entity: &Entity,
        give: impl FnOnce(&mut Out, usize, Micros) -> Result<Handed, Refusal>,
    ) -> Result<Emitted, EmitError> {
        let Some(remote) = self.remote() else {
            return Ok(Emitted::Standalone);
        };
        if self.settings().read_only {
            return Err(EmitError::ReadOnly);
        }
        let mut out = remote.out.lock();
        // Read under the lock: of two that hand over, the first has the earlier time.
        let now = self.inner().clock.now();
        let handed = match out.outbox.topic(entity) {
            Ok(topic) => give(&mut out, topic, now),
            Err(refusal) => Err(refusal),
        };
        drop(out);
        remote.wake_resolved();
        match handed {
            Ok(Handed::Sent) => Ok(Emitted::Sent),
            Ok(Handed::Queued) => {
                remote.beat.wake();
                Ok(Emitted::Queued)
            }
            Ok(Handed::Collapsed) => {
                remote.beat.wake();
                Ok(Emitted::Collapsed)
            }
            Err(refusal) => Err(self.refused(refusal)),
        }
    }

    fn refused(&self, refusal: Refusal) -> EmitError {
        match refusal {
            Refusal::Closed => EmitError::Closed,
            Refusal::TooLarge { len, max } => EmitError::TooLarge { len, max },
            Refusal::Denied => EmitError::Denied,
            Refusal::TooManyEntities => EmitError::TooManyEntities {
                max: self.settings().max_entities,
            },
        }
    }

    /// Opens a guard over a write: call it before the write begins. See [`Writing`](super::Writing).
    ///
    /// # Errors
    /// [`EmitError`], before anything was written: [`EmitError::Closed`], [`EmitError::ReadOnly`],
    /// [`EmitError::Denied`], [`EmitError::TooManyEntities`] or an invalid id.
    pub fn writing(&self, entity: &Entity, id: &str) -> Result<super::Writing, EmitError> {
        let id = Id::new(id)?;
        let guard = match self.remote() {
            None => None,
            Some(_) if self.settings().read_only => return Err(EmitError::ReadOnly),
            Some(remote) => {
                let now = self.inner().clock.now();
                let mut out = remote.out.lock();
                let guard = out.outbox.open_guard(entity, now);
                Some(guard.map_err(|r| self.refused(r))?)
            }
        };
        Ok(super::Writing::new(self.clone(), entity.clone(), id, guard))
    }

    /// The end of a guard: hands over all its ids, then lets go.
    pub(super) fn end_writing(
        &self,
        entity: &Entity,
        ids: &[Id],
        position: Option<u64>,
        guard: Option<(usize, super::outbox::GuardId)>,
    ) -> Result<Emitted, EmitError> {
        self.inner().note_position(entity, position);
        self.inner().here(entity, |listener| {
            for id in ids {
                listener.feed.remove_now(id.borrowed(), position);
            }
        });
        let (Some(remote), Some((topic, guard))) = (self.remote(), guard) else {
            return Ok(Emitted::Standalone);
        };
        let mut out = remote.out.lock();
        let now = self.inner().clock.now();
        let Out { outbox, wire } = &mut *out;
        let mut result = Ok(Handed::Sent);
        for id in ids {
            let request = Request {
                id: id.borrowed(),
                position,
                ticket: None,
                giver: Giver::Guard,
            };
            let handed = outbox.emit(topic, request, now, wire.as_mut());
            result = match (result, handed) {
                (Ok(Handed::Sent), handed) => handed,
                (result, Ok(_)) => result,
                (_, refused) => refused,
            };
        }
        // Only now: a beat sees the guard, or the frames.
        outbox.close_guard(topic, guard);
        drop(out);
        remote.wake_resolved();
        if result != Ok(Handed::Sent) || remote.closing.lock().is_some() {
            remote.beat.wake();
        }
        match result {
            Ok(Handed::Sent) => Ok(Emitted::Sent),
            Ok(Handed::Queued) => Ok(Emitted::Queued),
            Ok(Handed::Collapsed) => Ok(Emitted::Collapsed),
            Err(refusal) => Err(self.refused(refusal)),
        }
    }

    /// A write was committed, or may have been, and nobody could be told.
    pub(super) fn untold(&self, entity: &Entity, error: &EmitError) {
        if let Some(remote) = self.remote() {
            remote.complaints.untold.say(|| {
                tracing::error!(entity = entity.as_str(), %error, "a write could not be told");
            });
        }
    }

    /// Lets go of a guard whose write did not happen.
    pub(super) fn drop_guard(&self, guard: Option<(usize, super::outbox::GuardId)>) {
        if let (Some(remote), Some((topic, guard))) = (self.remote(), guard) {
            remote.out.lock().outbox.close_guard(topic, guard);
            remote.beat.wake();
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<thread::Thread, StartError> {
    let handle = thread::Builder::new().name(name.to_owned()).spawn(run);
    let handle = handle.map_err(|error| StartError::Thread(ThreadError::new(error)))?;
    Ok(handle.thread().clone())
}

impl fmt::Debug for Invalidator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invalidator")
            .field("name", &self.settings().name)
            .field("standalone", &self.remote().is_none())
            .finish_non_exhaustive()
    }
}
