//! A view of what is registered in a selector.

use std::fmt;
use std::sync::Mutex;

use super::{FileObject, Registry, SelectorKey, lock};
use crate::sys::{AsRawFd, RawFd};

/// What is registered in a [`Selector`](super::Selector), by descriptor.
///
/// Python: the mapping that `get_map()` returns. It is a view: it changes with the selector.
/// Its lists are copies, so the selector may be changed in a loop over one.
///
/// # Examples
///
/// ```
/// use sock::selectors::{DefaultSelector, EVENT_READ};
///
/// let (ours, _theirs) = sock::socketpair()?;
/// let sel = DefaultSelector::new()?;
/// let map = sel.get_map();                                     // map = sel.get_map()
/// let key = sel.register(ours, EVENT_READ, ())?;
/// assert_eq!((map.len(), map.keys()), (1, vec![key.fd]));
/// # std::io::Result::Ok(())
/// ```
pub struct SelectorMap<'a, F, D> {
    registry: &'a Mutex<Registry<F, D>>,
}

impl<F, D> fmt::Debug for SelectorMap<'_, F, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SelectorMap").finish_non_exhaustive()
    }
}

impl<'a, F: FileObject, D> SelectorMap<'a, F, D> {
    pub(super) fn new(registry: &'a Mutex<Registry<F, D>>) -> SelectorMap<'a, F, D> {
        SelectorMap { registry }
    }

    /// Returns the number of registered objects. Python: `len(map)`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::selectors::{DefaultSelector, EVENT_READ};
    ///
    /// let (ours, _theirs) = sock::socketpair()?;
    /// let sel = DefaultSelector::new()?;
    /// sel.register(ours, EVENT_READ, ())?;
    /// assert_eq!(sel.get_map().len(), 1);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        lock(self.registry).entries.len()
    }

    /// Returns true if nothing is registered.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::Socket;
    /// use sock::selectors::DefaultSelector;
    ///
    /// let sel: DefaultSelector<Socket> = DefaultSelector::new()?;
    /// assert!(sel.get_map().is_empty());
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the key of an object, `None` if it is not registered. Python: `map[fileobj]`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::selectors::{DefaultSelector, EVENT_READ};
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// let sel = DefaultSelector::new()?;
    /// sel.register(&ours, EVENT_READ, "data")?;
    /// assert_eq!(*sel.get_map().get(&ours).unwrap().data, "data");
    /// assert!(sel.get_map().get(&theirs).is_none());
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn get(&self, fileobj: &(impl FileObject + ?Sized)) -> Option<SelectorKey<F, D>> {
        let fd = fileobj.descriptor().as_raw_fd();
        lock(self.registry).entries.get(&fd).map(|entry| entry.key.clone())
    }

    /// Returns true if an object is registered. Python: `fileobj in map`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::selectors::{DefaultSelector, EVENT_READ};
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// let sel = DefaultSelector::new()?;
    /// sel.register(&ours, EVENT_READ, ())?;
    /// assert!(sel.get_map().contains(&ours) && !sel.get_map().contains(&theirs));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn contains(&self, fileobj: &(impl FileObject + ?Sized)) -> bool {
        lock(self.registry).entries.contains_key(&fileobj.descriptor().as_raw_fd())
    }

    /// Returns the numbers of the descriptors, in ascending order. Python: `list(map)`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::selectors::{DefaultSelector, EVENT_READ};
    ///
    /// let (ours, _theirs) = sock::socketpair()?;
    /// let sel = DefaultSelector::new()?;
    /// sel.register(&ours, EVENT_READ, ())?;
    /// assert_eq!(sel.get_map().keys(), [ours.fileno()]);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn keys(&self) -> Vec<RawFd> {
        lock(self.registry).entries.keys().copied().collect()
    }

    /// Returns the keys of all objects. Python: `map.values()`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::selectors::{DefaultSelector, EVENT_READ};
    ///
    /// let (ours, _theirs) = sock::socketpair()?;
    /// let sel = DefaultSelector::new()?;
    /// sel.register(ours, EVENT_READ, ())?;
    /// for key in sel.get_map().values() {
    ///     sel.unregister(&key)?;
    /// }
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn values(&self) -> Vec<SelectorKey<F, D>> {
        lock(self.registry).entries.values().map(|entry| entry.key.clone()).collect()
    }
}
