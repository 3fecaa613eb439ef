//! Python's [`selectors`](https://docs.python.org/3/library/selectors.html) module: waits for many
//! sockets in one thread.
//!
//! | Python | here |
//! | --- | --- |
//! | `sel = selectors.DefaultSelector()` | `let sel = DefaultSelector::new()?` |
//! | `sel.register(sock, EVENT_READ, data)` | `sel.register(sock, EVENT_READ, data)?`: the selector owns the socket |
//! | `for key, mask in sel.select():` | `for (key, mask) in sel.select(None)?` |
//! | `key.fileobj`, `key.fd`, `key.events`, `key.data` | the same |
//! | `sel.modify(sock, EVENT_WRITE, key.data)` | `sel.modify(&key, EVENT_WRITE, key.data)?` |
//! | `sel.unregister(sock)`; `sock.close()` | `sel.unregister(&key)?`, and drop the key |
//! | `sel.get_map().values()` | the same |
//!
//! # Ownership
//!
//! [`register`](Selector::register) takes the object by value, and each [`SelectorKey`] shares it.
//! So an object is open for as long as it is registered, and its descriptor's number is not used
//! again while a key of it exists: a key never belongs to another socket. An object that is shared
//! with other parts of the program is registered as an `Arc` or a reference. Data that changes is
//! registered in a `Cell`, a `RefCell` or a `Mutex`.
//!
//! # Readiness
//!
//! Selectors are level-triggered, as in Python: each [`select`](Selector::select) reports an object
//! for as long as it is ready. A socket that is registered here should not block
//! ([`setblocking(false)`](crate::Socket::setblocking)): another reader may be quicker, or a packet
//! may be dropped for its checksum (select(2), BUGS).
//!
//! An object is also ready if it has input that was received already, which is in the memory of a TLS
//! connection or in a read-ahead buffer: see [`FileObject::has_buffered_input`].
//!
//! # Examples
//!
//! Python's own example, an echo. Each key's data is the function that serves it.
//!
//! ```
//! use std::io;
//! use sock::selectors::{DefaultSelector, EVENT_READ, EventMask, SelectorKey};
//! use sock::Socket;
//!
//! type Selector = DefaultSelector<Socket, Callback>;
//! struct Callback(fn(&Selector, &SelectorKey<Socket, Callback>, EventMask) -> io::Result<()>);
//!
//! fn accept(sel: &Selector, key: &SelectorKey<Socket, Callback>, _mask: EventMask) -> io::Result<()> {
//!     let (conn, _addr) = key.fileobj.accept()?;
//!     conn.setblocking(false)?;
//!     sel.register(conn, EVENT_READ, Callback(read))?;
//!     Ok(())
//! }
//!
//! fn read(sel: &Selector, key: &SelectorKey<Socket, Callback>, _mask: EventMask) -> io::Result<()> {
//!     let data = key.fileobj.recv(1000)?;
//!     if data.is_empty() {
//!         sel.unregister(key)?; // closed when the last key of it is dropped
//!     } else {
//!         key.fileobj.send(&data)?;
//!     }
//!     Ok(())
//! }
//!
//! let sel = Selector::new()?;
//! let sock = sock::create_server(("localhost", 0))?;
//! sock.setblocking(false)?;
//! # let client = sock::create_connection(("localhost", sock.getsockname()?.port().unwrap()))?;
//! # client.sendall(b"hello")?;
//! # client.shutdown(sock::SHUT_WR)?;
//! sel.register(sock, EVENT_READ, Callback(accept))?;
//! # let mut turns = 0;
//! loop {
//!     for (key, mask) in sel.select(None)? {
//!         (key.data.0)(&sel, &key, mask)?;
//!     }
//! #   turns += 1;
//! #   if turns > 1 && sel.get_map().len() == 1 { break }
//! }
//! # assert_eq!(client.recv(100)?, b"hello");
//! # io::Result::Ok(())
//! ```

#[cfg(target_os = "linux")]
mod epoll;
mod file_object;
mod map;
mod poll;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::call::cancel::{Aborted, Cancellation, Canceller, check_interrupt_hook};
use crate::call::deadline::{Deadline, Events, POLLIN, POLLOUT};
use crate::call::hint;
use crate::call::to_timeout::ToTimeout;
use crate::call::trace::{self, HoldRecords};
use crate::error::invalid;
use crate::socket::Socket;
use crate::sys::{AsRawFd, BorrowedFd, RawFd};

#[cfg(target_os = "linux")]
pub use epoll::Epoll;
pub use file_object::FileObject;
pub use map::SelectorMap;
pub use poll::PollSet;

/// A set of events, as bits: [`EVENT_READ`] and [`EVENT_WRITE`].
///
/// # Examples
///
/// ```
/// use sock::selectors::{DefaultSelector, EVENT_READ, EVENT_WRITE, EventMask};
///
/// let (ours, _theirs) = sock::socketpair()?;
/// let sel = DefaultSelector::new()?;
/// sel.register(ours, EVENT_READ | EVENT_WRITE, ())?;
/// let mask: EventMask = sel.select(None)?[0].1;
/// assert_eq!(mask, EVENT_WRITE);
/// # std::io::Result::Ok(())
/// ```
pub type EventMask = u32;

/// Something can be received, a connection accepted, or the end of file read.
pub const EVENT_READ: EventMask = 1 << 0;
/// Something can be sent, or a connect has ended.
pub const EVENT_WRITE: EventMask = 1 << 1;

/// The selector for this system: [`EpollSelector`] on Linux, [`PollSelector`] elsewhere.
///
/// Python: `selectors.DefaultSelector`, which is `KqueueSelector` on macOS and FreeBSD, and
/// `SelectSelector` on Windows.
///
/// # Examples
///
/// ```
/// use sock::selectors::{DefaultSelector, EVENT_READ};
///
/// let (ours, theirs) = sock::socketpair()?;
/// let sel = DefaultSelector::new()?;                           // selectors.DefaultSelector()
/// sel.register(ours, EVENT_READ, ())?;
/// theirs.sendall(b"hello")?;
/// assert_eq!(sel.select(None)?.len(), 1);
/// # std::io::Result::Ok(())
/// ```
#[cfg(target_os = "linux")]
pub type DefaultSelector<F = Socket, D = ()> = EpollSelector<F, D>;
/// The selector for this system: [`PollSelector`], and `EpollSelector` on Linux.
///
/// Python: `selectors.DefaultSelector`, which is `KqueueSelector` on macOS and FreeBSD, and
/// `SelectSelector` on Windows.
///
/// # Examples
///
/// ```
/// use sock::selectors::{DefaultSelector, EVENT_READ};
///
/// let (ours, theirs) = sock::socketpair()?;
/// let sel = DefaultSelector::new()?;                           // selectors.DefaultSelector()
/// sel.register(ours, EVENT_READ, ())?;
/// theirs.sendall(b"hello")?;
/// assert_eq!(sel.select(None)?.len(), 1);
/// # std::io::Result::Ok(())
/// ```
#[cfg(not(target_os = "linux"))]
pub type DefaultSelector<F = Socket, D = ()> = PollSelector<F, D>;

/// A selector over epoll(7). Python: `selectors.EpollSelector`.
///
/// What a wait costs depends on the number of ready objects, not on that of the registered ones.
///
/// # Examples
///
/// ```
/// use sock::selectors::{EVENT_READ, EpollSelector};
///
/// let (ours, theirs) = sock::socketpair()?;
/// let sel = EpollSelector::new()?;                             // selectors.EpollSelector()
/// sel.register(ours, EVENT_READ, ())?;
/// theirs.sendall(b"hello")?;
/// assert_eq!(sel.select(None)?.len(), 1);
/// # std::io::Result::Ok(())
/// ```
#[cfg(target_os = "linux")]
pub type EpollSelector<F = Socket, D = ()> = Selector<F, D, Epoll>;

/// A selector over poll(2). Python: `selectors.PollSelector`.
///
/// What a wait costs depends on the number of the registered objects. What another thread
/// registers or modifies during a wait counts from the next wait on.
///
/// # Examples
///
/// ```
/// use sock::selectors::{EVENT_READ, PollSelector};
///
/// let (ours, theirs) = sock::socketpair()?;
/// let sel = PollSelector::new()?;                              // selectors.PollSelector()
/// sel.register(ours, EVENT_READ, ())?;
/// theirs.sendall(b"hello")?;
/// assert_eq!(sel.select(None)?.len(), 1);
/// # std::io::Result::Ok(())
/// ```
pub type PollSelector<F = Socket, D = ()> = Selector<F, D, PollSet>;

/// A registered object with its descriptor, the events to wait for, and its data.
///
/// Python: `selectors.SelectorKey`. A clone shares the object and the data.
///
/// # Examples
///
/// ```
/// use sock::selectors::{DefaultSelector, EVENT_READ};
///
/// let (ours, theirs) = sock::socketpair()?;
/// let sel = DefaultSelector::new()?;
/// let key = sel.register(ours, EVENT_READ, "alice")?;
/// assert_eq!((key.fileobj.fileno(), key.events, *key.data), (key.fd, EVENT_READ, "alice"));
/// # std::io::Result::Ok(())
/// ```
pub struct SelectorKey<F = Socket, D = ()> {
    /// The object that was registered.
    pub fileobj: Arc<F>,
    /// Its descriptor's number.
    pub fd: RawFd,
    /// The events to wait for.
    pub events: EventMask,
    /// The data that was registered with the object.
    pub data: Arc<D>,
}

impl<F, D> Clone for SelectorKey<F, D> {
    fn clone(&self) -> SelectorKey<F, D> {
        SelectorKey {
            fileobj: Arc::clone(&self.fileobj),
            fd: self.fd,
            events: self.events,
            data: Arc::clone(&self.data),
        }
    }
}

/// Whether both have the same object, the same events and the same data: not equal ones, as
/// Python's `is`.
impl<F, D> PartialEq for SelectorKey<F, D> {
    fn eq(&self, other: &SelectorKey<F, D>) -> bool {
        Arc::ptr_eq(&self.fileobj, &other.fileobj)
            && self.events == other.events
            && Arc::ptr_eq(&self.data, &other.data)
    }
}

impl<F, D> Eq for SelectorKey<F, D> {}

impl<F, D> fmt::Debug for SelectorKey<F, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SelectorKey")
            .field("fd", &self.fd)
            .field("events", &self.events)
            .finish_non_exhaustive()
    }
}

/// Waits for many objects at once.
///
/// Python: a `selectors.BaseSelector`. `F` is the type of the objects, `D` that of the data of each
/// key, and `B` the system's interface: use [`DefaultSelector`]. Every method takes `&self`, so
/// one thread may register while another waits.
///
/// # Examples
///
/// ```
/// use sock::selectors::{DefaultSelector, EVENT_READ};
///
/// let (ours, theirs) = sock::socketpair()?;
/// let sel = DefaultSelector::new()?;
/// sel.register(ours, EVENT_READ, "the first pair")?;
/// assert!(sel.select(0)?.is_empty());
///
/// theirs.sendall(b"hello")?;
/// for (key, mask) in sel.select(None)? {
///     assert_eq!((*key.data, mask), ("the first pair", EVENT_READ));
///     assert_eq!(key.fileobj.recv(100)?, b"hello");
///     sel.unregister(&key)?;
/// }
/// # std::io::Result::Ok(())
/// ```
pub struct Selector<F, D, B> {
    backend: B,
    registry: Mutex<Registry<F, D>>,
    cancellation: OnceLock<Arc<Cancellation>>,
}

/// What is registered.
struct Registry<F, D> {
    entries: BTreeMap<RawFd, Entry<F, D>>,
    /// Descriptors of objects that can have input in a buffer of their own.
    buffering: BTreeSet<RawFd>,
    /// Number of the next registration, which distinguishes those of one descriptor.
    next_serial: u32,
}

struct Entry<F, D> {
    key: SelectorKey<F, D>,
    serial: u32,
}

/// What the system found of one registration.
struct Ready {
    fd: RawFd,
    serial: u32,
    /// Events as bits of [`EventMask`], also such as the key does not have.
    events: EventMask,
}

/// The interface of the system that a [`Selector`] uses. Not to be implemented outside this crate.
///
/// # Examples
///
/// A function for selectors over any interface of the system:
///
/// ```
/// use sock::selectors::{Backend, DefaultSelector, Selector};
/// use sock::Socket;
///
/// fn count<B: Backend>(sel: &Selector<Socket, (), B>) -> usize {
///     sel.get_map().len()
/// }
///
/// assert_eq!(count(&DefaultSelector::new()?), 0);
/// # std::io::Result::Ok(())
/// ```
pub trait Backend: private::Interface {}

impl<B: private::Interface> Backend for B {}

/// Of the items of a trait that is public by name only.
mod private {
    use super::*;

    #[allow(unreachable_pub, private_interfaces)]
    pub trait Interface: Sized {
        fn new() -> io::Result<Self>;

        fn add(&self, fd: BorrowedFd<'_>, serial: u32, events: EventMask) -> io::Result<()>;

        fn modify(&self, fd: BorrowedFd<'_>, serial: u32, events: EventMask) -> io::Result<()>;

        fn delete(&self, fd: BorrowedFd<'_>) -> io::Result<()>;

        /// Has every wait watch this descriptor too.
        fn watch(&self, cancelled: BorrowedFd<'_>) -> io::Result<()>;

        /// Waits once. `None` is found when the watched descriptor is readable.
        fn wait<F: FileObject, D>(
            &self,
            registry: &Mutex<Registry<F, D>>,
            cancelled: Option<BorrowedFd<'_>>,
            timeout: Option<Duration>,
            found: &mut dyn FnMut(Option<Ready>),
        ) -> io::Result<()>;
    }
}

/// The same events for poll(2).
fn poll_events(events: EventMask) -> Events {
    let read = if events & EVENT_READ != 0 { POLLIN } else { 0 };
    let write = if events & EVENT_WRITE != 0 { POLLOUT } else { 0 };
    read | write
}

fn lock<F, D>(registry: &Mutex<Registry<F, D>>) -> MutexGuard<'_, Registry<F, D>> {
    // Under this lock the maps are changed and epoll_ctl(2) is called, which does not block. No code
    // of the user's runs: objects are asked before, dropped after, and logged by `HoldRecords`.
    registry.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<F: FileObject, D, B: Backend> Selector<F, D, B> {
    /// Creates a selector in which nothing is registered.
    ///
    /// Python: `selectors.DefaultSelector()`. System call of an [`EpollSelector`]: epoll_create1(2).
    ///
    /// # Errors
    ///
    /// Returns an error if no descriptor is free (`EMFILE`, `ENFILE`).
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::Socket;
    /// use sock::selectors::DefaultSelector;
    ///
    /// let sel = DefaultSelector::<Socket, ()>::new()?; // often the types are inferred
    /// assert!(sel.get_map().is_empty());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn new() -> io::Result<Selector<F, D, B>> {
        let registry = Registry { entries: BTreeMap::new(), buffering: BTreeSet::new(), next_serial: 0 };
        Ok(Selector { backend: B::new()?, registry: Mutex::new(registry), cancellation: OnceLock::new() })
    }

    /// Registers an object for `events`, with any data.
    ///
    /// Python: `register(fileobj, events, data)`; the default there is `None`, here `()`. System call
    /// of an [`EpollSelector`]: epoll_ctl(2). The selector owns the object until
    /// [`unregister`](Self::unregister) returns it.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `InvalidInput` if `events` is neither [`EVENT_READ`] nor [`EVENT_WRITE`]
    /// nor both; of kind `AlreadyExists` if the descriptor is registered; and the system's: `EPERM` for
    /// a file on a disk, `ENOSPC`. The object is dropped then.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::selectors::{DefaultSelector, EVENT_READ, EVENT_WRITE};
    ///
    /// let (ours, _theirs) = sock::socketpair()?;
    /// let sel = DefaultSelector::new()?;
    /// let key = sel.register(ours, EVENT_READ | EVENT_WRITE, ())?;
    /// assert_eq!(key.fd, key.fileobj.fileno());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn register(&self, fileobj: F, events: EventMask, data: D) -> io::Result<SelectorKey<F, D>> {
        check_events(events)?;
        let fileobj = Arc::new(fileobj);
        let descriptor = fileobj.descriptor();
        let fd = descriptor.as_raw_fd();
        let buffers = fileobj.has_buffered_input().is_some();
        let _held = HoldRecords::begin();
        let mut registry = lock(&self.registry);
        if registry.entries.contains_key(&fd) {
            let message = format!("descriptor {fd} is already registered");
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        let serial = registry.next_serial;
        registry.next_serial = serial.wrapping_add(1);
        self.backend.add(descriptor, serial, events)?;
        if buffers {
            registry.buffering.insert(fd);
        }
        let key = SelectorKey { fileobj, fd, events, data: Arc::new(data) };
        registry.entries.insert(fd, Entry { key: key.clone(), serial });
        Ok(key)
    }

    /// Ends the registration of an object, and returns its key.
    ///
    /// Python: `unregister(fileobj)`. System call of an [`EpollSelector`]: epoll_ctl(2). The object
    /// is named by itself, by anything with the same descriptor, or by a key. Unless it is shared, it is
    /// closed when the last key of it is dropped; `Arc::into_inner(key.fileobj)` returns it.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `NotFound` if the object is not registered.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::selectors::{DefaultSelector, EVENT_READ};
    /// use std::sync::Arc;
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// let sel = DefaultSelector::new()?;
    /// sel.register(ours, EVENT_READ, ())?;
    /// theirs.sendall(b"bye")?;
    /// for (key, _) in sel.select(None)? {
    ///     sel.unregister(&key)?;
    ///     if let Some(ours) = Arc::into_inner(key.fileobj) {
    ///         ours.close()?;
    ///     }
    /// }
    /// # std::io::Result::Ok(())
    /// ```
    pub fn unregister(&self, fileobj: &(impl FileObject + ?Sized)) -> io::Result<SelectorKey<F, D>> {
        let fd = fileobj.descriptor().as_raw_fd();
        self.with_entry(fd, |registry, descriptor| self.remove(registry, fd, descriptor))
    }

    /// Calls `change` with the registry and the descriptor of the object that is registered as `fd`.
    fn with_entry<T>(
        &self,
        fd: RawFd,
        change: impl FnOnce(&mut Registry<F, D>, BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            let found = lock(&self.registry).entries.get(&fd).map(|entry| {
                let object = Arc::clone(&entry.key.fileobj);
                (object, entry.serial)
            });
            let (object, serial) = found.ok_or_else(|| not_registered(fd))?;
            let descriptor = object.descriptor();
            let _held = HoldRecords::begin();
            let mut registry = lock(&self.registry);
            // Another thread may have registered another object with this number.
            if registry.entries.get(&fd).is_some_and(|entry| entry.serial == serial) {
                return change(&mut registry, descriptor);
            }
        }
    }

    fn remove(
        &self,
        registry: &mut Registry<F, D>,
        fd: RawFd,
        descriptor: BorrowedFd<'_>,
    ) -> io::Result<SelectorKey<F, D>> {
        let entry = registry.entries.remove(&fd).ok_or_else(|| not_registered(fd))?;
        registry.buffering.remove(&fd);
        // It cannot fail for a descriptor that was added and is open. Python ignores it too.
        let _ = self.backend.delete(descriptor);
        Ok(entry.key)
    }

    /// Changes the events and the data of an object, and returns its new key.
    ///
    /// Python: `modify(fileobj, events, data)`. System call of an [`EpollSelector`]: epoll_ctl(2),
    /// unless the events are the same. `data` is a value, or what a key had: `key.data`.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `InvalidInput` for events that [`register`](Self::register) would refuse;
    /// of kind `NotFound` if the object is not registered; and the system's. After an error of the system
    /// the object is not registered any more, as in Python.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::selectors::{DefaultSelector, EVENT_READ, EVENT_WRITE};
    ///
    /// let (ours, _theirs) = sock::socketpair()?;
    /// let sel = DefaultSelector::new()?;
    /// let key = sel.register(ours, EVENT_READ, "read")?;
    /// let key = sel.modify(&key, EVENT_WRITE, "write")?;
    /// let key = sel.modify(&key, EVENT_READ | EVENT_WRITE, key.data.clone())?; // the same data
    /// assert_eq!(*key.data, "write");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn modify(
        &self,
        fileobj: &(impl FileObject + ?Sized),
        events: EventMask,
        data: impl Into<Arc<D>>,
    ) -> io::Result<SelectorKey<F, D>> {
        check_events(events)?;
        let fd = fileobj.descriptor().as_raw_fd();
        let data = data.into();
        // Dropping an object or data may run code of the user's, so it is returned.
        let (result, _former, _removed) = self.with_entry(fd, |registry, descriptor| {
            let entry = registry.entries.get_mut(&fd).ok_or_else(|| not_registered(fd))?;
            if events != entry.key.events {
                if let Err(error) = self.backend.modify(descriptor, entry.serial, events) {
                    let removed = self.remove(registry, fd, descriptor);
                    return Ok((Err(error), Some(data), removed.ok()));
                }
            }
            let former = std::mem::replace(&mut entry.key.data, data);
            entry.key.events = events;
            Ok((Ok(entry.key.clone()), Some(former), None))
        })?;
        result
    }

    /// Waits until objects are ready, and returns their keys, each with its events.
    ///
    /// Python: `select(timeout)`. System call: epoll_wait(2) or poll(2), once unless signals come. The
    /// timeout is a number of seconds or a `Duration`. `None` waits without a limit. Zero and negative
    /// numbers do not wait. An empty list means that the timeout has passed.
    ///
    /// A signal does not end the wait (PEP 475), unless the hook of
    /// [`set_interrupt_hook`](crate::set_interrupt_hook) ends it. A key that an earlier turn of the loop over
    /// the result has unregistered is in it nevertheless, as in Python: its object is still open.
    ///
    /// # Errors
    ///
    /// Returns an error that [`was_interrupted`](crate::was_interrupted) or
    /// [`was_cancelled`](crate::was_cancelled) recognizes if the wait was ended early, of kind `InvalidInput`
    /// if the timeout is NaN or too long, and the system's.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::selectors::{DefaultSelector, EVENT_READ, EVENT_WRITE};
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// let sel = DefaultSelector::new()?;
    /// sel.register(&ours, EVENT_READ, ())?;
    /// sel.register(&theirs, EVENT_WRITE, ())?;
    /// let ready = sel.select(2.5)?;
    /// assert_eq!(ready.len(), 1);
    /// assert_eq!(ready[0].1, EVENT_WRITE);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn select(&self, timeout: impl ToTimeout) -> io::Result<Vec<(SelectorKey<F, D>, EventMask)>> {
        let timeout = timeout.to_wait_timeout()?;
        let mut deadline = Deadline::new(timeout);
        let observed = trace::enabled().then(Instant::now);
        let cancelled = self.cancellation.get().map(|cancellation| cancellation.watched());
        loop {
            let mut ready = self.buffered();
            let buffered = ready.len();
            let left = if buffered == 0 { deadline.remaining() } else { Some(Duration::ZERO) };
            let mut was_cancelled = false;
            let waited = self.backend.wait(&self.registry, cancelled, left, &mut |found| {
                let Some(found) = found else {
                    was_cancelled = true;
                    return;
                };
                match ready[..buffered].binary_search_by_key(&found.fd, |ready| ready.fd) {
                    Ok(index) => ready[index].events |= found.events,
                    Err(_) => ready.push(found),
                }
            });
            match waited {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    check_interrupt_hook()?;
                    continue;
                }
                waited => waited?,
            }
            let keys = self.keys_of(&ready);
            if let Some(begin) = observed.filter(|_| hint::enabled()) {
                hint::polled(
                    keys.iter().map(|(key, events)| (key.fd, poll_events(*events))),
                    begin.elapsed(),
                );
            }
            if !keys.is_empty() {
                return Ok(keys);
            }
            // As with a socket: a call that does not wait is not cancelled.
            if was_cancelled && timeout != Some(Duration::ZERO) {
                return Err(Aborted::Cancelled.into());
            }
            if deadline.remaining() == Some(Duration::ZERO) {
                return Ok(keys);
            }
        }
    }

    /// Registrations with input that the system does not know of, by descriptor.
    fn buffered(&self) -> Vec<Ready> {
        let buffering: Vec<_> = {
            let registry = lock(&self.registry);
            let entries = registry.buffering.iter().filter_map(|fd| registry.entries.get(fd));
            let readable = entries.filter(|entry| entry.key.events & EVENT_READ != 0);
            readable
                .map(|entry| {
                    let ready = Ready { fd: entry.key.fd, serial: entry.serial, events: EVENT_READ };
                    (ready, Arc::clone(&entry.key.fileobj))
                })
                .collect()
        };
        let ready = buffering.into_iter().filter(|(_, fileobj)| fileobj.has_buffered_input() == Some(true));
        ready.map(|(ready, _)| ready).collect()
    }

    /// The keys of what is still registered, each with those of its events that were found.
    fn keys_of(&self, ready: &[Ready]) -> Vec<(SelectorKey<F, D>, EventMask)> {
        let registry = lock(&self.registry);
        let found = ready.iter().filter_map(|found| {
            let entry = registry.entries.get(&found.fd).filter(|entry| entry.serial == found.serial)?;
            let events = found.events & entry.key.events;
            (events != 0).then(|| (entry.key.clone(), events))
        });
        found.collect()
    }

    /// Returns the key of a registered object.
    ///
    /// Python: `get_key(fileobj)`. No system call.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `NotFound` if the object is not registered.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::selectors::{DefaultSelector, EVENT_READ};
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// let sel = DefaultSelector::new()?;
    /// let key = sel.register(&ours, EVENT_READ, 7)?;
    /// assert_eq!(sel.get_key(&ours)?, key);
    /// assert!(sel.get_key(&theirs).is_err());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn get_key(&self, fileobj: &(impl FileObject + ?Sized)) -> io::Result<SelectorKey<F, D>> {
        self.get_map().get(fileobj).ok_or_else(|| not_registered(fileobj.descriptor().as_raw_fd()))
    }

    /// Returns a view of what is registered.
    ///
    /// Python: `get_map()`. No system call.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::selectors::{DefaultSelector, EVENT_READ};
    ///
    /// let sel = DefaultSelector::new()?;
    /// let (ours, theirs) = sock::socketpair()?;
    /// sel.register(ours, EVENT_READ, "ours")?;
    /// sel.register(theirs, EVENT_READ, "theirs")?;
    /// for key in sel.get_map().values() {
    ///     key.fileobj.sendall(b"to all")?;
    /// }
    /// assert_eq!(sel.select(None)?.len(), 2);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn get_map(&self) -> SelectorMap<'_, F, D> {
        SelectorMap::new(&self.registry)
    }

    /// Closes the selector and drops what is registered. Dropping the selector does the same.
    ///
    /// Python: `close()`, which leaves the objects open. System call of an [`EpollSelector`]: close(2).
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::selectors::{DefaultSelector, EVENT_READ};
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// let sel = DefaultSelector::new()?;
    /// sel.register(ours, EVENT_READ, ())?;
    /// sel.close();
    /// assert_eq!(theirs.recv(1)?, b""); // the end of file
    /// # std::io::Result::Ok(())
    /// ```
    pub fn close(self) {}

    /// Returns a handle that ends the waits of this selector from another thread.
    ///
    /// Python: none. System calls: socketpair(2), and epoll_ctl(2) of an [`EpollSelector`], the first
    /// time. After [`Canceller::cancel`] a [`select`](Self::select) that would have to wait fails with an
    /// error that [`was_cancelled`](crate::was_cancelled) recognizes. Objects that are ready are still
    /// reported, and a wait that began before the first call of this may not be ended.
    ///
    /// # Errors
    ///
    /// Returns an error if no descriptor is free (`EMFILE`).
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::Socket;
    /// use sock::selectors::DefaultSelector;
    ///
    /// let sel = DefaultSelector::<Socket, ()>::new()?;
    /// let canceller = sel.canceller()?;
    /// let waiting = std::thread::spawn(move || sel.select(None).map(drop));
    /// canceller.cancel();
    /// assert!(sock::was_cancelled(&waiting.join().unwrap().unwrap_err()));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn canceller(&self) -> io::Result<Canceller> {
        if let Some(cancellation) = self.cancellation.get() {
            return Ok(Canceller(Arc::clone(cancellation)));
        }
        let _held = HoldRecords::begin();
        let _registry = lock(&self.registry);
        // Another thread may have been here since.
        if self.cancellation.get().is_none() {
            let cancellation = Arc::new(Cancellation::new(0)?);
            self.backend.watch(cancellation.watched())?;
            let _ = self.cancellation.set(cancellation);
        }
        let cancellation = self.cancellation.get().expect("it was set above");
        Ok(Canceller(Arc::clone(cancellation)))
    }
}

impl<F: FileObject, D, B: Backend> fmt::Debug for Selector<F, D, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Selector").field("keys", &self.get_map().values()).finish_non_exhaustive()
    }
}

fn check_events(events: EventMask) -> io::Result<()> {
    if events == 0 || events & !(EVENT_READ | EVENT_WRITE) != 0 {
        return Err(invalid(format!("Invalid events: {events}")));
    }
    Ok(())
}

fn not_registered(fd: RawFd) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("descriptor {fd} is not registered"))
}
