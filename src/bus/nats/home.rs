//! Where the bus's tasks run: on a thread of its own, or on the caller's runtime.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;

use super::courier::Tray;

/// How long a closing bus tries to write out what was published, before its thread ends.
const DRAIN: Duration = Duration::from_secs(1);

/// A runtime to spawn on. One of our own ends with its `Home`.
#[derive(Debug)]
pub(super) struct Home {
    handle: Handle,
    /// Dropping the last sender ends the thread of a runtime of our own.
    keep: Option<watch::Sender<()>>,
}

/// A runtime of our own. If its thread cannot be started it is dropped where that was tried, maybe
/// inside another runtime: so it never waits for what it runs, which tokio forbids there.
#[derive(Debug)]
struct Ours(Option<Runtime>);

impl Drop for Ours {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Home {
    /// The caller's runtime. It needs its I/O and time drivers.
    pub(super) fn theirs(handle: Handle) -> Self {
        Self { handle, keep: None }
    }

    /// A runtime on one thread: the client and the pumps hand over to each other without waking
    /// another thread.
    pub(super) fn ours() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let ours = Ours(Some(runtime));
        let (keep, mut kept) = watch::channel(());
        thread::Builder::new()
            .name("afterwrite-nats".into())
            .spawn(move || {
                // The value never changes: this returns when the last sender is gone.
                let until_gone = async move { while kept.changed().await.is_ok() {} };
                // All of it moves here, to end with this thread.
                let ours = ours;
                if let Some(runtime) = &ours.0 {
                    runtime.block_on(until_gone);
                }
            })?;
        Ok(Self {
            handle,
            keep: Some(keep),
        })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Writes out what lies on `trays` and what `client` holds, and ends its connection, without waiting here. A runtime of
    /// our own lives until that is done, for [`DRAIN`] at most.
    pub(super) fn drain(&self, client: async_nats::Client, trays: Vec<Arc<Tray>>) {
        let keep = self.keep.clone();
        self.handle.spawn(async move {
            let drained = async {
                for tray in &trays {
                    tray.passed(tray.laid()).await.ok();
                }
                // Draining alone may end the connection with some of it unwritten.
                client.flush().await.ok();
                client.drain().await.ok();
                // The connection's task is gone when it takes no more commands.
                while client.flush().await.is_ok() {}
            };
            tokio::time::timeout(DRAIN, drained).await.ok();
            drop(keep);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_of_our_own_may_be_dropped_inside_another() {
        let build = || Builder::new_current_thread().enable_all().build().unwrap();
        let ours = Ours(Some(build()));
        build().block_on(async move { drop(ours) });
    }
}
