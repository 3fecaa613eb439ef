//! Names and indices of network interfaces. Unix only.

use std::io;

use crate::address::c_string;
use crate::sys;

/// Returns all interfaces with their indices.
///
/// Python: `socket.if_nameindex()`. Library call: if_nameindex(3).
///
/// # Errors
///
/// Returns an error if if_nameindex(3) fails.
///
/// # Examples
///
/// ```
/// for (index, name) in sock::if_nameindex()? {
///     assert_eq!(sock::if_nametoindex(&name)?, index);
///     assert_eq!(sock::if_indextoname(index)?, name);
/// }
/// # std::io::Result::Ok(())
/// ```
pub fn if_nameindex() -> io::Result<Vec<(u32, String)>> {
    sys::if_nameindex()
}

/// Returns the index of an interface.
///
/// Python: `socket.if_nametoindex(name)`. Library call: if_nametoindex(3).
///
/// # Errors
///
/// Returns an error if there is no interface with this name (`ENODEV`).
///
/// # Examples
///
/// ```
/// # if cfg!(target_os = "linux") {
/// assert_eq!(sock::if_nametoindex("lo")?, 1);
/// assert!(sock::if_nametoindex("no such interface").is_err());
/// # }
/// # std::io::Result::Ok(())
/// ```
pub fn if_nametoindex(name: &str) -> io::Result<u32> {
    sys::if_nametoindex(&c_string("interface", name)?)
}

/// Returns the name of an interface.
///
/// Python: `socket.if_indextoname(index)`. Library call: if_indextoname(3).
///
/// # Errors
///
/// Returns an error if there is no interface with this index (`ENXIO`).
///
/// # Examples
///
/// ```
/// # if cfg!(target_os = "linux") {
/// assert_eq!(sock::if_indextoname(1)?, "lo");
/// assert_eq!(sock::errno(&sock::if_indextoname(0).unwrap_err()).and_then(sock::errno_name), Some("ENXIO"));
/// # }
/// # std::io::Result::Ok(())
/// ```
pub fn if_indextoname(index: u32) -> io::Result<String> {
    sys::if_indextoname(index)
}
