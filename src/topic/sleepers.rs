//! Receivers that sleep, chunk by chunk.

use std::ptr::NonNull;

use super::chunk::{Chunk, start_of_chunk};
use super::wakers::{self, Wakers};
use crate::mailbox::Header;
use crate::sync::{Ordering::Relaxed, order};

/// Chunks before the first full one: those that grow.
const GROWING: usize = 3;

/// Chunks whose sleepers are still to be woken.
#[derive(Clone, Copy)]
pub(super) struct Sleepers {
    chunk: Option<NonNull<Chunk>>,
    pub(super) left: u32,
}

impl Sleepers {
    /// The sleepers of so many chunks, from this one on.
    pub(super) fn from(first: NonNull<Chunk>, chunks: u32) -> Self {
        Self {
            chunk: Some(first),
            left: chunks,
        }
    }

    /// Whether there may be more of them than are woken together, when the turn is free.
    pub(super) fn may_be_many(&self) -> bool {
        const {
            assert!(start_of_chunk(GROWING) as usize <= wakers::BATCH);
        }
        self.left as usize > GROWING
    }

    /// Takes the wakers of at most so many chunks. The caller holds the turn of a topic that lives.
    pub(super) fn take(&mut self, wakers: &mut Wakers, chunks: u32) {
        let stop = self.left.saturating_sub(chunks);
        while let Some(at) = self.chunk
            && self.left > stop
        {
            // SAFETY: chunks live as long as the topic.
            let chunk = unsafe { at.as_ref() };
            if chunk.waiting.load(Relaxed) != 0 {
                let live = chunk.live.load(order::live_read());
                // A bit that is not live yet stays: its receiver asks for attention itself.
                let mut sleeping = chunk.waiting.fetch_and(!live, Relaxed) & live;
                while sleeping != 0 {
                    let bit = sleeping.trailing_zeros();
                    sleeping &= sleeping - 1;
                    // SAFETY: the bit is live, and the caller holds the turn.
                    let mailbox = unsafe { Chunk::entry(at, bit) }
                        .with(|entry| unsafe { (*entry).mailbox() });
                    let waker = mailbox.and_then(|mailbox| {
                        // SAFETY: a live entry's mailbox is kept by the registration until it is
                        // swept.
                        unsafe { Header::take_waker(mailbox) }
                    });
                    if let Some(waker) = waker {
                        wakers.push(waker);
                    }
                }
            }
            self.chunk = chunk.next();
            self.left -= 1;
        }
    }
}
