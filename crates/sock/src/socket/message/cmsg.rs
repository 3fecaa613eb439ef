//! One item of ancillary data, and the size of items (cmsg(3)).

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use crate::consts::{SCM_RIGHTS, SOL_SOCKET};
use crate::error::{invalid, out_of_range};
use crate::sys::message;

/// An item of ancillary data, received or to be sent.
///
/// Python: the tuple `(cmsg_level, cmsg_type, cmsg_data)`. The descriptors of a received
/// `SCM_RIGHTS` item belong to the item and are closed when it is dropped, unless
/// [`into_descriptors`](Ancillary::into_descriptors) takes them. An item created by
/// [`rights`](Ancillary::rights) borrows its descriptors for `'fd`. Every other item is
/// `Ancillary<'static>`.
///
/// # Examples
///
/// ```
/// use sock::{Ancillary, IP_TTL, IPPROTO_IP};
///
/// let item = Ancillary::new(IPPROTO_IP, IP_TTL, 64_i32.to_ne_bytes());
/// assert_eq!((item.level(), item.kind(), item.data().len()), (IPPROTO_IP, IP_TTL, 4));
/// ```
#[derive(Debug)]
pub struct Ancillary<'fd> {
    level: i32,
    kind: i32,
    data: Vec<u8>,
    truncated: bool,
    descriptors: Descriptors<'fd>,
}

/// Who owns the descriptors of an item.
#[derive(Debug)]
enum Descriptors<'fd> {
    /// The item has no descriptors, or only their numbers.
    None,
    /// The descriptors are open for at least `'fd`.
    Borrowed(PhantomData<BorrowedFd<'fd>>),
    /// The descriptors were received with the item.
    Owned(Vec<OwnedFd>),
}

impl Ancillary<'static> {
    /// Creates an item to send.
    ///
    /// An `SCM_RIGHTS` item cannot be created from numbers, because the descriptors might not be
    /// open. Sending such an item fails with `InvalidInput`. Use [`rights`](Ancillary::rights).
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{Ancillary, IP_TTL, IPPROTO_IP};
    ///
    /// // The tuple (socket.IPPROTO_IP, socket.IP_TTL, struct.pack("i", 64)) in Python.
    /// let item = Ancillary::new(IPPROTO_IP, IP_TTL, 64_i32.to_ne_bytes());
    /// assert_eq!(item.data(), 64_i32.to_ne_bytes());
    /// ```
    #[must_use]
    pub fn new(level: i32, kind: i32, data: impl Into<Vec<u8>>) -> Ancillary<'static> {
        Ancillary { level, kind, data: data.into(), truncated: false, descriptors: Descriptors::None }
    }
}

impl<'fd> Ancillary<'fd> {
    /// Creates an `SCM_RIGHTS` item that sends descriptors.
    ///
    /// The item borrows the descriptors, so they are open when it is sent.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::IoSlice;
    /// use sock::{Ancillary, AsFd, CMSG_SPACE};
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// let file = std::fs::File::open("Cargo.toml")?;
    /// ours.sendmsg(&[IoSlice::new(b"a file")], &[Ancillary::rights(&[file.as_fd()])])?;
    /// let message = theirs.recvmsg(100, CMSG_SPACE(4)?)?;
    /// assert_eq!(message.ancillary[0].descriptors().len(), 1);
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// A descriptor that has been closed cannot be sent:
    ///
    /// ```compile_fail,E0505
    /// use std::io::IoSlice;
    /// use sock::{Ancillary, AsFd};
    ///
    /// let (ours, _theirs) = sock::socketpair()?;
    /// let file = std::fs::File::open("Cargo.toml")?;
    /// let rights = Ancillary::rights(&[file.as_fd()]);
    /// drop(file); // another file may get its number
    /// ours.sendmsg(&[IoSlice::new(b"a file")], &[rights])?;
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    #[doc(alias = "SCM_RIGHTS")]
    pub fn rights(fds: &[BorrowedFd<'fd>]) -> Ancillary<'fd> {
        let numbers: Vec<u8> = fds.iter().flat_map(|fd| fd.as_raw_fd().to_ne_bytes()).collect();
        let descriptors = Descriptors::Borrowed(PhantomData);
        Ancillary { descriptors, ..Ancillary::new(SOL_SOCKET, SCM_RIGHTS, numbers) }
    }

    /// Returns the level, such as `SOL_SOCKET`. Python: `cmsg_level`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{Ancillary, AsFd, SOL_SOCKET};
    ///
    /// let (ours, _theirs) = sock::socketpair()?;
    /// assert_eq!(Ancillary::rights(&[ours.as_fd()]).level(), SOL_SOCKET);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn level(&self) -> i32 {
        self.level
    }

    /// Returns the type within the level, such as `SCM_RIGHTS`. Python: `cmsg_type`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{Ancillary, AsFd, SCM_RIGHTS};
    ///
    /// let (ours, _theirs) = sock::socketpair()?;
    /// assert_eq!(Ancillary::rights(&[ours.as_fd()]).kind(), SCM_RIGHTS);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn kind(&self) -> i32 {
        self.kind
    }

    /// Returns the bytes that were received. Python: `cmsg_data`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::Ancillary;
    ///
    /// let item = Ancillary::hoplimit(7);
    /// assert_eq!(item.data(), 7_i32.to_ne_bytes());
    /// ```
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Returns whether the item was truncated because the buffer was too small.
    ///
    /// Python does not report this.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{Ancillary, IP_TTL, IPPROTO_IP};
    ///
    /// let item = Ancillary::new(IPPROTO_IP, IP_TTL, 64_i32.to_ne_bytes());
    /// assert!(!item.is_truncated(), "only a received item can be");
    /// ```
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// Returns the received descriptors of an `SCM_RIGHTS` or, on Linux, `SCM_PIDFD` item.
    ///
    /// Returns none for any other item and for an item to be sent.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::IoSlice;
    /// use sock::{Ancillary, AsFd, CMSG_SPACE};
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// let file = std::fs::File::open("Cargo.toml")?;
    /// ours.sendmsg(&[IoSlice::new(b"a file")], &[Ancillary::rights(&[file.as_fd()])])?;
    /// let message = theirs.recvmsg(100, CMSG_SPACE(4)?)?;
    /// assert_eq!(message.ancillary[0].descriptors().len(), 1);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn descriptors(&self) -> &[OwnedFd] {
        match &self.descriptors {
            Descriptors::Owned(descriptors) => descriptors,
            Descriptors::None | Descriptors::Borrowed(_) => &[],
        }
    }

    /// Returns ownership of the received descriptors.
    ///
    /// They are close-on-exec if the system supports it (Linux, FreeBSD).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::fs::File;
    /// use std::io::IoSlice;
    /// use sock::{Ancillary, AsFd, CMSG_SPACE};
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// let file = File::open("Cargo.toml")?;
    /// ours.sendmsg(&[IoSlice::new(b"a file")], &[Ancillary::rights(&[file.as_fd()])])?;
    /// let message = theirs.recvmsg(100, CMSG_SPACE(4)?)?;
    /// let item = message.ancillary.into_iter().next().unwrap();
    /// let received = File::from(item.into_descriptors().remove(0));
    /// assert_eq!(received.metadata()?.len(), file.metadata()?.len());
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn into_descriptors(self) -> Vec<OwnedFd> {
        match self.descriptors {
            Descriptors::Owned(descriptors) => descriptors,
            Descriptors::None | Descriptors::Borrowed(_) => Vec::new(),
        }
    }

    /// Fails if the item has descriptors that are only numbers.
    pub(crate) fn check(&self) -> io::Result<()> {
        match self.descriptors {
            Descriptors::None if (self.level, self.kind) == (SOL_SOCKET, SCM_RIGHTS) => {
                Err(invalid("an SCM_RIGHTS item must be created by Ancillary::rights"))
            }
            _ => Ok(()),
        }
    }
}

impl From<message::Item> for Ancillary<'static> {
    fn from(item: message::Item) -> Ancillary<'static> {
        let message::Item { level, kind, data, truncated, descriptors } = item;
        let descriptors = descriptors.map_or(Descriptors::None, Descriptors::Owned);
        Ancillary { level, kind, data, truncated, descriptors }
    }
}

/// Returns the length of an item with `length` bytes of data, without trailing padding.
///
/// Python: `socket.CMSG_LEN(length)`. Macro: `CMSG_LEN` of cmsg(3).
///
/// # Errors
///
/// Returns an error of kind `InvalidInput` if an item cannot be that long.
///
/// # Examples
///
/// ```
/// // For recvmsg: room for one descriptor, without padding that could hold a second one.
/// let (ours, _theirs) = sock::socketpair()?;
/// ours.setblocking(false)?;
/// assert!(ours.recvmsg(100, sock::CMSG_LEN(4)?).is_err());
/// # std::io::Result::Ok(())
/// ```
#[expect(non_snake_case, reason = "Python's name, and C's")]
pub fn CMSG_LEN(length: usize) -> io::Result<usize> {
    message::len(length).ok_or_else(|| out_of_range(format!("CMSG_LEN of {length} is out of range")))
}

/// Returns the size of an item with `length` bytes of data, including padding.
///
/// Python: `socket.CMSG_SPACE(length)`. Macro: `CMSG_SPACE` of cmsg(3).
///
/// # Errors
///
/// Returns an error of kind `InvalidInput` if an item cannot be that long.
///
/// # Examples
///
/// ```
/// use sock::{CMSG_LEN, CMSG_SPACE};
///
/// assert!(CMSG_SPACE(5)? >= CMSG_LEN(5)?); // includes the padding after the item
/// assert!(CMSG_SPACE(usize::MAX).is_err());
/// # std::io::Result::Ok(())
/// ```
#[expect(non_snake_case, reason = "Python's name, and C's")]
pub fn CMSG_SPACE(length: usize) -> io::Result<usize> {
    message::space(length).ok_or_else(|| out_of_range(format!("CMSG_SPACE of {length} is out of range")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_c() {
        #[cfg(target_pointer_width = "64")]
        assert_eq!(
            [CMSG_LEN(0), CMSG_SPACE(0), CMSG_LEN(4), CMSG_SPACE(4)].map(Result::unwrap),
            [16, 16, 20, 24]
        );
        assert!(CMSG_LEN(usize::MAX).is_err());
        assert!(CMSG_SPACE(i32::MAX as usize).is_err());
    }

    #[test]
    fn sizes_are_limited_to_an_int() {
        const MOST: usize = i32::MAX as usize;
        let longest = MOST - CMSG_LEN(0).unwrap();
        assert_eq!(CMSG_LEN(longest).unwrap(), MOST);
        assert!(CMSG_LEN(longest + 1).is_err());
        let longest = MOST - CMSG_SPACE(1).unwrap();
        assert!((longest..=MOST).contains(&CMSG_SPACE(longest).unwrap()));
        assert!(CMSG_SPACE(longest + 1).is_err());
    }
}
