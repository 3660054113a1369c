//! An inbox that keeps what it is given, and can be waited on.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use afterwrite::bus::{Delivery, Event, Inbox};

/// What was delivered, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Message(String, Vec<u8>),
    Event(Event),
}

/// Clones see the same.
#[derive(Clone, Default)]
pub struct Recorder {
    shared: Arc<(Mutex<Vec<Seen>>, Condvar)>,
}

impl Recorder {
    pub fn new() -> Self {
        Self::default()
    }

    /// An inbox that records here.
    pub fn inbox(&self) -> Box<dyn Inbox> {
        let recorder = self.clone();
        Box::new(move |delivery: Delivery<'_>| recorder.record(delivery))
    }

    pub fn record(&self, delivery: Delivery<'_>) {
        let seen = match delivery {
            Delivery::Message { subject, payload } => {
                Seen::Message(subject.to_owned(), payload.to_owned())
            }
            Delivery::Event(event) => Seen::Event(event.clone()),
        };
        self.shared.0.lock().unwrap().push(seen);
        self.shared.1.notify_all();
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.shared.0.lock().unwrap().clone()
    }

    pub fn len(&self) -> usize {
        self.shared.0.lock().unwrap().len()
    }

    /// The messages alone: subject and payload.
    pub fn messages(&self) -> Vec<(String, Vec<u8>)> {
        let messages = self.seen().into_iter().filter_map(|seen| match seen {
            Seen::Message(subject, payload) => Some((subject, payload)),
            Seen::Event(_) => None,
        });
        messages.collect()
    }

    pub fn events(&self) -> Vec<Event> {
        let events = self.seen().into_iter().filter_map(|seen| match seen {
            Seen::Message(..) => None,
            Seen::Event(event) => Some(event),
        });
        events.collect()
    }

    /// The sum of all losses told.
    pub fn lost(&self) -> u64 {
        let lost = |event: &Event| match event {
            Event::Lost { n } => *n,
            _ => 0,
        };
        self.events().iter().map(lost).sum()
    }

    /// Waits until this holds of what was seen; false if it does not within `patience`.
    pub fn wait(&self, patience: Duration, holds: impl Fn(&[Seen]) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        let mut seen = self.shared.0.lock().unwrap();
        while !holds(&seen) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            (seen, _) = self.shared.1.wait_timeout(seen, left).unwrap();
        }
        true
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.seen()).finish()
    }
}
