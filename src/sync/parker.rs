//! A thread that waits for a call of its waker, or for a point in time.

// `std::task::Wake` is defined on std's `Arc`; no model runs a blocking wait (time does not pass
// in one), so there is nothing here that the shim could show.
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// One notification, kept until it is consumed. Its waker can be called from anywhere.
///
/// Its own condition variable rather than the thread's park token, which belongs to whatever else
/// runs on the caller's thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parker {
    cell: Arc<Cell>,
}

#[derive(Debug, Default)]
struct Cell {
    notified: Mutex<bool>,
    changed: Condvar,
}

impl Parker {
    /// A waker that notifies this parker.
    pub(crate) fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.cell))
    }

    /// Ends a wait that is under way, else the next one.
    pub(crate) fn notify(&self) {
        self.cell.wake_by_ref();
    }

    /// Blocks until notified, and consumes that; `false` if `deadline` came first.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> bool {
        let mut notified = self.cell.notified.lock();
        while !*notified {
            match deadline {
                None => self.cell.changed.wait(&mut notified),
                Some(deadline) => {
                    if self
                        .cell
                        .changed
                        .wait_until(&mut notified, deadline)
                        .timed_out()
                    {
                        break;
                    }
                }
            }
        }
        std::mem::take(&mut *notified)
    }
}

impl Wake for Cell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        *self.notified.lock() = true;
        self.changed.notify_one();
    }
}
