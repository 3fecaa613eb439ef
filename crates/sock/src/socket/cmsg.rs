//! One item of ancillary data, and how much room it takes (cmsg(3)).

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use crate::consts::{SCM_RIGHTS, SOL_SOCKET};
use crate::error::{invalid, out_of_range};
use crate::sys::message;

/// One item of ancillary data, received or to be sent.
///
/// Python: the tuple `(cmsg_level, cmsg_type, cmsg_data)`. The descriptors of a
/// received `SCM_RIGHTS` item belong to it and are closed when it is dropped,
/// unless [`into_descriptors`](Ancillary::into_descriptors) takes them. An item made by
/// [`rights`](Ancillary::rights) borrows its descriptors for `'fd`; every other item is
/// `Ancillary<'static>`.
///
/// # Examples
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use sock::{Ancillary, IP_TTL, IPPROTO_IP};
///
/// let item = Ancillary::new(IPPROTO_IP, IP_TTL, 64_i32.to_ne_bytes());
/// assert_eq!((item.level(), item.kind(), item.data().len()), (IPPROTO_IP, IP_TTL, 4));
/// # }
/// ```
#[derive(Debug)]
pub struct Ancillary<'fd> {
    level: i32,
    kind: i32,
    data: Vec<u8>,
    truncated: bool,
    descriptors: Descriptors<'fd>,
}

/// Whose the descriptors are whose numbers an item holds.
#[derive(Debug)]
enum Descriptors<'fd> {
    /// It holds none, or they are only numbers.
    None,
    /// Open for `'fd` at least.
    Borrowed(PhantomData<BorrowedFd<'fd>>),
    /// They were received with it.
    Owned(Vec<OwnedFd>),
}

impl Ancillary<'static> {
    /// An item to be sent.
    ///
    /// An `SCM_RIGHTS` item cannot be made of numbers: nothing says that these descriptors
    /// are open, and whose they are. Sending one is `InvalidInput`; see
    /// [`rights`](Ancillary::rights).
    #[must_use]
    pub fn new(level: i32, kind: i32, data: impl Into<Vec<u8>>) -> Ancillary<'static> {
        Ancillary { level, kind, data: data.into(), truncated: false, descriptors: Descriptors::None }
    }
}

impl<'fd> Ancillary<'fd> {
    /// Descriptors to be sent: an `SCM_RIGHTS` item. It borrows them, so that they are open
    /// when it is sent.
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
    /// drop(file); // its number may be another file's from here on
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

    /// Level, such as `SOL_SOCKET`. Python: `cmsg_level`.
    #[must_use]
    pub fn level(&self) -> i32 {
        self.level
    }

    /// Type at that level, such as `SCM_RIGHTS`. Python: `cmsg_type`.
    #[must_use]
    pub fn kind(&self) -> i32 {
        self.kind
    }

    /// The bytes, as far as they came. Python: `cmsg_data`.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Whether the buffer ended before the item did. Python drops such an item's
    /// end without a word.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// The descriptors that came in an `SCM_RIGHTS` item, or on Linux in an `SCM_PIDFD`
    /// item; none for any other item, and none for one that is to be sent.
    #[must_use]
    pub fn descriptors(&self) -> &[OwnedFd] {
        match &self.descriptors {
            Descriptors::Owned(descriptors) => descriptors,
            Descriptors::None | Descriptors::Borrowed(_) => &[],
        }
    }

    /// The same, given away. They are close-on-exec where the system can have them so
    /// (Linux, FreeBSD).
    #[must_use]
    pub fn into_descriptors(self) -> Vec<OwnedFd> {
        match self.descriptors {
            Descriptors::Owned(descriptors) => descriptors,
            Descriptors::None | Descriptors::Borrowed(_) => Vec::new(),
        }
    }

    /// Fails for descriptors that are only numbers.
    pub(crate) fn check(&self) -> io::Result<()> {
        match self.descriptors {
            Descriptors::None if (self.level, self.kind) == (SOL_SOCKET, SCM_RIGHTS) => {
                Err(invalid("an SCM_RIGHTS item has to borrow its descriptors: see Ancillary::rights"))
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

/// Length of an item with `length` bytes of data, without padding at its end.
///
/// Python: `socket.CMSG_LEN(length)`. Macro: `CMSG_LEN` of cmsg(3).
///
/// # Errors
///
/// `InvalidInput` for more than an item can hold.
///
/// # Examples
///
/// ```
/// // For recvmsg: room for one descriptor, and not for a second one in the padding.
/// let (ours, _theirs) = sock::socketpair()?;
/// ours.setblocking(false)?;
/// assert!(ours.recvmsg(100, sock::CMSG_LEN(4)?).is_err());
/// # std::io::Result::Ok(())
/// ```
#[expect(non_snake_case, reason = "Python's name, and C's")]
pub fn CMSG_LEN(length: usize) -> io::Result<usize> {
    message::len(length).ok_or_else(|| out_of_range(format!("CMSG_LEN of {length} is out of range")))
}

/// Room an item with `length` bytes of data takes, with its padding.
///
/// Python: `socket.CMSG_SPACE(length)`. Macro: `CMSG_SPACE` of cmsg(3).
///
/// # Errors
///
/// `InvalidInput` for more than an item can hold.
///
/// # Examples
///
/// ```
/// use sock::{CMSG_LEN, CMSG_SPACE};
///
/// assert!(CMSG_SPACE(5)? >= CMSG_LEN(5)?); // it counts the padding behind the item as well
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
    fn sizes_go_to_the_end_of_an_int_and_no_further() {
        const MOST: usize = i32::MAX as usize;
        let longest = MOST - CMSG_LEN(0).unwrap();
        assert_eq!(CMSG_LEN(longest).unwrap(), MOST);
        assert!(CMSG_LEN(longest + 1).is_err());
        let longest = MOST - CMSG_SPACE(1).unwrap();
        assert!((longest..=MOST).contains(&CMSG_SPACE(longest).unwrap()));
        assert!(CMSG_SPACE(longest + 1).is_err());
    }
}
