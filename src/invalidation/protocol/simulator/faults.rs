//! What goes wrong.

use super::event::Event;
use super::net::{Time, Way, publish};
use super::store::ENTITIES;
use super::world::{MAX_LAG, MS, SECOND, World};
use crate::invalidation::frame::{Header, write_one};

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    Loss,
    Duplication,
    Reordering,
    Delay,
    /// A connection breaks and is made again.
    Disconnection,
    /// The route between the servers swallows everything; nobody is told.
    Partition,
    /// A server stands still, and then goes on.
    StalledServer,
    /// A server takes a subscription away; the connection stays. Later it would allow it again, but
    /// has to be asked.
    Revocation,
    /// A client drops what it has no room for.
    SlowConsumer,
    Restart,
    Crash,
    PausedProcess,
    ClockRate,
    SlowWatcher,
    /// A watch is dropped; later its cache is watched again.
    EndedWatch,
    LaggingReplica,
    /// The bus takes nothing for a while.
    FullBus,
    Garbage,
    /// A server denies a host to publish for one entity.
    Denial,
    /// Another process speaks with a host's incarnation.
    Twin,
}

pub(super) const FAULTS: [Fault; 20] = [
    Fault::Loss,
    Fault::Duplication,
    Fault::Reordering,
    Fault::Delay,
    Fault::Disconnection,
    Fault::Partition,
    Fault::StalledServer,
    Fault::Revocation,
    Fault::SlowConsumer,
    Fault::Restart,
    Fault::Crash,
    Fault::PausedProcess,
    Fault::ClockRate,
    Fault::SlowWatcher,
    Fault::EndedWatch,
    Fault::LaggingReplica,
    Fault::FullBus,
    Fault::Garbage,
    Fault::Denial,
    Fault::Twin,
];

impl World {
    /// Something goes wrong, and the next fault is arranged.
    pub(super) fn fault(&mut self) {
        let next = self.around(self.plan.fault_every);
        self.after(next, Event::Fault);
        let any = FAULTS[self.rng.below(FAULTS.len())];
        let fault = self.plan.only.unwrap_or(any);
        let host = self.rng.below(self.hosts.len());
        // Some last for longer than a lease, most do not.
        let span = match self.rng.below(3) {
            0 => self.rng.range(SECOND, 16 * SECOND),
            _ => self.rng.range(100 * MS, 3 * SECOND),
        };
        let until = self.now + span;
        self.strike(fault, host, until);
    }

    fn strike(&mut self, fault: Fault, host: usize, until: Time) {
        let span = until - self.now;
        let pid = self.hosts[host].process.as_ref().map(|process| process.pid);
        match (fault, pid) {
            (Fault::Loss, _) => {
                let percent = self.rng.range(20, 90);
                let way = self.any_way(host);
                self.trouble(way, until, |it| {
                    (it.lossy_until, it.loss_percent) = (until, percent);
                });
            }
            (Fault::Duplication, _) => {
                let way = self.any_way(host);
                self.trouble(way, until, |it| it.doubled_until = until);
            }
            (Fault::Reordering, _) => {
                let shuffle = self.rng.range(MS, 2 * SECOND);
                let way = self.any_way(host);
                self.trouble(way, until, |it| {
                    (it.shuffled_until, it.shuffle) = (until, shuffle);
                });
            }
            (Fault::Delay, _) => {
                let slowness = self.rng.range(MS, 6 * SECOND);
                let way = self.any_way(host);
                self.trouble(way, until, |it| {
                    (it.slow_until, it.slowness) = (until, slowness);
                });
            }
            (Fault::Disconnection, Some(_)) => self.disconnect(host, span),
            (Fault::Partition, _) => {
                let both = self.rng.chance(50);
                let first = self.rng.below(2);
                let ways = [first, 1 - first].into_iter().take(1 + usize::from(both));
                for from in ways {
                    self.trouble(Way::Route(from), until, |it| it.cut_until = until);
                }
            }
            (Fault::StalledServer, _) => {
                let server = self.rng.below(2);
                let its = |host: &usize| self.hosts[*host].access.server == server;
                let hosts: Vec<_> = (0..self.hosts.len()).filter(its).collect();
                let ends = hosts
                    .into_iter()
                    .flat_map(|host| [Way::Up(host), Way::Down(host)]);
                for way in ends.chain([Way::Route(0), Way::Route(1)]) {
                    self.trouble(way, until, |it| it.stalled_until = until);
                }
            }
            (Fault::Revocation, Some(_)) => {
                let told = self.rng.chance(50);
                let access = &mut self.hosts[host].access;
                (access.denied_until, access.told) = (until, told);
                self.set_rights(host);
                self.push(until, Event::Allow { host });
            }
            (Fault::SlowConsumer, Some(_)) => {
                let room = self.rng.below(40);
                self.get_stuck(host, room, until);
            }
            (Fault::Restart, Some(pid)) => {
                // Some go down while what they say is lost.
                let warning = self.rng.range(0, 1_500 * MS);
                self.lose_some(host, warning);
                self.after(warning, Event::Restart { host, pid });
            }
            (Fault::Crash, Some(_)) => {
                self.stop(host);
                self.push(until, Event::Boot { host });
            }
            (Fault::PausedProcess, Some(pid)) => {
                self.hosts[host].paused_until = until;
                // The deadline thread is the first to run again: its delay is part of B.
                self.push(until, Event::Resume { host, pid });
            }
            (Fault::ClockRate, _) => {
                let now = self.now;
                self.hosts[host].clock.change_rate(now, &mut self.rng);
            }
            (Fault::SlowWatcher, Some(_)) => {
                if let Some(process) = &mut self.hosts[host].process {
                    for watch in &mut process.watches {
                        watch.slow_until = until;
                    }
                }
            }
            (Fault::EndedWatch, Some(pid)) => self.end_watch(host, pid, until),
            (Fault::LaggingReplica, _) => {
                let lag = self.rng.range(10 * MS, MAX_LAG);
                let place = &mut self.hosts[host];
                (place.lag_until, place.lag) = (until, lag);
            }
            (Fault::FullBus, Some(_)) => {
                self.hosts[host].blocked_until = until;
                // What it took at last is lost in part, and so are the next beats.
                self.lose_some(host, span + 3 * SECOND);
            }
            (Fault::Garbage, Some(_)) => self.garbage(host),
            (Fault::Denial, Some(_)) => {
                let entity = self.rng.below(ENTITIES.len());
                self.hosts[host].access.muted = (entity, until);
                self.set_rights(host);
                self.push(until, Event::Allow { host });
            }
            (Fault::Twin, Some(_)) => self.twin(host),
            // There is no process to strike.
            (_, None) => return,
        }
        self.count(fault);
    }

    /// In half of the cases, what a host says in the time to come is lost in part.
    pub(super) fn lose_some(&mut self, host: usize, span: Time) {
        if self.rng.chance(50) {
            let percent = self.rng.range(40, 95);
            let until = self.now + span;
            self.trouble(Way::Up(host), until, |it| {
                (it.lossy_until, it.loss_percent) = (until, percent);
            });
        }
    }

    fn any_way(&mut self, host: usize) -> Way {
        match self.rng.below(4) {
            0 => Way::Up(host),
            1 => Way::Down(host),
            2 => Way::Route(0),
            _ => Way::Route(1),
        }
    }

    /// Somebody publishes nonsense, or plain messages.
    fn garbage(&mut self, host: usize) {
        let subjects = [
            "plain.id-1",
            "stamped.%-all",
            "plain.%-batch",
            "%-c.00c0ffee00c0ffee",
        ];
        let subject = subjects[self.rng.below(subjects.len())];
        let mut payload = vec![0xAF, 0x57];
        if self.rng.chance(50) {
            payload.clear();
        }
        for _ in 0..self.rng.below(40) {
            payload.push(self.rng.next() as u8);
        }
        let subject = format!("cache.invalidate.{subject}");
        publish(&self.hosts[host].access.bus, &subject, &payload);
    }

    /// A process that was restored from a snapshot of this one takes the next number for a frame of its own,
    /// at both servers at once, which pass it on to each other. In half of the cases the host's frame of that number is lost, and no peer
    /// can tell by the numbers. It says no more: it notices as well, and has another incarnation then.
    fn twin(&mut self, host: usize) {
        let entity = self.rng.below(ENTITIES.len());
        let hides = self.rng.chance(50);
        let made = self.with(host, |process, now| {
            let header = Header {
                incarnation: process.incarnation,
                sequence: process.outbox.mark(entity) + 1,
                sent: now.saturating_sub(process.node.born),
                position: None,
            };
            let mut payload = Vec::new();
            write_one(&mut payload, &header);
            (header.incarnation, payload)
        });
        let Some((incarnation, payload)) = made else {
            return;
        };
        if hides && let Some(process) = &mut self.hosts[host].process {
            process.wire.loses_next = Some(entity);
        }
        self.haunted.entry(incarnation).or_insert(Time::MAX);
        let subject = format!("cache.invalidate.{}.id-1", ENTITIES[entity]);
        for ghost in &self.ghosts {
            publish(ghost, &subject, &payload);
        }
        self.twins.insert(payload);
    }
}
