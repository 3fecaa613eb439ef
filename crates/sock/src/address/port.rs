//! What the port of an address can be written as.

use std::fmt;
use std::io;

use super::lookup;
use crate::error::out_of_range;
use crate::sys;

/// The port of an address: a number, a number as text, or the name of a service.
///
/// Python: a number; in `create_connection` and `getaddrinfo` text too. A name is looked up with
/// getaddrinfo(3), which fails with a [`GaiError`](crate::GaiError) for an unknown one.
///
/// # Examples
///
/// ```
/// use sock::{AF_INET, ToAddress};
///
/// assert_eq!(("127.0.0.1", 8000).to_address(AF_INET)?.port(), Some(8000));
/// assert_eq!(("127.0.0.1", "8000").to_address(AF_INET)?.port(), Some(8000));
/// let error = ("127.0.0.1", "70000").to_address(AF_INET).unwrap_err();
/// assert_eq!(error.to_string(), "port must be 0-65535, not 70000 (host \"127.0.0.1\")");
/// # std::io::Result::Ok(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a port",
    label = "not a port",
    note = "a port is a number such as `8000`, a number as text, or the name of a service such as `\"http\"`"
)]
pub trait Port: fmt::Display {
    /// Returns the number. `host` is named in an error.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `InvalidInput` if the number is not in 0..=65535, and a
    /// [`GaiError`](crate::GaiError) if the name is unknown.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::Port;
    ///
    /// assert_eq!(8000.to_port("localhost")?, 8000);
    /// assert_eq!("8000".to_port("localhost")?, 8000);
    /// assert!(70_000.to_port("localhost").is_err());
    /// # std::io::Result::Ok(())
    /// ```
    fn to_port(&self, host: &str) -> io::Result<u16>;
}

macro_rules! numbers {
    ($($type:ty)*) => {$(
        impl Port for $type {
            fn to_port(&self, host: &str) -> io::Result<u16> {
                u16::try_from(*self).map_err(|_| no_port(self, host))
            }
        }
    )*};
}
numbers! { u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize }

impl Port for std::num::NonZeroU16 {
    fn to_port(&self, _host: &str) -> io::Result<u16> {
        Ok(self.get())
    }
}

impl Port for str {
    fn to_port(&self, host: &str) -> io::Result<u16> {
        // getaddrinfo(3) takes it for port 0.
        if self.is_empty() {
            return Err(no_port(&"\"\"", host));
        }
        let digits = self.strip_prefix('-').unwrap_or(self);
        if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return self.parse().map_err(|_| no_port(&self, host));
        }
        let answers = lookup(None, Some(self), sys::RawHints::default())?;
        answers.first().map(|answer| answer.address.port()).ok_or_else(|| no_port(&self, host))
    }
}

impl Port for String {
    fn to_port(&self, host: &str) -> io::Result<u16> {
        self.as_str().to_port(host)
    }
}

impl<P: Port + ?Sized> Port for &P {
    fn to_port(&self, host: &str) -> io::Result<u16> {
        (**self).to_port(host)
    }
}

fn no_port(port: &dyn fmt::Display, host: &str) -> io::Error {
    out_of_range(format!("port must be 0-65535, not {port} (host {host:?})"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::address::ToAddress;
    use crate::consts::{AF_INET, AF_INET6, AF_UNIX, AF_UNSPEC};
    use crate::error::{GaiError, errno, errno_name};

    #[test]
    fn a_port_is_a_number_or_text() {
        for address in
            [("127.0.0.1", "8000").to_address(AF_INET), ("127.0.0.1", 8000_i64).to_address(AF_INET)]
        {
            assert_eq!(address.unwrap().port(), Some(8000));
        }
        assert_eq!(("::1", String::from("0")).to_address(AF_INET6).unwrap().port(), Some(0));
        for text in ["65536", "-1", "99999999999999999999"] {
            let error = ("127.0.0.1", text).to_address(AF_INET).unwrap_err();
            assert_eq!(error.to_string(), format!("port must be 0-65535, not {text} (host \"127.0.0.1\")"));
        }
        let error = ("127.0.0.1", "no-such-service").to_address(AF_INET).unwrap_err();
        assert!(GaiError::of(&error).is_some(), "{error}");
        assert!(("127.0.0.1", "").to_address(AF_INET).is_err());
    }

    /// A text is a path in Python. What is meant is in the message.
    #[test]
    fn host_and_port_in_one_text_are_refused_with_the_right_form() {
        for (text, family, form) in [
            ("127.0.0.1:9999", AF_INET, "(\"127.0.0.1\", 9999)"),
            ("localhost:80", AF_INET6, "(\"localhost\", 80)"),
            ("[::1]:80", AF_INET6, "(\"::1\", 80)"),
            (":8080", AF_INET, "(\"\", 8080)"),
        ] {
            let error = text.to_address(family).unwrap_err();
            assert!(error.to_string().contains(form), "{error}");
            assert_eq!(errno(&error).and_then(errno_name), Some("EAFNOSUPPORT"));
        }
        assert!("127.0.0.1:9999".to_address(AF_UNIX).is_ok(), "it may be a path");
        // A port that is out of range is no reason to take it as a path.
        let error = "127.0.0.1:70000".to_address(AF_INET).unwrap_err();
        assert!(error.to_string().contains("(\"127.0.0.1\", 70000)"), "{error}");
        let error = "/tmp/echo".to_address(AF_INET).unwrap_err();
        assert!(!error.to_string().contains("write"), "{error}");
    }

    #[test]
    fn host_and_port_in_one_text_are_refused_where_each_family_is_accepted() {
        for (text, form) in [
            ("127.0.0.1:9999", "(\"127.0.0.1\", 9999)"),
            ("localhost:80", "(\"localhost\", 80)"),
            ("[::1]:80", "(\"::1\", 80)"),
            (":8080", "(\"\", 8080)"),
            ("0.0.0.0:70000", "(\"0.0.0.0\", 70000)"),
        ] {
            let refusals = [
                text.to_address(AF_UNSPEC),
                text.to_owned().to_address(AF_UNSPEC),
                text.as_bytes().to_address(AF_UNSPEC),
            ];
            for error in refusals.map(Result::unwrap_err) {
                let error = error.to_string();
                assert!(error.contains(form) && error.contains(&format!("\"./{text}\"")), "{error}");
            }
            assert!(Path::new(text).to_address(AF_UNSPEC).is_ok(), "a path is meant");
        }
        for path in ["/run/app:80", "./127.0.0.1:9999", "admin", "a:b", "\0abstract:80", ""] {
            assert!(path.to_address(AF_UNSPEC).is_ok(), "{path:?}");
        }
    }
}
