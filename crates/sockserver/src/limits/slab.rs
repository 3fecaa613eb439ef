//! A list that grows by the page.

use std::ops::{Index, IndexMut};

/// How many items are allocated at once.
const CHUNK: usize = 256;

/// A list that never moves what is in it: of thousands of idle connections each is to
/// be small, and a vector holds up to twice what it needs, and leaves holes as it grows.
pub(crate) struct ChunkedVec<T>(Vec<Vec<T>>);

impl<T> Default for ChunkedVec<T> {
    fn default() -> ChunkedVec<T> {
        ChunkedVec(Vec::new())
    }
}

impl<T> ChunkedVec<T> {
    /// Puts an item at the end, and returns its place.
    pub(crate) fn push(&mut self, item: T) -> usize {
        let place = self.len();
        if place % CHUNK == 0 {
            self.0.push(Vec::with_capacity(CHUNK));
        }
        self.0[place / CHUNK].push(item);
        place
    }

    // Its callers, the slab of idle connections and the table of children, are for Unix only.
    #[cfg(any(unix, test))]
    pub(crate) fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        self.0.get_mut(place / CHUNK)?.get_mut(place % CHUNK)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.last().map_or(0, |last| (self.0.len() - 1) * CHUNK + last.len())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flatten()
    }
}

impl<T> Index<usize> for ChunkedVec<T> {
    type Output = T;

    fn index(&self, place: usize) -> &T {
        &self.0[place / CHUNK][place % CHUNK]
    }
}

impl<T> IndexMut<usize> for ChunkedVec<T> {
    fn index_mut(&mut self, place: usize) -> &mut T {
        &mut self.0[place / CHUNK][place % CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_stay_where_they_are() {
        let mut pages = ChunkedVec::default();
        for item in 0..1000 {
            assert_eq!(pages.push(item), item);
        }
        pages[999] = 0;
        assert_eq!((pages.len(), pages[998], pages.get_mut(1000)), (1000, 998, None));
        assert_eq!(pages.get_mut(usize::MAX), None);
        assert!(pages.iter().eq((0..999).collect::<Vec<_>>().iter().chain(&[0])));
        assert!(pages.0.iter().all(|page| page.capacity() == CHUNK));
    }
}
