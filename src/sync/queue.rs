//! The queues of a shard: flume's and crossbeam's, or stand-ins that the models can see.

#[cfg(not(afterwrite_loom))]
mod imp {
    /// Messages that are taken one by one.
    const FEW: usize = 16;

    /// A place for one value, swapped by anyone.
    pub(crate) type Place<M> = crossbeam_utils::atomic::AtomicCell<Option<M>>;

    /// A lock-free list; its users bound its length.
    pub(crate) type List<M> = crossbeam_queue::SegQueue<M>;

    /// A queue of which both ends are in one place, shared by reference.
    #[derive(Debug)]
    pub(crate) struct Queue<M> {
        sender: flume::Sender<M>,
        receiver: flume::Receiver<M>,
    }

    impl<M> Queue<M> {
        pub(crate) fn bounded(capacity: usize) -> Self {
            let (sender, receiver) = flume::bounded(capacity);
            Self { sender, receiver }
        }

        /// Takes flume's short lock, and never waits for room.
        pub(crate) fn try_send(&self, message: M) -> Result<(), M> {
            self.sender
                .try_send(message)
                .map_err(flume::TrySendError::into_inner)
        }

        /// How many messages there are.
        #[cfg(test)]
        pub(crate) fn len(&self) -> usize {
            self.receiver.len()
        }

        /// Takes everything out, in order: a few messages one by one; many under one lock, but the
        /// queue's buffer with them, so that the next sender has to allocate another.
        pub(crate) fn drain(&self, into: &mut Vec<M>) {
            for _ in 0..FEW {
                match self.receiver.try_recv() {
                    Ok(message) => into.push(message),
                    Err(_) => return,
                }
            }
            into.extend(self.receiver.drain());
        }
    }
}

#[cfg(afterwrite_loom)]
mod imp {
    use std::collections::VecDeque;

    use crate::sync::Mutex;

    /// crossbeam knows no loom: a locked place.
    #[derive(Debug)]
    pub(crate) struct Place<M>(Mutex<Option<M>>);

    impl<M> Place<M> {
        pub(crate) fn new(value: Option<M>) -> Self {
            Self(Mutex::new(value))
        }

        pub(crate) fn swap(&self, value: Option<M>) -> Option<M> {
            std::mem::replace(&mut *self.0.lock(), value)
        }

        pub(crate) fn take(&self) -> Option<M> {
            self.swap(None)
        }
    }

    /// As for a place.
    #[derive(Debug)]
    pub(crate) struct List<M>(Mutex<VecDeque<M>>);

    impl<M> List<M> {
        pub(crate) fn new() -> Self {
            Self(Mutex::new(VecDeque::new()))
        }

        pub(crate) fn push(&self, message: M) {
            self.0.lock().push_back(message);
        }

        pub(crate) fn pop(&self) -> Option<M> {
            self.0.lock().pop_front()
        }

        pub(crate) fn len(&self) -> usize {
            self.0.lock().len()
        }
    }

    /// flume knows no loom: a locked queue with the same promises.
    #[derive(Debug)]
    pub(crate) struct Queue<M> {
        messages: Mutex<VecDeque<M>>,
        capacity: usize,
    }

    impl<M> Queue<M> {
        pub(crate) fn bounded(capacity: usize) -> Self {
            Self {
                messages: Mutex::new(VecDeque::new()),
                capacity,
            }
        }

        pub(crate) fn try_send(&self, message: M) -> Result<(), M> {
            let mut messages = self.messages.lock();
            if messages.len() == self.capacity {
                return Err(message);
            }
            messages.push_back(message);
            Ok(())
        }

        pub(crate) fn drain(&self, into: &mut Vec<M>) {
            into.extend(self.messages.lock().drain(..));
        }
    }
}

pub(crate) use imp::{List, Place, Queue};
