//! Addresses of a socket and of its peer, and inheritance of its descriptor.

use std::io;

use crate::address::Address;
use crate::call::trace::call;
use crate::socket::Socket;
use crate::sys::{self, AsFd};

/// Addresses and inheritance.
impl Socket {
    /// Returns the local address.
    ///
    /// Python: `getsockname()`. System call: getsockname(2). After a bind to port 0 it contains the
    /// selected port. The address of an unbound socket is `0.0.0.0:0`.
    ///
    /// # Errors
    ///
    /// Returns an error if getsockname(2) fails.
    ///
    /// # Examples
    ///
    /// ```
    /// let server = sock::create_server(("127.0.0.1", 0))?;
    /// let address = server.getsockname()?;
    /// println!("listening on {address}");
    /// assert!(address.ip().unwrap().is_loopback());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn getsockname(&self) -> io::Result<Address> {
        let fd = self.fileno();
        let address = call!("getsockname({fd})" => self.inner().local_addr())?;
        Ok(Address::from_sys(&address))
    }

    /// Returns the address of the peer.
    ///
    /// Python: `getpeername()`. System call: getpeername(2).
    ///
    /// # Errors
    ///
    /// Returns an error if the socket is not connected (`NotConnected`, `ENOTCONN`).
    ///
    /// # Examples
    ///
    /// ```
    /// let server = sock::create_server(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.getsockname()?.port().unwrap()))?;
    /// assert_eq!(client.getpeername()?, server.getsockname()?);
    /// assert_eq!(server.getpeername().unwrap_err().kind(), std::io::ErrorKind::NotConnected);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn getpeername(&self) -> io::Result<Address> {
        let fd = self.fileno();
        let address = call!("getpeername({fd})" => self.inner().peer_addr())?;
        Ok(Address::from_sys(&address))
    }

    /// Returns whether child programs inherit the descriptor. The default is false.
    ///
    /// Python: `get_inheritable()`. System call: fcntl(2) with `F_GETFD`.
    ///
    /// # Errors
    ///
    /// Returns an error if fcntl(2) fails.
    ///
    /// # Examples
    ///
    /// ```
    /// let (ours, _theirs) = sock::socketpair()?;
    /// assert!(!ours.get_inheritable()?);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn get_inheritable(&self) -> io::Result<bool> {
        let fd = self.fileno();
        Ok(!call!("fcntl({fd}, F_GETFD)" => sys::close_on_exec(self.as_fd()))?)
    }

    /// Sets whether child programs inherit the descriptor.
    ///
    /// Python: `set_inheritable(inheritable)`. System call: fcntl(2) with `F_SETFD`.
    ///
    /// # Errors
    ///
    /// Returns an error if fcntl(2) fails.
    ///
    /// # Examples
    ///
    /// ```
    /// let (ours, _theirs) = sock::socketpair()?;
    /// ours.set_inheritable(true)?; // for a child program that gets its number
    /// assert!(ours.get_inheritable()?);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn set_inheritable(&self, inheritable: bool) -> io::Result<()> {
        let fd = self.fileno();
        call!("fcntl({fd}, F_SETFD, FD_CLOEXEC: {})", !inheritable =>
            sys::set_inheritable(self.as_fd(), inheritable))
    }
}
