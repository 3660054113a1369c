//! The end of a registry: its shards end one by one, and who waits for the last is woken.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use slab::Slab;

use super::Core;
use crate::shard;
use crate::sync::parker::Parker;
use crate::sync::{Arc, panics};

/// Shards whose thread has not ended, and who waits for that.
#[derive(Default)]
pub(super) struct Running {
    shards: usize,
    /// One entry for each wait under way, taken out when it ends either way.
    waiting: Slab<Waker>,
}

impl<T> Core<T> {
    /// A shard's thread is about to start.
    pub(crate) fn shard_starts(&self) {
        self.running.lock().shards += 1;
    }

    /// A shard has given up all it had: its keys end, and with the last shard the registry.
    pub(crate) fn shard_ended(&self, index: usize) {
        self.directory.for_each(|channel| {
            if channel.attached.shard.index == index {
                match channel.attached.finish_refusals() {
                    0 => {}
                    lost => channel.lose(lost),
                }
                channel.shut();
            }
        });
        let mut running = self.running.lock();
        running.shards -= 1;
        let waiting = match running.shards {
            0 => std::mem::take(&mut running.waiting),
            _ => Slab::new(),
        };
        drop(running);
        waiting
            .into_iter()
            .for_each(|(_, waker)| panics::wake(waker));
    }

    /// Waits until every shard has ended; returns how many have not.
    pub(crate) fn wait_closed(&self, timeout: Option<Duration>) -> usize {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let parker = Parker::default();
        let waker = parker.waker();
        let mut place = None;
        loop {
            let running = self.poll_closed(&waker, &mut place);
            if running == 0 || !parker.wait(deadline) {
                self.forget_closed(&mut place);
                return running;
            }
        }
    }

    /// How many shards have not ended; if there are any, the waker is called at the end. None count
    /// for one of the shards themselves, which would wait for itself. `place` is the caller's among
    /// those who wait, to be given back by [`Core::forget_closed`].
    fn poll_closed(&self, waker: &Waker, place: &mut Option<usize>) -> usize {
        if shard::is_shard_of(&self.settings) {
            return 0;
        }
        // A waker's clone and drop are the user's code: neither runs under the lock.
        let waker = waker.clone();
        let mut running = self.running.lock();
        let shards = running.shards;
        let mut replaced = None;
        if shards > 0 {
            match *place {
                Some(at) => replaced = Some(std::mem::replace(&mut running.waiting[at], waker)),
                None => *place = Some(running.waiting.insert(waker)),
            }
        }
        drop(running);
        drop(replaced);
        shards
    }

    /// A wait for the end is given up, or over.
    fn forget_closed(&self, place: &mut Option<usize>) {
        if let Some(at) = place.take() {
            let waker = self.running.lock().waiting.try_remove(at);
            drop(waker);
        }
    }
}

/// Ends with the registry's last shard.
pub(super) struct Closed<T> {
    core: Arc<Core<T>>,
    place: Option<usize>,
}

impl<T> Closed<T> {
    pub(super) fn new(core: Arc<Core<T>>) -> Self {
        Self { core, place: None }
    }
}

impl<T> Future for Closed<T> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        match this.core.poll_closed(cx.waker(), &mut this.place) {
            0 => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}

impl<T> Drop for Closed<T> {
    fn drop(&mut self) {
        self.core.forget_closed(&mut self.place);
    }
}
