//! The thread of a shard: pinned, looping, sleeping by its bell.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::bell::{Bell, CLOSE};
use super::engine::{Engine, Step};
use super::inbox::Inbox;
use super::settings::{Settings, WaitStrategy};
use crate::sync::{Arc, AtomicBool, Ordering::Relaxed, panics::contain};

/// How long `SpinThenPark` looks again before it sleeps.
const SPIN: Duration = Duration::from_micros(20);

thread_local! {
    /// The `closing` flag of the registry whose shard this thread is, as an address.
    static SHARD_OF: Cell<usize> = const { Cell::new(0) };
}

/// Whether the calling thread is a shard of the registry with these settings.
pub(crate) fn is_shard_of(settings: &Settings) -> bool {
    SHARD_OF.get() == address(&settings.closing)
}

fn address(closing: &Arc<AtomicBool>) -> usize {
    let flag: &AtomicBool = closing;
    std::ptr::from_ref(flag) as usize
}

/// Raises the closing flag and rings every shard.
pub(crate) fn begin_closing<T>(settings: &Settings, shards: &[Arc<Inbox<T>>]) {
    settings.closing.store(true, Relaxed);
    for shard in shards {
        shard.bell.ring(CLOSE);
    }
}

/// Starts the thread of a shard. `ended` runs on it as the last thing.
pub(crate) fn spawn<T: Clone + Send + 'static>(
    inbox: Arc<Inbox<T>>,
    settings: Arc<Settings>,
    core: Option<usize>,
    ended: impl FnOnce(usize) + Send + 'static,
) -> std::io::Result<()> {
    let index = inbox.index;
    std::thread::Builder::new()
        .name(format!("afterwrite-{index}"))
        .spawn(move || {
            inbox.bell.attach();
            SHARD_OF.set(address(&settings.closing));
            if let Some(id) = core
                && !core_affinity::set_for_current(core_affinity::CoreId { id })
            {
                tracing::warn!(
                    core = id,
                    shard = index,
                    "the shard's thread could not be pinned"
                );
            }
            // Everything of the user's is contained where it is called; what remains would be a
            // fault of ours, and must not leave anybody waiting.
            if contain(|| run(inbox.clone(), settings.clone())).is_none() {
                tracing::error!(shard = index, "a shard ended by a panic");
                Engine::new(inbox, settings).close();
            }
            ended(index);
        })
        .map(drop)
}

fn run<T: Clone + Send + 'static>(inbox: Arc<Inbox<T>>, settings: Arc<Settings>) {
    #[cfg(feature = "tokio")]
    let runtime = settings.runtime.clone();
    #[cfg(feature = "tokio")]
    let _entered = runtime.as_ref().map(tokio::runtime::Handle::enter);
    let mut engine = Engine::new(inbox.clone(), settings.clone());
    loop {
        match engine.step() {
            Step::Busy => {}
            Step::Idle(until) => idle(&inbox.bell, &settings, until),
            Step::Close => return engine.close(),
        }
    }
}

fn idle(bell: &Bell, settings: &Settings, until: Option<Instant>) {
    match settings.wait {
        WaitStrategy::Park => bell.sleep(until),
        WaitStrategy::Spin => spin(bell, until),
        WaitStrategy::SpinThenPark => {
            if settings.may_spin {
                let enough = Instant::now() + SPIN;
                spin(bell, Some(until.map_or(enough, |until| until.min(enough))));
            }
            if !bell.has_rung() {
                bell.sleep(until);
            }
        }
    }
}

/// Looks again until somebody rings, or until then.
fn spin(bell: &Bell, until: Option<Instant>) {
    loop {
        for _ in 0..64 {
            if bell.has_rung() {
                return;
            }
            std::hint::spin_loop();
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            return;
        }
    }
}
