//! "It is done": told once, waited for in any way.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// A flag that is raised once, and wakes who waits for it: tasks and threads.
#[derive(Debug, Default)]
pub(crate) struct Done {
    state: Mutex<State>,
    raised: Condvar,
}

#[derive(Debug, Default)]
struct State {
    done: bool,
    wakers: Vec<Waker>,
}

impl Done {
    pub(crate) fn set(&self) {
        let mut state = self.state.lock();
        state.done = true;
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        self.raised.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Waits on this thread; `false` if it took too long.
    pub(crate) fn wait_timeout(&self, timeout: Duration) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        let mut state = self.state.lock();
        while !state.done {
            match deadline {
                Some(deadline) => {
                    if self.raised.wait_until(&mut state, deadline).timed_out() {
                        return state.done;
                    }
                }
                None => self.raised.wait(&mut state),
            }
        }
        true
    }

    /// Waits as a future. Cancel-safe.
    pub(crate) const fn wait(&self) -> Wait<'_> {
        Wait(self)
    }
}

/// See [`Done::wait`].
#[derive(Debug)]
pub(crate) struct Wait<'a>(&'a Done);

impl Future for Wait<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.state.lock();
        if state.done {
            return Poll::Ready(());
        }
        if !state.wakers.iter().any(|known| known.will_wake(cx.waker())) {
            state.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }
}
