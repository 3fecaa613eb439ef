//! A vector that grows in chunks.

use std::ops::{Index, IndexMut};

/// The number of items in a chunk.
const CHUNK: usize = 256;

/// A vector that allocates chunks of fixed size and never moves its items.
///
/// It stores thousands of idle connections. A `Vec` may have twice the capacity that it needs, and
/// leaves freed memory behind as it grows.
pub(crate) struct ChunkedVec<T>(Vec<Vec<T>>);

impl<T> Default for ChunkedVec<T> {
    fn default() -> ChunkedVec<T> {
        ChunkedVec(Vec::new())
    }
}

impl<T> ChunkedVec<T> {
    /// Appends an item and returns its index.
    pub(crate) fn push(&mut self, item: T) -> usize {
        let index = self.len();
        if index % CHUNK == 0 {
            self.0.push(Vec::with_capacity(CHUNK));
        }
        self.0[index / CHUNK].push(item);
        index
    }

    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.0.get_mut(index / CHUNK)?.get_mut(index % CHUNK)
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

    fn index(&self, index: usize) -> &T {
        &self.0[index / CHUNK][index % CHUNK]
    }
}

impl<T> IndexMut<usize> for ChunkedVec<T> {
    fn index_mut(&mut self, index: usize) -> &mut T {
        &mut self.0[index / CHUNK][index % CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_do_not_grow_and_indexes_are_stable() {
        let mut items = ChunkedVec::default();
        for item in 0..1000 {
            assert_eq!(items.push(item), item);
        }
        items[999] = 0;
        assert_eq!((items.len(), items[998], items.get_mut(1000)), (1000, 998, None));
        assert_eq!(items.get_mut(usize::MAX), None);
        assert!(items.iter().eq((0..999).collect::<Vec<_>>().iter().chain(&[0])));
        assert!(items.0.iter().all(|chunk| chunk.capacity() == CHUNK));
    }
}
