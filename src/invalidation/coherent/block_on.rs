//! Runs one future on the calling thread, which parks while there is nothing to do.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// Leaves a park token behind when a wait is over, also by a panic: whether one that a park used up was
/// meant for somebody else on this thread cannot be known. One too many costs a look.
struct Repay<'a>(Option<&'a Thread>);

impl Drop for Repay<'_> {
    fn drop(&mut self) {
        if let Some(thread) = self.0 {
            thread.unpark();
        }
    }
}

/// Polls `future` to its end. An unpark that comes before the park is not lost: it stays with the
/// thread.
pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let thread = thread::current();
    let waker = Waker::from(Arc::new(Unpark(thread.clone())));
    let mut repay = Repay(None);
    let mut cx = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(output) => return output,
            Poll::Pending => {
                repay.0 = Some(&thread);
                thread::park();
            }
        }
    }
}
