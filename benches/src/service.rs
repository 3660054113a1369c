//! Service life: many subscribers in tasks, few hot keys, comings and goings, and writes that do not
//! wait for anybody.
//!
//! 10,000 subscribers over 2,000 keys of Zipf popularity receive in tasks of a tokio runtime; 1,000
//! a second leave and as many come; submits, whose gates are ready at once, come at a rate that rises
//! until the system loses. The generator is *open-loop*: each submit has its time, and a delivery's
//! wait counts from that time, so what a system holds up counts as waiting.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use afterwrite::{Notice, Registry, Subscription};
use tokio::runtime::Runtime;
use tokio::sync::broadcast;

use crate::histogram::Histogram;
use crate::input::{self, Random, Zipf};
use crate::rivals::{BUFFER, Reference, Standing, TokioChannel};

/// How large the scenario is.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Tasks that receive.
    pub subscribers: usize,
    /// Keys.
    pub keys: usize,
    /// Subscribers that leave, and come, each second.
    pub churn: u32,
    /// How long each rate is held.
    pub hold: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            subscribers: 10_000,
            keys: 2_000,
            churn: 1_000,
            hold: Duration::from_millis(1_500),
        }
    }
}

/// What a system did at one rate.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its name.
    pub system: &'static str,
    /// Submits a second that were asked for.
    pub rate: u64,
    /// Submits a second that the generator made.
    pub made: u64,
    /// Deliveries a second.
    pub delivered: u64,
    /// Deliveries that were lost, those of refused submits included.
    pub lost: u64,
    /// Quantiles of submit-to-received, in nanoseconds: 0.5, 0.99, 0.999.
    pub quantiles: [u64; 3],
}

impl Step {
    /// Whether it lost more than one delivery in a thousand, or the generator could not keep the rate.
    /// Fewer losses come from the machine's own pauses: a generator that was held up makes up for
    /// it at once.
    #[must_use]
    pub fn breaks(&self, hold: Duration) -> bool {
        let all = self.delivered as f64 * hold.as_secs_f64();
        self.lost as f64 > all / 1e3 || self.made * 10 < self.rate * 9
    }
}

/// What a task got.
#[derive(Clone, Copy, Debug)]
pub enum Got {
    /// A value.
    Value(u64),
    /// News of so many that were lost.
    Lost(u64),
}

/// A system under test.
pub trait System: Send + Sync + 'static {
    /// Its name in the tables.
    const NAME: &'static str;
    /// What a task holds; dropping it unsubscribes.
    type Subscription: Send + 'static;
    /// With nobody subscribed.
    fn new() -> Self;
    /// Subscribes.
    fn subscribe(&self, key: &str) -> Self::Subscription;
    /// Waits for what comes next; `None` at the end.
    fn receive(subscription: &mut Self::Subscription) -> impl Future<Output = Option<Got>> + Send;
    /// Submits a gate that is ready at once; how many deliveries were lost at once by a refusal, if
    /// no task is told of them.
    fn submit(&self, key: &str, value: u64) -> u64;
    /// Deliveries that were lost and that no task is told of.
    fn lost_silently(&self) -> u64 {
        0
    }
}

impl System for Registry<u64> {
    const NAME: &'static str = "afterwrite";
    type Subscription = Subscription<u64>;

    fn new() -> Self {
        Registry::new().expect("the defaults are in range")
    }

    fn subscribe(&self, key: &str) -> Subscription<u64> {
        Registry::subscribe(self, key).expect("there is no cap")
    }

    async fn receive(subscription: &mut Subscription<u64>) -> Option<Got> {
        Some(match subscription.recv().await? {
            Notice::Changed(value) => Got::Value(value),
            Notice::Missed { n, .. } => Got::Lost(n),
        })
    }

    fn submit(&self, key: &str, value: u64) -> u64 {
        // A refusal reaches every subscriber as `Missed`.
        let _ = Registry::submit(self, key, move |_| Some(value));
        0
    }
}

impl System for Reference<TokioChannel> {
    const NAME: &'static str = "reference";
    type Subscription = Standing<TokioChannel>;

    fn new() -> Self {
        Reference::new(4, 64)
    }

    fn subscribe(&self, key: &str) -> Standing<TokioChannel> {
        Reference::subscribe(self, key, BUFFER)
    }

    async fn receive(standing: &mut Standing<TokioChannel>) -> Option<Got> {
        standing.receiver.recv().await.map(Got::Value)
    }

    fn submit(&self, key: &str, value: u64) -> u64 {
        match Reference::submit(self, key, move || Some(value)) {
            Some(false) => self.subscribers(key) as u64,
            _ => 0,
        }
    }

    fn lost_silently(&self) -> u64 {
        self.full()
    }
}

/// A tokio broadcast for each key, in a DashMap; the generator itself sends. It has no gate: a system
/// that needs one pays for it on top.
#[derive(Debug)]
pub struct Broadcasts {
    keys: Arc<dashmap::DashMap<String, broadcast::Sender<u64>, ahash::RandomState>>,
}

/// A receiver that removes its key when it was the last.
#[derive(Debug)]
pub struct Listening {
    keys: Arc<dashmap::DashMap<String, broadcast::Sender<u64>, ahash::RandomState>>,
    key: String,
    receiver: Option<broadcast::Receiver<u64>>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.receiver = None;
        self.keys
            .remove_if(&self.key, |_, sender| sender.receiver_count() == 0);
    }
}

impl System for Broadcasts {
    const NAME: &'static str = "DashMap of tokio broadcast (no gate)";
    type Subscription = Listening;

    fn new() -> Self {
        Self {
            keys: Arc::default(),
        }
    }

    fn subscribe(&self, key: &str) -> Listening {
        let receiver = self
            .keys
            .entry(key.to_owned())
            .or_insert_with(|| broadcast::channel(BUFFER).0)
            .subscribe();
        Listening {
            keys: self.keys.clone(),
            key: key.to_owned(),
            receiver: Some(receiver),
        }
    }

    async fn receive(listening: &mut Listening) -> Option<Got> {
        match listening.receiver.as_mut()?.recv().await {
            Ok(value) => Some(Got::Value(value)),
            Err(broadcast::error::RecvError::Lagged(n)) => Some(Got::Lost(n)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    fn submit(&self, key: &str, value: u64) -> u64 {
        if let Some(sender) = self.keys.get(key) {
            // Without receivers nothing is lost.
            let _ = sender.send(value);
        }
        0
    }
}

/// What the tasks count, a few to a histogram so that they do not share a line.
struct Counts {
    begin: Instant,
    waits: [Histogram; 4],
    lost: AtomicU64,
}

struct Crowd<S: System> {
    system: Arc<S>,
    names: Arc<[String]>,
    zipf: Arc<Zipf>,
    counts: Arc<Counts>,
}

impl<S: System> Crowd<S> {
    fn join(
        &self,
        runtime: &Runtime,
        random: &mut Random,
        index: usize,
    ) -> tokio::task::AbortHandle {
        let mut subscription = self.system.subscribe(&self.names[self.zipf.draw(random)]);
        let counts = self.counts.clone();
        let task = runtime.spawn(async move {
            while let Some(got) = S::receive(&mut subscription).await {
                match got {
                    Got::Value(due) => {
                        let now = counts.begin.elapsed().as_nanos() as u64;
                        counts.waits[index % 4].record(now.saturating_sub(due));
                    }
                    Got::Lost(n) => {
                        counts.lost.fetch_add(n, Relaxed);
                    }
                }
            }
        });
        task.abort_handle()
    }
}

/// Runs a system at one rate, in submits a second.
#[must_use]
pub fn step<S: System>(runtime: &Runtime, settings: Settings, rate: u64) -> Step {
    let counts = Arc::new(Counts {
        begin: Instant::now(),
        waits: Default::default(),
        lost: AtomicU64::new(0),
    });
    let crowd = Crowd {
        system: Arc::new(S::new()),
        names: input::keys(settings.keys).into(),
        zipf: Arc::new(Zipf::new(settings.keys)),
        counts: counts.clone(),
    };
    let mut random = Random::new(5);
    let mut tasks: Vec<_> = (0..settings.subscribers)
        .map(|index| crowd.join(runtime, &mut random, index))
        .collect();
    let ends = AtomicBool::new(false);
    let (made, refused, took) = std::thread::scope(|scope| {
        scope.spawn(|| {
            let pause = Duration::from_secs(1) / settings.churn.max(1);
            let begin = Instant::now();
            let mut turn = 0;
            while !ends.load(Relaxed) && settings.churn > 0 {
                turn += 1;
                let index = random.below(tasks.len());
                tasks[index].abort();
                tasks[index] = crowd.join(runtime, &mut random, index);
                std::thread::sleep(
                    (begin + pause * turn).saturating_duration_since(Instant::now()),
                );
            }
        });
        let outcome = generate(&crowd, settings, rate);
        ends.store(true, Relaxed);
        outcome
    });
    // What is on its way arrives, or is reported.
    std::thread::sleep(Duration::from_millis(300));
    for task in &tasks {
        task.abort();
    }
    let waits = Histogram::default();
    counts.waits.iter().for_each(|part| waits.add(part));
    Step {
        system: S::NAME,
        rate,
        made: (made as f64 / took.as_secs_f64()) as u64,
        delivered: (waits.len() as f64 / took.as_secs_f64()) as u64,
        lost: refused + counts.lost.load(Relaxed) + crowd.system.lost_silently(),
        quantiles: [0.5, 0.99, 0.999].map(|share| waits.quantile(share)),
    }
}

/// Submits each at its time, however late the last one was: how many, how many deliveries
/// were lost by refusals, and the time it took.
fn generate<S: System>(crowd: &Crowd<S>, settings: Settings, rate: u64) -> (u64, u64, Duration) {
    let mut random = Random::new(6);
    let total = (settings.hold.as_secs_f64() * rate as f64) as u64;
    let gap = 1e9 / rate as f64;
    let first = crowd.counts.begin.elapsed().as_nanos() as u64;
    let begin = Instant::now();
    let (mut made, mut refused) = (0, 0);
    for n in 0..total {
        let offset = (n as f64 * gap) as u64;
        let due = begin + Duration::from_nanos(offset);
        let early = due.saturating_duration_since(Instant::now());
        if !early.is_zero() {
            std::thread::sleep(early);
        }
        let key = crowd.zipf.draw(&mut random);
        refused += crowd.system.submit(&crowd.names[key], first + offset);
        made += 1;
        if begin.elapsed() > settings.hold * 3 {
            break;
        }
    }
    (made, refused, begin.elapsed())
}

/// Raises the rate until all systems break, and narrows down where each does. All are tried at one rate
/// before the next.
#[must_use]
pub fn sweep(settings: Settings) -> Vec<Step> {
    type Run = fn(&Runtime, Settings, u64) -> Step;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .expect("the operating system gives two threads");
    let systems: [Run; 3] = [
        step::<Registry<u64>>,
        step::<Reference<TokioChannel>>,
        step::<Broadcasts>,
    ];
    let mut steps = Vec::new();
    let mut good = [0_u64; 3];
    let mut bad = [u64::MAX; 3];
    let mut rate = 250;
    while rate <= 1 << 20 && bad.contains(&u64::MAX) {
        for (index, run) in systems.iter().enumerate() {
            if bad[index] == u64::MAX {
                let step = run(&runtime, settings, rate);
                let bounds = if step.breaks(settings.hold) {
                    &mut bad
                } else {
                    &mut good
                };
                bounds[index] = rate;
                steps.push(step);
            }
        }
        rate *= 2;
    }
    for _ in 0..3 {
        for (index, run) in systems.iter().enumerate() {
            let middle = good[index].midpoint(bad[index]);
            if good[index] > 0 && bad[index] < u64::MAX {
                let step = run(&runtime, settings, middle);
                let bounds = if step.breaks(settings.hold) {
                    &mut bad
                } else {
                    &mut good
                };
                bounds[index] = middle;
                steps.push(step);
            }
        }
    }
    steps.sort_by(|a, b| (a.system, a.rate).cmp(&(b.system, b.rate)));
    steps
}

/// The highest rate at which a system did not break, below the lowest at which it did.
#[must_use]
pub fn capacity(steps: &[Step], system: &str, settings: Settings) -> u64 {
    let mine = || steps.iter().filter(|step| step.system == system);
    let broke = mine()
        .filter(|step| step.breaks(settings.hold))
        .map(|step| step.rate)
        .min();
    mine()
        .filter(|step| !step.breaks(settings.hold) && broke.is_none_or(|broke| step.rate < broke))
        .map(|step| step.rate)
        .max()
        .unwrap_or(0)
}

/// Prints steps as a table.
pub fn print(steps: &[Step]) {
    for step in steps {
        let [p50, p99, p999] = step.quantiles.map(|nanos| nanos as f64 / 1e3);
        println!(
            "{:<38} {:>7}/s  {:>9} delivered/s  lost {:>8}  p50 {p50:>10.1} µs  p99 {p99:>10.1} µs  p99.9 {p999:>10.1} µs",
            step.system, step.rate, step.delivered, step.lost
        );
    }
}

#[cfg(test)]
mod tests {
    use super::{Broadcasts, Settings, Step, capacity, step};
    use crate::rivals::{Reference, TokioChannel};
    use afterwrite::Registry;
    use std::time::Duration;

    const SMALL: Settings = Settings {
        subscribers: 20,
        keys: 5,
        churn: 100,
        hold: Duration::from_millis(200),
    };

    #[test]
    fn every_system_delivers() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .build()
            .unwrap();
        for step in [
            step::<Registry<u64>>(&runtime, SMALL, 200),
            step::<Reference<TokioChannel>>(&runtime, SMALL, 200),
            step::<Broadcasts>(&runtime, SMALL, 200),
        ] {
            assert!(step.delivered > 0, "{step:?}");
            assert!(step.quantiles[0] > 0, "{step:?}");
        }
    }

    #[test]
    fn the_capacity_is_below_the_lowest_rate_that_broke() {
        let at = |rate, lost| Step {
            system: "s",
            rate,
            made: rate,
            delivered: 1_000,
            lost,
            quantiles: [1; 3],
        };
        let steps = [at(100, 0), at(200, 0), at(300, 50), at(400, 0)];
        assert_eq!(capacity(&steps, "s", SMALL), 200);
        assert_eq!(capacity(&steps, "another", SMALL), 0);
    }
}
