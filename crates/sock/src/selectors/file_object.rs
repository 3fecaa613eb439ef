//! What can be registered in a selector.

use std::rc::Rc;
use std::sync::Arc;

use super::SelectorKey;
use crate::socket::Socket;
use crate::stream::StreamSocket;
use crate::sys::{AsFd, BorrowedFd, OwnedFd};

/// What can be registered in a [`Selector`](super::Selector).
///
/// Python: a file object, which is anything with a `fileno()` method. Sockets of this crate and of
/// the standard library, descriptors, and references and smart pointers to them are file objects,
/// and `SSLSocket` of the crate `sockssl`. An enum holds objects of several types:
///
/// ```
/// use sock::selectors::{DefaultSelector, EVENT_READ, FileObject};
/// use sock::{BorrowedFd, Socket, StreamSocket};
///
/// enum Object {
///     Listener(Socket),
///     Client(Box<dyn StreamSocket>), // plain, or TLS
/// }
///
/// impl FileObject for Object {
///     fn descriptor(&self) -> BorrowedFd<'_> {
///         match self {
///             Object::Listener(sock) => sock.descriptor(),
///             Object::Client(stream) => stream.descriptor(),
///         }
///     }
///
///     fn has_buffered_input(&self) -> Option<bool> {
///         match self {
///             Object::Listener(_) => None,
///             Object::Client(stream) => stream.has_buffered_input(),
///         }
///     }
/// }
///
/// let listener = sock::create_server(("127.0.0.1", 0))?;
/// let client = sock::create_connection(("127.0.0.1", listener.getsockname()?.port().unwrap()))?;
/// let sel = DefaultSelector::new()?;
/// sel.register(Object::Listener(listener), EVENT_READ, ())?;
/// sel.register(Object::Client(Box::new(client)), EVENT_READ, ())?;
/// # std::io::Result::Ok(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be registered in a selector",
    label = "not a file object",
    note = "a selector takes a `Socket`, a socket of the standard library, a `Box<dyn StreamSocket>`, an \
            `OwnedFd`, or a reference or `Arc` of one; for another type implement `FileObject`"
)]
pub trait FileObject {
    /// Returns the descriptor to wait for. It has to be the same each time.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::selectors::{DefaultSelector, EVENT_READ, FileObject};
    /// use sock::{BorrowedFd, Socket};
    ///
    /// struct Client {
    ///     sock: Socket,
    ///     name: &'static str,
    /// }
    ///
    /// impl FileObject for Client {
    ///     fn descriptor(&self) -> BorrowedFd<'_> {                 // def fileno(self):
    ///         self.sock.descriptor()                               //     return self.sock.fileno()
    ///     }
    /// }
    ///
    /// let (sock, theirs) = sock::socketpair()?;
    /// theirs.sendall(b"hello")?;
    /// let sel = DefaultSelector::new()?;
    /// sel.register(Client { sock, name: "alice" }, EVENT_READ, ())?;
    /// assert_eq!(sel.select(None)?[0].0.fileobj.name, "alice");
    /// # std::io::Result::Ok(())
    /// ```
    fn descriptor(&self) -> BorrowedFd<'_>;

    /// Whether a receive returns at once, whatever the descriptor's state. `None` if the object never
    /// has a buffer.
    ///
    /// [`select`](super::Selector::select) calls this before each wait, for each object that did not
    /// return `None` when it was registered. It must not use the selector.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::cell::RefCell;
    /// use sock::selectors::{DefaultSelector, EVENT_READ, FileObject};
    /// use sock::{BorrowedFd, Socket};
    ///
    /// struct Buffered {
    ///     sock: Socket,
    ///     unread: RefCell<Vec<u8>>,
    /// }
    ///
    /// impl FileObject for Buffered {
    ///     fn descriptor(&self) -> BorrowedFd<'_> {
    ///         self.sock.descriptor()
    ///     }
    ///
    ///     fn has_buffered_input(&self) -> Option<bool> {
    ///         Some(!self.unread.borrow().is_empty())
    ///     }
    /// }
    ///
    /// let (sock, _theirs) = sock::socketpair()?;
    /// let sel = DefaultSelector::new()?;
    /// sel.register(Buffered { sock, unread: RefCell::new(b"hello".to_vec()) }, EVENT_READ, ())?;
    /// // The socket has nothing to receive, but the object has.
    /// assert_eq!(sel.select(None)?.len(), 1);
    /// # std::io::Result::Ok(())
    /// ```
    fn has_buffered_input(&self) -> Option<bool> {
        None
    }
}

macro_rules! descriptors {
    ($($type:ty)*) => {$(
        impl FileObject for $type {
            fn descriptor(&self) -> BorrowedFd<'_> {
                AsFd::as_fd(self)
            }
        }
    )*};
}
descriptors! {
    Socket
    OwnedFd
    BorrowedFd<'_>
    socket2::Socket
    std::net::TcpStream
    std::net::TcpListener
    std::net::UdpSocket
}

#[cfg(unix)]
mod unix {
    use super::*;

    descriptors! {
        std::os::unix::net::UnixStream
        std::os::unix::net::UnixListener
        std::os::unix::net::UnixDatagram
        std::fs::File
        std::io::Stdin
        std::process::ChildStdin
        std::process::ChildStdout
        std::process::ChildStderr
    }
}

macro_rules! pointers {
    ($($type:ty)*) => {$(
        impl<F: FileObject + ?Sized> FileObject for $type {
            fn descriptor(&self) -> BorrowedFd<'_> {
                (**self).descriptor()
            }

            fn has_buffered_input(&self) -> Option<bool> {
                (**self).has_buffered_input()
            }
        }
    )*};
}
pointers! { &F Box<F> Rc<F> Arc<F> }

impl FileObject for dyn StreamSocket + '_ {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket().as_fd()
    }

    fn has_buffered_input(&self) -> Option<bool> {
        let is_plain = self.as_any().is_some_and(|stream| stream.is::<Socket>());
        if is_plain { None } else { Some(StreamSocket::has_buffered_input(self)) }
    }
}

/// The object of the key.
impl<F: FileObject, D> FileObject for SelectorKey<F, D> {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.fileobj.descriptor()
    }

    fn has_buffered_input(&self) -> Option<bool> {
        self.fileobj.has_buffered_input()
    }
}
