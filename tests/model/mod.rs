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
    /// So many submits that were refused, told by the newest one's gate.
    LoseRefused(u64),
    /// Expires in silence.
    Skip,
    First(usize, Option<u64>),
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
    /// Gates that were merged or skipped meanwhile.
    aside: u64,
}

/// The gates of a key, as long as somebody subscribes to it; then they are for nobody.
#[derive(Default)]
struct Lane {
    gates: VecDeque<(u64, What)>,
    /// The newest refused gate's position, and how many were refused, while another one waits.
    refused: Option<(u64, u64)>,
}

impl Lane {
    /// Takes the head, if it is open. What was refused meanwhile takes the place of a refusal.
    fn let_go(&mut self, position: u64) -> Option<What> {
        let &(opens, what) = self.gates.front()?;
        if opens > position {
            return None;
        }
        self.gates.pop_front();
        if let What::LoseRefused(_) = what
            && let Some((opens, lost)) = self.refused.take()
        {
            self.gates.push_back((opens, What::LoseRefused(lost)));
        }
        Some(what)
    }

    fn is_refusing(&self) -> bool {
        let refusal = |gate: &(u64, What)| matches!(gate.1, What::LoseRefused(_));
        self.gates.iter().any(refusal)
    }
}

pub struct Model {
    subscribers: Vec<Subscriber>,
    lanes: Vec<Lane>,
    orphans: Vec<Lane>,
    next: usize,
    coalesce: bool,
    pub position: u64,
    pub closed: bool,
}

impl Model {
    pub fn new(keys: usize, coalesce: bool) -> Self {
        Self {
            coalesce,
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

    /// How many of a key's places for gates are taken.
    pub fn pending(&self, key: usize) -> usize {
        let with_place = |gate: &&(u64, What)| !matches!(gate.1, What::LoseRefused(_));
        self.lanes[key].gates.iter().filter(with_place).count()
    }

    /// How much was sent to a subscriber.
    pub fn sent(&self, index: usize) -> u64 {
        self.subscribers[index].sent
    }

    /// How many gates were merged or skipped under a subscriber; `None` once it is closed.
    pub fn aside(&self, index: usize) -> Option<u64> {
        let subscriber = &self.subscribers[index];
        (!subscriber.closed).then_some(subscriber.aside)
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
            aside: 0,
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
        let mut reached = 0;
        for subscriber in self.of(key) {
            reached += usize::from(subscriber.push(value));
        }
        reached
    }

    fn act(&mut self, key: usize, what: What) {
        match what {
            What::Push(value) => {
                self.push(key, value);
            }
            What::Lose => self.lose(key, 1),
            What::LoseRefused(lost) => self.lose(key, lost),
            What::Skip => self.set_aside(key),
            What::First(id, value) => self.first(id, value),
        }
    }

    fn lose(&mut self, key: usize, lost: u64) {
        for subscriber in self.of(key) {
            subscriber.sent += lost;
            for _ in 0..lost {
                subscriber.unread.push_back(Entry::Lost { seen: false });
            }
        }
    }

    fn set_aside(&mut self, key: usize) {
        for subscriber in self.of(key) {
            subscriber.aside += 1;
        }
    }

    fn of(&mut self, key: usize) -> impl Iterator<Item = &mut Subscriber> {
        let live = move |s: &&mut Subscriber| s.key == key && !s.closed;
        self.subscribers.iter_mut().filter(live)
    }

    fn first(&mut self, id: usize, value: Option<u64>) {
        let of = |s: &&mut Subscriber| s.id == id && !s.closed;
        if let Some(subscriber) = self.subscribers.iter_mut().find(of) {
            subscriber.unread.push_back(Entry::First(value));
        }
    }

    /// A gate arrives that opens at a position.
    pub fn gate(&mut self, key: usize, position: u64, what: What) {
        let now = self.position;
        let gates = &mut self.lanes[key].gates;
        let merges = self.coalesce && !matches!(what, What::First(..)) && gates.len() > 1;
        match gates.back_mut() {
            Some((opens, last))
                if merges && !matches!(last, What::First(..) | What::LoseRefused(_)) =>
            {
                // The newest gate, and of two that wait the higher position.
                let later = if position > now { *opens } else { 0 };
                (*opens, *last) = (position.max(later), what);
                self.set_aside(key);
            }
            _ => gates.push_back((position, what)),
        }
        self.run();
    }

    /// A gate is refused: one of a key waits in its lane, the newest for all others beside it.
    pub fn refuse(&mut self, key: usize, position: u64) {
        let lane = &mut self.lanes[key];
        if lane.is_refusing() {
            let lost = lane.refused.map_or(0, |refused| refused.1);
            lane.refused = Some((position, lost + 1));
        } else {
            lane.gates.push_back((position, What::LoseRefused(1)));
        }
        self.run();
    }

    pub fn advance(&mut self) {
        self.position += 1;
        self.run();
    }

    fn run(&mut self) {
        for key in 0..self.lanes.len() {
            while let Some(what) = self.lanes[key].let_go(self.position) {
                self.act(key, what);
            }
        }
        for lane in &mut self.orphans {
            while lane.let_go(self.position).is_some() {}
        }
    }

    /// What is open is pushed, the rest is lost.
    pub fn close(&mut self) {
        self.closed = true;
        for key in 0..self.lanes.len() {
            let lane = std::mem::take(&mut self.lanes[key]);
            for (position, what) in lane.gates {
                match what {
                    _ if position <= self.position => self.act(key, what),
                    What::First(id, _) => self.first(id, None),
                    What::LoseRefused(lost) => self.lose(key, lost),
                    _ => self.lose(key, 1),
                }
            }
            self.lose(key, lane.refused.map_or(0, |refused| refused.1));
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
