//! What a process does: it beats, writes, reads its caches, says goodbye.

use std::sync::Arc;

use super::event::Event;
use super::faults::Fault;
use super::host::{Cached, Load, OpenWrite, id_name};
use super::net::Time;
use super::store::{ENTITIES, IDS, Key, PLAIN, stated};
use super::world::{BOUND, MAX_LAG, MS, RULES, SECOND, WRITE_LIMIT, World, slowest};
use crate::bus::{Bus, Link};
use crate::invalidation::cache::Reason;
use crate::invalidation::fence::{Coherence, View};
use crate::invalidation::outbox::{Giver, Handed, NoBeat, Outcome, Request, Ticket};
use crate::invalidation::protocol::Mutant;
use crate::invalidation::subject::{Entity, IdRef};

/// The topic of an entity; the outbox made them in this order.
const fn topic(entity: usize) -> usize {
    entity
}

impl World {
    /// The deadline thread, the thread that beats, and the lanes' workers have their turn.
    pub(super) fn poll(&mut self, host: usize) {
        let time = self.now;
        let blocked = time < self.hosts[host].blocked_until;
        let (bus, post) = (self.hosts[host].access.bus.clone(), self.post.clone());
        let status = bus.status();
        let connected = status.link == Link::Up;
        self.with(host, |process, now| {
            let generation = process.generation;
            for watch in process.watches.iter().filter(|watch| !watch.ended) {
                watch.feed.enforce(now);
            }
            for entity in 0..ENTITIES.len() {
                let unsettled = process.outbox.unsettled(topic(entity), now) > 0;
                let row = process.rows[entity];
                let (node, mut hands) = process.parts(now);
                node.own_unsettled(row, unsettled, now, &mut hands);
            }
            let lost = std::mem::replace(&mut process.lost, status.lost) != status.lost;
            let (node, mut hands) = process.parts(now);
            node.generation(now, generation, &mut hands);
            if lost {
                node.lost(now, &mut hands);
            }
            node.tick(now, &mut hands);
            if connected && process.node.asks_again(now) {
                // Before the beat, which has to come back by it; then the old one ends.
                process.interest = Some(post.subscribe(&bus, host));
            }
            if process.node.beat_due() <= now && !blocked {
                let plan = process.node.plan_beat(now, generation);
                let _ = process.outbox.beat(&plan, false, now, &mut process.wire);
            }
            process.outbox.drain(usize::MAX, now, &mut process.wire);
            for watch in process.watches.iter_mut().filter(|watch| watch.queued) {
                if watch.slow_until <= time {
                    for feed in watch.old.drain(..) {
                        while feed.work(|| now) {}
                    }
                    while watch.feed.work(|| now) {}
                }
            }
            let node = &process.node;
            process.known.retain(|&who, _| node.hears(who));
        });
        self.check_tickets(host);
    }

    /// What is said to be confirmed has to have come back.
    fn check_tickets(&mut self, host: usize) {
        let Some(process) = &mut self.hosts[host].process else {
            return;
        };
        let mut lied = None;
        process
            .tickets
            .retain(|(incarnation, entity, number, ticket)| {
                let outcome = ticket.outcome();
                if outcome == Some(Outcome::Returned) {
                    self.tally.confirmed += 1;
                    let frame = (*incarnation, *entity, *number);
                    if !self.store.returned.contains(&frame) {
                        lied = Some(frame);
                    }
                }
                outcome.is_none()
            });
        process.tickets.truncate(64);
        if let Some(frame) = lied {
            self.fail(format!("confirmed, but it has not come back: {frame:?}"));
        }
    }

    pub(super) fn write(&mut self, host: usize, pid: u64) {
        let next = self.around(self.plan.write_every);
        self.after(next, Event::Write { host, pid });
        if self.only_reads(host) {
            return;
        }
        let process = self.hosts[host].process.as_ref();
        let closing = process.is_some_and(|p| p.closing.is_some());
        if (closing && self.plan.orderly) || self.tally.writes >= self.plan.writes {
            return;
        }
        self.tally.writes += 1;
        let key = (self.rng.below(ENTITIES.len()), self.rng.below(IDS));
        match self.rng.below(100) {
            40..43 if self.plan.orderly => self.direct(host, key),
            0..40 => self.direct(host, key),
            40..43 => self.everything(host, key),
            43..48 => self.batch(host, key.0),
            _ => self.guarded(host, pid, key),
        }
    }

    /// Commits, then emits.
    fn direct(&mut self, host: usize, key: Key) {
        let Some(version) = self.commit_now(host, key) else {
            return;
        };
        let wants_ticket = self.rng.chance(30);
        let position = stated(key.0, version);
        self.with(host, |process, now| {
            process.drop_here(key, position);
            let name = id_name(key.1);
            let id = IdRef::new(&name).unwrap();
            let ticket = wants_ticket.then(Arc::<Ticket>::default);
            let (outbox, wire) = (&mut process.outbox, &mut process.wire);
            let request = Request {
                id,
                position,
                ticket: ticket.clone(),
                giver: Giver::Anyone,
            };
            let handed = outbox.emit(topic(key.0), request, now, wire);
            if let (Ok(Handed::Sent), Some(ticket)) = (handed, ticket) {
                let number = outbox.mark(topic(key.0));
                let waiting = (process.incarnation, key.0, number, ticket);
                process.tickets.push_back(waiting);
            }
        });
        self.store.due(key, version, self.now);
    }

    fn everything(&mut self, host: usize, key: Key) {
        let Some(version) = self.commit_now(host, key) else {
            return;
        };
        let position = stated(key.0, version);
        self.with(host, |process, now| {
            process.note_position(key.0, position);
            let fed = process
                .watches
                .iter()
                .filter(|w| w.entity == key.0 && !w.ended);
            for watch in fed {
                watch.feed.flush_now(Reason::Requested, position);
            }
            let (outbox, wire) = (&mut process.outbox, &mut process.wire);
            let _ = outbox.emit_all(topic(key.0), position, now, wire);
        });
        self.store.due(key, version, self.now);
    }

    fn batch(&mut self, host: usize, entity: usize) {
        let keys = [(entity, 0), (entity, 2), (entity, 5)];
        let mut versions = Vec::new();
        for key in keys {
            versions.extend(self.commit_now(host, key));
        }
        let position = versions.last().and_then(|&last| stated(entity, last));
        self.with(host, |process, now| {
            keys.iter()
                .for_each(|&key| process.drop_here(key, position));
            let names = keys.map(|key| id_name(key.1));
            let ids = names.iter().map(|name| IdRef::new(name).unwrap());
            let (outbox, wire) = (&mut process.outbox, &mut process.wire);
            let _ = outbox.emit_batch(topic(entity), ids, position, now, wire);
        });
        for (key, version) in keys.into_iter().zip(versions) {
            self.store.due(key, version, self.now);
        }
    }

    fn commit_now(&mut self, host: usize, key: Key) -> Option<u64> {
        let by = self.hosts[host].process.as_ref()?.incarnation;
        Some(self.store.commit(key, self.now, by))
    }

    /// Opens a guard, commits some time later, and lets go some time after that.
    fn guarded(&mut self, host: usize, pid: u64, key: Key) {
        let rolled_back = self.rng.chance(5);
        let write = self.with(host, |process, now| {
            let entity = Entity::new(ENTITIES[key.0]).unwrap();
            // One that is refused has written nothing.
            let (_, guard) = process.outbox.open_guard(&entity, now).ok()?;
            process.next += 1;
            let open = OpenWrite {
                key,
                guard,
                version: None,
                rolled_back,
            };
            process.writes.insert(process.next, open);
            Some(process.next)
        });
        let Some(Some(write)) = write else { return };
        let commit = match self.rng.below(40) {
            _ if self.plan.write_limit > WRITE_LIMIT => self.rng.range(4 * SECOND, 6 * SECOND),
            0 if !self.plan.orderly => self.rng.range(0, WRITE_LIMIT + 3 * SECOND),
            _ => self.rng.range(0, 30 * MS),
        };
        self.after(commit, Event::Commit { host, pid, write });
    }

    pub(super) fn commit(&mut self, host: usize, pid: u64, write: u64) {
        let Some(process) = &mut self.hosts[host].process else {
            return;
        };
        let Some(open) = process.writes.get_mut(&write) else {
            return;
        };
        if !open.rolled_back {
            let key = open.key;
            let version = self.store.commit(key, self.now, process.incarnation);
            open.version = Some(version);
            // From the commit on, somebody has to learn of it, whatever becomes of the writer.
            // By the writer's clock, which may be slow.
            let limit = slowest(self.plan.write_limit);
            self.store.due(key, version, self.now + limit);
        }
        let close = match self.rng.below(30) {
            0 if !self.plan.orderly => self.rng.range(0, WRITE_LIMIT + 3 * SECOND),
            _ => self.rng.range(0, 20 * MS),
        };
        self.after(close, Event::CloseGuard { host, pid, write });
    }

    pub(super) fn close_guard(&mut self, host: usize, write: u64) {
        let handed = self.with(host, |process, now| {
            let open = process.writes.remove(&write)?;
            let (key, version) = (open.key, open.version);
            if let Some(version) = version {
                let position = stated(key.0, version);
                process.drop_here(key, position);
                let name = id_name(key.1);
                let id = IdRef::new(&name).unwrap();
                let (outbox, wire) = (&mut process.outbox, &mut process.wire);
                let request = Request {
                    id,
                    position,
                    ticket: None,
                    giver: Giver::Guard,
                };
                let _ = outbox.emit(topic(key.0), request, now, wire);
            }
            process.outbox.close_guard(topic(key.0), open.guard);
            version.map(|version| (key, version))
        });
        if let Some(Some((key, version))) = handed {
            self.store.due(key, version, self.now);
        }
    }

    /// Goes down in order: says goodbye if that is true, and comes back.
    pub(super) fn restart(&mut self, host: usize, pid: u64) {
        let patience = self.rng.range(0, 6 * SECOND);
        let until = self.now + patience;
        let said = self.with(host, |process, now| {
            process.closing.get_or_insert(until);
            process.outbox.close();
            if !process.outbox.wants_bye() {
                return None;
            }
            let plan = process.node.plan_beat(now, process.generation);
            match process.outbox.beat(&plan, true, now, &mut process.wire) {
                Err(NoBeat::Bus(_)) => None,
                Err(NoBeat::Unsettled) if process.outbox.has_guards() => None,
                said => Some(said.is_ok()),
            }
        });
        let until = match &self.hosts[host].process {
            Some(process) if !self.plan.orderly => process.closing.unwrap_or(until),
            _ => Time::MAX,
        };
        // Guards may yet be let go of, and the bus may yet have room.
        if said == Some(None) && self.now < until {
            self.after(20 * MS, Event::Restart { host, pid });
            return;
        }
        let said = said.flatten();
        self.tally.goodbyes += u64::from(said == Some(true));
        self.stop(host);
        let back = self.rng.range(100 * MS, 3 * SECOND);
        self.after(back, Event::Boot { host });
    }

    /// A reader asks a cache for a value.
    pub(super) fn look(&mut self, host: usize, pid: u64) {
        let watches = 4;
        let (watch, id) = (self.rng.below(watches), self.rng.below(IDS));
        let time = self.now;
        let found = self.with(host, |process, now| {
            let watch = &process.watches[watch];
            let cached = watch.cache.0.lock().get(&id_name(id)).copied();
            let served = cached.filter(|cached| watch.fence.serves(&cached.stamp));
            (watch.entity, watch.fence.coherence(), served, now)
        });
        let Some((entity, coherence, served, local)) = found else {
            return;
        };
        let key = (entity, id);
        let coherent = coherence == Coherence::Coherent;
        self.note((watch, id, coherent, served.map(|cached| cached.version)));
        if time >= self.measure_from {
            self.tally.looks += 1;
            self.tally.coherent += u64::from(coherent);
        }
        match served {
            Some(cached) if coherent => {
                self.tally.hits += 1;
                self.check(host, key, cached, time);
            }
            Some(cached) if local >= cached.began + RULES.lease => {
                self.fail(format!("in doubt, {key:?} was served past its lease"));
            }
            Some(_) => {}
            None => self.load(host, pid, watch, key, coherent),
        }
    }

    /// The theorem: nothing that is overdue is missing in what a coherent watch serves.
    fn check(&mut self, host: usize, key: Key, cached: Cached, asked: Time) {
        let Some(process) = &self.hosts[host].process else {
            return;
        };
        let overdue = self.store.newer(key, cached.version).find(|commit| {
            // "Positions of nodes that have left" are not covered: a replica that lags may not show what was
            // committed before this process began, and nobody is left to say so.
            let unsaid = key.0 != PLAIN && commit.at < process.began && self.has_left(commit.by);
            let awaited = self.waits_for(host, commit.by) && !unsaid;
            let counts = commit.by == process.incarnation || awaited;
            let known = match counts {
                true => Some(0),
                false => process.known.get(&commit.by).copied(),
            };
            let (Some(due), Some(known)) = (commit.due, known) else {
                return false;
            };
            let heard = self.haunted.get(&commit.by).copied().unwrap_or(0);
            due.max(known).max(heard).saturating_add(BOUND) < asked
        });
        if let Some(commit) = overdue {
            let late = asked - commit.due.unwrap_or(asked);
            let what = format!(
                "host {host} serves {key:?} at version {} as coherent, {late} us after {commit:?}",
                cached.version
            );
            self.fail(what);
        }
    }

    fn load(&mut self, host: usize, pid: u64, watch: usize, key: Key, coherent: bool) {
        let time = self.now;
        // Whom a load is shared with is decided here as `Flight::carries` does, which knows more of waiting.
        // Of that one it is shown by the model `two_loads_of_one_id_against_an_invalidation` and by the test
        // `i8_nobody_joins_a_load_that_an_invalidation_has_overtaken`, with the same fault planted in it.
        let begun = self.with(host, |process, now| {
            let joins_older = process.node.broken(Mutant::JoinOlderFlight);
            let place = &mut process.watches[watch];
            let mark = place.fence.mark(&id_name(key.1));
            if let Some(load) = place.flights.get(&key.1)
                && let Some(flight) = process.loads.get_mut(load)
                && (joins_older
                    || (flight.mark.same(&mark) && place.fence.serves(&flight.mark.stamp())))
            {
                flight.waiters.push((time, coherent));
                return None;
            }
            process.next += 1;
            place.flights.insert(key.1, process.next);
            let load = Load {
                watch,
                key,
                mark,
                began: now,
                read: None,
                admitted: None,
                waiters: vec![(time, coherent)],
            };
            process.loads.insert(process.next, load);
            Some(process.next)
        });
        let Some(Some(load)) = begun else { return };
        let reads = match self.rng.below(60) {
            0 => self.rng.range(0, 5 * SECOND),
            _ => self.rng.range(0, 10 * MS),
        };
        self.after(reads, Event::LoadReads { host, pid, load });
        let ends = match self.rng.below(60) {
            0 => self.rng.range(0, 6 * SECOND),
            _ => self.rng.range(0, 10 * MS),
        };
        self.after(reads + ends, Event::LoadEnds { host, pid, load });
    }

    pub(super) fn load_reads(&mut self, host: usize, load: u64) {
        let lag = match self.hosts[host].lag_until > self.now {
            true => self.hosts[host].lag,
            // Replicas are never quite up to date.
            false if self.rng.chance(10) && !self.plan.orderly => self.rng.range(0, MAX_LAG),
            false => 5 * MS,
        };
        let Some(process) = &mut self.hosts[host].process else {
            return;
        };
        let Some(load) = process.loads.get_mut(&load) else {
            return;
        };
        let shown = match load.key.0 {
            PLAIN => self.now,
            _ => self.now.saturating_sub(lag),
        };
        let version = self.store.read(load.key, shown);
        load.read = Some((version, self.store.position(shown)));
        // In one thread nothing comes between the fence's own check and its insert: this shows that the
        // oracle sees what would. Of the fence that ships it is shown by its model `fill_against_invalidate`
        // and by its test `i8_an_invalidation_waits_for_a_store_under_way`, with the same fault planted in it.
        if process.node.broken(Mutant::CheckThenInsert) {
            let fence = &process.watches[load.watch].fence;
            let view = view(load.key, load.read);
            load.admitted = fence.store(&load.mark, view, |stamp| stamp).ok();
        }
    }

    pub(super) fn load_ends(&mut self, host: usize, id: u64) {
        let ended = self.with(host, |process, _| {
            let load = process.loads.remove(&id)?;
            let watch = &mut process.watches[load.watch];
            if watch.flights.get(&load.key.1) == Some(&id) {
                watch.flights.remove(&load.key.1);
            }
            let (version, _) = load.read?;
            let insert = |stamp| {
                let cached = Cached {
                    stamp,
                    version,
                    began: load.began,
                };
                watch.cache.0.lock().insert(id_name(load.key.1), cached);
                cached
            };
            match load.admitted {
                Some(stamp) => {
                    insert(stamp);
                }
                None => {
                    let view = view(load.key, load.read);
                    let _ = watch.fence.store(&load.mark, view, insert);
                }
            }
            Some((load, version))
        });
        let Some(Some((load, version))) = ended else {
            return;
        };
        // A replica that lags is no fault of the cache; what it keeps of it is checked by hits.
        if load.key.0 == PLAIN {
            // Nobody asks the fence about it.
            let stamp = crate::invalidation::fence::Stamp {
                epoch: std::num::NonZeroU64::MIN,
                began: 0,
            };
            for &(asked, _) in load.waiters.iter().filter(|(_, coherent)| *coherent) {
                let cached = Cached {
                    stamp,
                    version,
                    began: load.began,
                };
                self.check(host, load.key, cached, asked);
            }
        }
    }

    pub(super) fn count(&mut self, fault: Fault) {
        *self.tally.faults.entry(fault).or_default() += 1;
    }
}

fn view((entity, _): Key, read: Option<(u64, u64)>) -> View {
    match (entity, read) {
        (PLAIN, _) | (_, None) => View::Primary,
        (_, Some((_, position))) => View::At(position),
    }
}
