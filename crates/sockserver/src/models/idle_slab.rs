//! The idle connections of a selector.

use std::io;

use crate::limits::slab::ChunkedVec;
use crate::os::poller::Event;
use crate::request::job::Job;

/// The connections of a selector, by the key of their events.
#[derive(Default)]
pub(crate) struct IdleSlab {
    places: ChunkedVec<Slot>,
    free: Vec<u32>,
    len: usize,
    closed: bool,
}

/// One place. Its generation distinguishes its connection from earlier ones.
struct Slot {
    generation: u32,
    /// An event has come while a worker serves it.
    event_pending: bool,
    /// The event includes a hang-up: see [`Event`].
    hang_up: bool,
    /// `None` while a worker serves it, and while the place is free.
    job: Option<Job>,
}

/// The place of a connection that a worker serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    place: u32,
    generation: u32,
}

/// The result of inserting a connection.
pub(crate) enum InsertResult {
    Inserted,
    /// An event has come while it was served, and whether it includes a hang-up.
    EventPending(Job, bool),
    /// The slab is closed.
    Closed(Job),
}

impl Key {
    pub(crate) fn as_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.place)
    }
}

impl IdleSlab {
    /// Reserves a place for a connection that a worker serves.
    pub(crate) fn reserve(&mut self) -> io::Result<Key> {
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                // The last keys are the poller's own.
                let place = u32::try_from(self.places.len()).ok().filter(|place| *place < u32::MAX - 1);
                let place = place.ok_or_else(|| io::Error::other("too many connections"))?;
                self.places.push(Slot { generation: 0, event_pending: false, hang_up: false, job: None });
                place
            }
        };
        let taken = &mut self.places[place as usize];
        (taken.event_pending, taken.hang_up) = (false, false);
        Ok(Key { place, generation: taken.generation })
    }

    /// Frees a place.
    pub(crate) fn release(&mut self, parked: Key) {
        let left = &mut self.places[parked.place as usize];
        left.generation = left.generation.wrapping_add(1) & 0x7fff_ffff;
        left.job = None;
        self.free.push(parked.place);
    }

    /// Inserts an idle connection, unless an event has come for it.
    pub(crate) fn insert(&mut self, parked: Key, job: Job) -> InsertResult {
        let place = &mut self.places[parked.place as usize];
        if std::mem::take(&mut place.event_pending) {
            return InsertResult::EventPending(job, std::mem::take(&mut place.hang_up));
        }
        if self.closed {
            self.release(parked);
            return InsertResult::Closed(job);
        }
        place.job = Some(job);
        self.len += 1;
        InsertResult::Inserted
    }

    /// Takes the connection of an event. Returns `None` if the connection is closed, or if a worker
    /// serves it; then the event is recorded for that worker.
    pub(crate) fn take_for_event(&mut self, event: Event) -> Option<(Key, Job)> {
        let Event { key, hang_up } = event;
        let parked = Key { place: key as u32, generation: (key >> 32) as u32 };
        let place = self.places.get_mut(parked.place as usize)?;
        if place.generation != parked.generation {
            return None;
        }
        let Some(job) = place.job.take() else {
            place.event_pending = true;
            place.hang_up |= hang_up;
            return None;
        };
        self.len -= 1;
        Some((parked, job))
    }

    /// Takes all connections.
    pub(crate) fn take_all(&mut self) -> Vec<Job> {
        let all = self.places.iter().enumerate();
        let parked = all.filter(|(_, place)| place.job.is_some());
        let key = |(number, place): (usize, &Slot)| {
            Key { place: number as u32, generation: place.generation }.as_u64()
        };
        let keys: Vec<u64> = parked.map(key).collect();
        let taken: Vec<_> =
            keys.into_iter().filter_map(|key| self.take_for_event(Event { key, hang_up: false })).collect();
        taken
            .into_iter()
            .map(|(parked, job)| {
                self.release(parked);
                job
            })
            .collect()
    }

    /// Closes the slab. No connection can be inserted any more.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}
