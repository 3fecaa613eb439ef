//! Where connections wait that nobody serves.

use std::io;

use parking_lot::Mutex;

use crate::job::Job;

/// The connections of a selector, by the key of their events.
#[derive(Default)]
pub(crate) struct Parking {
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    places: Vec<Place>,
    free: Vec<u32>,
    parked: usize,
    closed: bool,
}

/// One place; its generation tells its connection from those before it.
struct Place {
    generation: u32,
    state: State,
}

enum State {
    Free,
    /// A worker serves it; whether something has come meanwhile.
    Served {
        came: bool,
    },
    Parked(Job),
}

/// Whose place it is while a worker serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parked {
    place: u32,
    generation: u32,
}

impl Parked {
    pub(crate) fn key(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.place)
    }
}

impl Parking {
    /// Takes a place for a connection that a worker serves.
    pub(crate) fn enter(&self) -> io::Result<Parked> {
        let mut places = self.places.lock();
        let place = match places.free.pop() {
            Some(place) => place,
            None => {
                // The last keys are the poller's own.
                let place = u32::try_from(places.places.len()).ok().filter(|place| *place < u32::MAX - 1);
                let place = place.ok_or_else(|| io::Error::other("too many connections"))?;
                places.places.push(Place { generation: 0, state: State::Free });
                place
            }
        };
        let taken = &mut places.places[place as usize];
        taken.state = State::Served { came: false };
        Ok(Parked { place, generation: taken.generation })
    }

    /// Gives the place up.
    pub(crate) fn leave(&self, parked: Parked) {
        let mut places = self.places.lock();
        let left = &mut places.places[parked.place as usize];
        left.generation = left.generation.wrapping_add(1) & 0x7fff_ffff;
        left.state = State::Free;
        places.free.push(parked.place);
    }

    /// Lets the connection wait here. It comes back if something has come for it
    /// while it was served, or if nobody is to wait any more.
    pub(crate) fn park(&self, parked: Parked, job: Job) -> Option<(Parked, Job)> {
        let mut places = self.places.lock();
        let closed = places.closed;
        let place = &mut places.places[parked.place as usize];
        if let State::Served { came: came @ true } = &mut place.state {
            *came = false;
            return Some((parked, job));
        }
        if closed {
            drop(places);
            self.leave(parked);
            job.dismiss();
            return None;
        }
        place.state = State::Parked(job);
        places.parked += 1;
        None
    }

    /// Takes the connection out that an event is for; nothing if it is gone, or if
    /// a worker has it, which is told.
    pub(crate) fn resume(&self, key: u64) -> Option<(Parked, Job)> {
        let parked = Parked { place: key as u32, generation: (key >> 32) as u32 };
        let mut places = self.places.lock();
        let place = places.places.get_mut(parked.place as usize)?;
        if place.generation != parked.generation {
            return None;
        }
        match std::mem::replace(&mut place.state, State::Served { came: false }) {
            State::Parked(job) => {
                places.parked -= 1;
                Some((parked, job))
            }
            State::Served { .. } => {
                place.state = State::Served { came: true };
                None
            }
            State::Free => {
                place.state = State::Free;
                None
            }
        }
    }

    /// Takes everybody out.
    pub(crate) fn take_all(&self) -> Vec<(Parked, Job)> {
        let keys: Vec<u64> = {
            let places = self.places.lock();
            let all = places.places.iter().enumerate();
            let parked = all.filter(|(_, place)| matches!(place.state, State::Parked(_)));
            let key = |(number, place): (usize, &Place)| {
                Parked { place: number as u32, generation: place.generation }.key()
            };
            parked.map(key).collect()
        };
        let taken: Vec<_> = keys.into_iter().filter_map(|key| self.resume(key)).collect();
        for (parked, _) in &taken {
            self.leave(*parked);
        }
        taken
    }

    /// From now on nobody waits here: who comes is dismissed.
    pub(crate) fn close(&self) {
        self.places.lock().closed = true;
    }

    pub(crate) fn parked(&self) -> usize {
        self.places.lock().parked
    }
}
