//! The address families that only this system has: none.

use super::{Address, OsAddress};
use crate::consts::AddressFamily;

/// Returns `None`, because there are no such families.
pub(super) fn read(_family: AddressFamily, _bytes: &[u8]) -> Option<Address> {
    None
}

/// Returns `None`, because there are no such families.
pub(super) fn as_os_address(_address: &Address) -> Option<&dyn OsAddress> {
    None
}
