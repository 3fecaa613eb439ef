//! The system calls that have no safe wrapper: unshare(2), the ioctl(2) of a TUN device, and
//! ptrace(2).
#![allow(unsafe_code)]

pub(crate) mod calls;
pub(crate) mod trace;

use std::fs::File;
use std::io;

use rustix::ioctl::{self, Setter};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Moves the process into a user namespace of its own.
pub(crate) fn new_user_namespace() -> io::Result<()> {
    // SAFETY: the flag does not separate the tables of descriptors of the threads.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER) }.map_err(io::Error::from)
}

/// Moves the calling thread into a network namespace of its own.
pub(crate) fn new_network_namespace() -> io::Result<()> {
    // SAFETY: the flag does not separate the tables of descriptors of the threads.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(io::Error::from)
}

/// `_IOW('T', 202, int)`: attaches the open `/dev/net/tun` to a device.
const TUNSETIFF: ioctl::Opcode = ioctl::opcode::write::<i32>(b'T', 202);
const IFF_TUN: u16 = 0x0001;
/// Packets have no header of the device.
const IFF_NO_PI: u16 = 0x1000;

/// `struct ifreq` with the fields that `TUNSETIFF` reads.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    unused: [u8; 22],
}

/// Creates a TUN device in the network namespace of the calling thread. Each read from the file is
/// a packet that a socket has sent, and each write is a packet that arrives.
pub(crate) fn tun(name: &str) -> io::Result<File> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    let mut request = InterfaceRequest { name: [0; 16], flags: IFF_TUN | IFF_NO_PI, unused: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF reads a `struct ifreq`, which has 40 bytes.
    let request = unsafe { Setter::<TUNSETIFF, InterfaceRequest>::new(request) };
    // SAFETY: the call changes the file only, and the structure lives during the call.
    unsafe { ioctl::ioctl(&file, request) }?;
    rustix::fs::fcntl_setfl(&file, rustix::fs::OFlags::NONBLOCK)?;
    Ok(file)
}
