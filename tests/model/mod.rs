//! The naive model of a registry.

use std::collections::VecDeque;

use afterwrite::Overflow;

/// What happened to a key, for one of its subscribers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Entry {
    Payload(u64),
    /// As `Payload`, but the receiver has a hand on it: nothing replaces it any more.
    Claimed(u64),
    Lost {
        seen: bool,
    },
    Merged,
    First(Option<u64>),
}

/// What a gate does once it is open and at the head of its key.
#[derive(Clone, Copy, Debug)]
pub enum What {
    Push(u64),
    Lose,
    First(usize, u64),
}

/// What a receive should answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Expected {
    Payload(u64),
    /// So many; whether the view shows all of them, and whether a later loss is not shown.
    Missed {
        lost: u64,
        seen: bool,
        later: bool,
    },
    Empty,
    Ended,
}

#[derive(Clone, Debug)]
struct Subscriber {
    id: usize,
    key: usize,
    overflow: Overflow,
    capacity: usize,
    unread: VecDeque<Entry>,
    closed: bool,
    sent: u64,
}

/// The gates of a key, as long as somebody subscribes to it; then they are for nobody.
#[derive(Default)]
struct Lane {
    gates: VecDeque<(u64, What)>,
}

pub struct Model {
    subscribers: Vec<Subscriber>,
    lanes: Vec<Lane>,
    orphans: Vec<Lane>,
    next: usize,
    pub position: u64,
    pub closed: bool,
}

impl Model {
    pub fn new(keys: usize) -> Self {
        Self {
            subscribers: Vec::new(),
            lanes: (0..keys).map(|_| Lane::default()).collect(),
            orphans: Vec::new(),
            next: 0,
            position: 0,
            closed: false,
        }
    }

    /// How many subscribers a key has.
    pub fn count(&self, key: usize) -> usize {
        let live = |s: &&Subscriber| s.key == key && !s.closed;
        self.subscribers.iter().filter(live).count()
    }

    /// How many gates wait.
    pub fn waiting(&self) -> usize {
        let lanes = self.lanes.iter().chain(&self.orphans);
        lanes.map(|lane| lane.gates.len()).sum()
    }

    /// How much was sent to a subscriber.
    pub fn sent(&self, index: usize) -> u64 {
        self.subscribers[index].sent
    }

    pub fn subscribe(&mut self, key: usize, overflow: Overflow, capacity: usize) -> usize {
        self.next += 1;
        self.subscribers.push(Subscriber {
            id: self.next,
            key,
            overflow,
            capacity: if overflow == Overflow::Conflate {
                1
            } else {
                capacity
            },
            unread: VecDeque::new(),
            closed: false,
            sent: 0,
        });
        self.next
    }

    pub fn unsubscribe(&mut self, index: usize) {
        let key = self.subscribers[index].key;
        self.subscribers[index].closed = true;
        if self.count(key) == 0 {
            let lane = std::mem::take(&mut self.lanes[key]);
            self.orphans.push(lane);
        }
    }

    pub fn forget(&mut self, index: usize) {
        self.subscribers.swap_remove(index);
    }

    /// Pushes, and says how many it reached.
    pub fn push(&mut self, key: usize, value: u64) -> usize {
        let live = |s: &&mut Subscriber| s.key == key && !s.closed;
        let mut reached = 0;
        for subscriber in self.subscribers.iter_mut().filter(live) {
            reached += usize::from(subscriber.push(value));
        }
        reached
    }

    fn act(&mut self, key: Option<usize>, what: What) {
        match (what, key) {
            (What::Push(value), Some(key)) => {
                self.push(key, value);
            }
            (What::Lose, Some(key)) => {
                for subscriber in &mut self.subscribers {
                    if subscriber.key == key && !subscriber.closed {
                        subscriber.sent += 1;
                        subscriber.unread.push_back(Entry::Lost { seen: false });
                    }
                }
            }
            (What::First(id, value), _) => self.first(id, Some(value)),
            (_, None) => {}
        }
    }

    fn first(&mut self, id: usize, value: Option<u64>) {
        let of = |s: &&mut Subscriber| s.id == id && !s.closed;
        if let Some(subscriber) = self.subscribers.iter_mut().find(of) {
            subscriber.unread.push_back(Entry::First(value));
        }
    }

    /// A gate arrives that opens at a position.
    pub fn gate(&mut self, key: usize, position: u64, what: What) {
        self.lanes[key].gates.push_back((position, what));
        self.run();
    }

    pub fn advance(&mut self) {
        self.position += 1;
        self.run();
    }

    fn run(&mut self) {
        for key in 0..self.lanes.len() {
            while let Some(&(position, what)) = self.lanes[key].gates.front()
                && position <= self.position
            {
                self.lanes[key].gates.pop_front();
                self.act(Some(key), what);
            }
        }
        for lane in &mut self.orphans {
            while lane.gates.front().is_some_and(|g| g.0 <= self.position) {
                lane.gates.pop_front();
            }
        }
    }

    /// What is open is pushed, the rest is lost.
    pub fn close(&mut self) {
        self.closed = true;
        for key in 0..self.lanes.len() {
            for (position, what) in std::mem::take(&mut self.lanes[key].gates) {
                match what {
                    _ if position <= self.position => self.act(Some(key), what),
                    What::First(id, _) => self.first(id, None),
                    _ => self.act(Some(key), What::Lose),
                }
            }
        }
        self.orphans.clear();
    }

    pub fn receive(&mut self, index: usize) -> Expected {
        self.subscribers[index].receive(self.closed)
    }

    /// What the next receive answers.
    pub fn peek(&self, index: usize) -> Expected {
        self.subscribers[index].clone().receive(self.closed)
    }
}

impl Subscriber {
    fn push(&mut self, value: u64) -> bool {
        self.sent += 1;
        let payload = |e: &Entry| matches!(e, Entry::Payload(_));
        let held = |e: &&Entry| matches!(e, Entry::Payload(_) | Entry::Claimed(_));
        let full = match self.overflow {
            Overflow::DropNewest => self.unread.iter().filter(held).count() == self.capacity,
            _ => self.unread.iter().filter(|e| payload(e)).count() == self.capacity,
        };
        if full {
            let replaced = match self.overflow {
                Overflow::DropNewest => {
                    self.unread.push_back(Entry::Lost { seen: true });
                    return false;
                }
                Overflow::Conflate => Entry::Merged,
                _ => Entry::Lost { seen: true },
            };
            if let Some(oldest) = self.unread.iter_mut().find(|e| payload(e)) {
                *oldest = replaced;
            }
        }
        self.unread.push_back(Entry::Payload(value));
        true
    }

    fn receive(&mut self, over: bool) -> Expected {
        if self.closed {
            return Expected::Ended;
        }
        // A look puts a hand on the oldest payload.
        let oldest = |e: &Entry| matches!(e, Entry::Payload(_) | Entry::Claimed(_));
        let next = self.unread.iter().position(oldest);
        if let Some(at) = next
            && let Entry::Payload(value) = self.unread[at]
        {
            self.unread[at] = Entry::Claimed(value);
        }
        if let Some(Entry::First(value)) = self.unread.front().copied() {
            self.unread.pop_front();
            return match value {
                Some(value) => Expected::Payload(value),
                None => Expected::Missed {
                    lost: 1,
                    seen: false,
                    later: false,
                },
            };
        }
        // What was lost is told before the notice that follows it. A conflating subscriber with a
        // payload at hand is told of all that was lost before that.
        let end = next.unwrap_or(self.unread.len());
        let first = self
            .unread
            .iter()
            .position(|e| matches!(e, Entry::First(_)));
        let end = match first {
            Some(first) if self.overflow != Overflow::Conflate || next.is_none() => first.min(end),
            _ => end,
        };
        let gap: Vec<Entry> = self.unread.drain(..end).collect();
        let lost = gap
            .iter()
            .filter(|e| matches!(e, Entry::Lost { .. }))
            .count() as u64;
        for first in gap.iter().filter(|e| matches!(e, Entry::First(_))) {
            self.unread.push_front(*first);
        }
        if lost > 0 {
            let unseen = |e: &Entry| *e == Entry::Lost { seen: false };
            return Expected::Missed {
                lost,
                seen: !gap.iter().any(unseen),
                later: self.unread.iter().any(unseen),
            };
        }
        match self.unread.front().copied() {
            Some(Entry::Claimed(value)) => {
                self.unread.pop_front();
                Expected::Payload(value)
            }
            Some(_) => self.receive(over),
            None if over => Expected::Ended,
            None => Expected::Empty,
        }
    }
}
