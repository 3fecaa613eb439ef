//! Converts addresses between Python's tuples, strings and bytes and [`sock::Address`] or
//! [`ToAddress`].

use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use pyo3::exceptions::{PyOSError, PyOverflowError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyString, PyTuple};
use sock::{
    AF_CAN, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_UNIX, AF_VSOCK, Address, AddressFamily, CAN_ISOTP,
    CAN_J1939, CanAddress, NetlinkAddress, PacketAddress, ToAddress, UnixAddress, VsockAddress,
};

use crate::errors::IntoPython;
use crate::raw::Buffer;

/// An address from Python code. `sock` resolves names when the address is used, without the GIL.
#[derive(Debug)]
pub(crate) enum Given {
    Host(String, i64),
    HostWithScope(String, i64, u32, u32),
    Unix(Vec<u8>),
    Ready(Address),
    Packet { interface: String, address: PacketAddress },
    Can { interface: String, protocol: CanProtocol },
}

/// The part of an `AF_CAN` address after the interface.
#[derive(Debug)]
pub(crate) enum CanProtocol {
    None,
    Isotp(u32, u32),
    J1939(u64, u32, u8),
}

impl ToAddress for Given {
    fn to_address(&self, family: AddressFamily) -> io::Result<Address> {
        match self {
            Given::Host(host, port) => (host, *port).to_address(family),
            Given::HostWithScope(host, port, flowinfo, scope) => {
                (host, *port, *flowinfo, *scope).to_address(family)
            }
            Given::Unix(name) => name.to_address(family),
            Given::Ready(address) => address.to_address(family),
            Given::Packet { interface, address } => {
                let mut address = *address;
                address.ifindex = sock::if_nametoindex(interface)?;
                Ok(Address::Packet(address))
            }
            Given::Can { interface, protocol } => {
                // An empty name means all interfaces.
                let index = if interface.is_empty() { 0 } else { sock::if_nametoindex(interface)? };
                Ok(Address::Can(match *protocol {
                    CanProtocol::None => CanAddress::new(index),
                    CanProtocol::Isotp(rx, tx) => CanAddress::isotp(index, rx, tx),
                    CanProtocol::J1939(name, pgn, address) => CanAddress::j1939(index, name, pgn, address),
                }))
            }
        }
    }
}

/// Reads the address argument of a method of a socket of `family`.
pub(crate) fn from_python(
    caller: &str,
    (family, proto): (i32, i32),
    address: &Bound<'_, PyAny>,
) -> PyResult<Given> {
    let family = AddressFamily::from(family);
    if family == AF_UNIX {
        return Ok(Given::Unix(unix_name(address)?));
    }
    if ![AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_VSOCK, AF_CAN].contains(&family) {
        return Err(PyOSError::new_err(format!("{caller}(): bad family")));
    }
    let tuple = address.cast::<PyTuple>().map_err(|_| {
        let name = address.get_type().name().map_or_else(|_| "object".to_owned(), |name| name.to_string());
        PyTypeError::new_err(format!("{caller}(): {family} address must be tuple, not {name}"))
    })?;
    let fields = Fields { caller, family, tuple };
    match family {
        AF_INET => {
            fields.count(2..=2, "a pair (host, port)")?;
            Ok(Given::Host(host_of(&tuple.get_item(0)?)?, fields.port(1)?))
        }
        AF_INET6 => {
            fields.count(2..=4, "a tuple (host, port[, flowinfo[, scopeid]])")?;
            let (host, port) = (host_of(&tuple.get_item(0)?)?, fields.port(1)?);
            match tuple.len() {
                2 => Ok(Given::Host(host, port)),
                _ => Ok(Given::HostWithScope(host, port, fields.modulo(2)?, fields.modulo(3)?)),
            }
        }
        AF_NETLINK => {
            fields.count(2..=2, "a pair (pid, groups)")?;
            let (pid, groups) = (fields.modulo(0)?, fields.modulo(1)?);
            Ok(Given::Ready(Address::Netlink(NetlinkAddress { pid, groups })))
        }
        AF_VSOCK => {
            fields.count(2..=2, "a pair (cid, port)")?;
            let (cid, port) = (fields.modulo(0)?, fields.modulo(1)?);
            Ok(Given::Ready(Address::Vsock(VsockAddress { cid, port })))
        }
        AF_PACKET => {
            fields.count(2..=5, "a tuple of two to five elements")?;
            let protocol = u16::try_from(tuple.get_item(1)?.extract::<i64>()?)
                .map_err(|_| PyOverflowError::new_err(format!("{caller}(): proto must be 0-65535.")))?;
            let mut address = PacketAddress::new(0, protocol);
            address.pkttype = fields.modulo(2)? as u8;
            address.hatype = fields.modulo(3)? as u16;
            if tuple.len() == 5 {
                let hardware = Buffer::readable(&tuple.get_item(4)?)?;
                address = address.with_hardware_address(hardware.bytes()).py(tuple.py())?;
            }
            Ok(Given::Packet { interface: tuple.get_item(0)?.extract()?, address })
        }
        _ => {
            let interface = text(&tuple.get_item(0)?)?;
            let protocol = match proto {
                CAN_ISOTP => {
                    fields.count(3..=3, "a tuple (ifname, rx_addr, tx_addr)")?;
                    CanProtocol::Isotp(fields.modulo(1)?, fields.modulo(2)?)
                }
                CAN_J1939 => {
                    fields.count(4..=4, "a tuple (ifname, name, pgn, addr)")?;
                    let (name, address) = (tuple.get_item(1)?.extract()?, tuple.get_item(3)?.extract()?);
                    CanProtocol::J1939(name, fields.modulo(2)?, address)
                }
                _ => {
                    fields.count(1..=1, "a tuple (ifname,)")?;
                    CanProtocol::None
                }
            };
            Ok(Given::Can { interface, protocol })
        }
    }
}

/// A tuple, with the error message for a wrong one.
struct Fields<'a, 'py> {
    caller: &'a str,
    family: AddressFamily,
    tuple: &'a Bound<'py, PyTuple>,
}

impl Fields<'_, '_> {
    fn count(&self, right: std::ops::RangeInclusive<usize>, what: &str) -> PyResult<()> {
        if right.contains(&self.tuple.len()) {
            return Ok(());
        }
        let Fields { caller, family, .. } = self;
        Err(PyTypeError::new_err(format!("{caller}(): {family} address must be {what}")))
    }

    /// Converts any number, and `sock` checks whether it is a port. A number too large for C fails as
    /// an invalid port.
    fn port(&self, index: usize) -> PyResult<i64> {
        self.tuple.get_item(index)?.extract::<i64>().map_err(|error| {
            match error.is_instance_of::<PyOverflowError>(self.tuple.py()) {
                true => PyOverflowError::new_err(format!("{}(): port must be 0-65535.", self.caller)),
                false => error,
            }
        })
    }

    /// Converts like the format `I`, modulo 2**32. A missing item is 0.
    fn modulo(&self, index: usize) -> PyResult<u32> {
        match self.tuple.len() > index {
            true => modulo(&self.tuple.get_item(index)?),
            false => Ok(0),
        }
    }
}

/// Converts like the format `I`, modulo 2**32.
pub(crate) fn modulo(number: &Bound<'_, PyAny>) -> PyResult<u32> {
    Ok(number.extract::<i64>()? as u32)
}

/// The host of an address: ASCII as it is, other text by the codec idna.
pub(crate) fn host_of(host: &Bound<'_, PyAny>) -> PyResult<String> {
    if let Ok(text) = host.cast::<PyString>() {
        return match text.to_str() {
            Ok(ascii) if ascii.is_ascii() => Ok(ascii.to_owned()),
            _ => idna(host).map_err(|_| PyTypeError::new_err("encoding of hostname failed")),
        };
    }
    text(host)
}

/// The host of a resolver function: text always by the codec idna.
pub(crate) fn resolver_host(host: &Bound<'_, PyAny>) -> PyResult<String> {
    match host.is_instance_of::<PyString>() {
        true => idna(host),
        false => text(host),
    }
}

fn idna(host: &Bound<'_, PyAny>) -> PyResult<String> {
    text(&host.call_method1("encode", ("idna",))?)
}

/// Text from str, bytes or bytearray.
pub(crate) fn text(value: &Bound<'_, PyAny>) -> PyResult<String> {
    if value.is_instance_of::<PyBytes>() || value.is_instance_of::<PyByteArray>() {
        // For other bytes the codec raises the error.
        return value.call_method1("decode", ("utf-8",))?.extract();
    }
    value.cast::<PyString>().map_err(|_| {
        let name = value.get_type().name().map_or_else(|_| "object".to_owned(), |name| name.to_string());
        PyTypeError::new_err(format!("str, bytes or bytearray expected, not {name}"))
    })?;
    value.extract()
}

/// Converts text in the encoding of file names, or a bytes-like object.
fn unix_name(name: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    match name.is_instance_of::<PyString>() {
        true => Ok(name.extract::<std::ffi::OsString>()?.into_vec()),
        false => Ok(Buffer::readable(name)?.bytes().to_vec()),
    }
}

/// Converts an address for Python code.
pub(crate) fn to_python(py: Python<'_>, address: &Address, proto: i32) -> PyResult<Py<PyAny>> {
    let address = match address {
        Address::Inet(v4) => (v4.ip().to_string(), v4.port()).into_pyobject(py)?.into_any(),
        Address::Inet6(v6) => {
            let host = sock::inet_ntop(AF_INET6, &v6.ip().octets()).py(py)?;
            (host, v6.port(), v6.flowinfo(), v6.scope_id()).into_pyobject(py)?.into_any()
        }
        Address::Unix(UnixAddress::Unnamed) => PyString::new(py, "").into_any(),
        Address::Unix(UnixAddress::Path(path)) => path.as_os_str().into_pyobject(py)?.into_any(),
        Address::Unix(UnixAddress::Abstract(name)) => {
            PyBytes::new(py, &[b"\0", &name[..]].concat()).into_any()
        }
        Address::Netlink(address) => (address.pid, address.groups).into_pyobject(py)?.into_any(),
        Address::Vsock(address) => (address.cid, address.port).into_pyobject(py)?.into_any(),
        Address::Packet(address) => {
            let hardware = PyBytes::new(py, address.hardware_address());
            let (protocol, pkttype, hatype) = (address.protocol, address.pkttype, address.hatype);
            (interface(address.ifindex), protocol, pkttype, hatype, hardware).into_pyobject(py)?.into_any()
        }
        Address::Can(address) => {
            let name = interface(address.ifindex);
            match proto {
                CAN_ISOTP => {
                    let (rx, tx) = address.as_isotp();
                    (name, rx, tx).into_pyobject(py)?.into_any()
                }
                CAN_J1939 => {
                    let (of, pgn, at) = address.as_j1939();
                    (name, of, pgn, at).into_pyobject(py)?.into_any()
                }
                _ => (name,).into_pyobject(py)?.into_any(),
            }
        }
        Address::Other(family, bytes) => {
            (family.as_raw(), PyBytes::new(py, bytes)).into_pyobject(py)?.into_any()
        }
        _ => return Ok(py.None()),
    };
    Ok(address.unbind())
}

/// Index 0 has an empty name.
fn interface(index: u32) -> String {
    sock::if_indextoname(index).unwrap_or_default()
}

/// A name in the encoding of file names, as `os.fsencode` takes it.
pub(crate) fn file_name(name: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    match name.cast::<PyBytes>() {
        Ok(bytes) => Ok(bytes.as_bytes().to_vec()),
        Err(_) => Ok(name.extract::<PathBuf>()?.into_os_string().into_vec()),
    }
}
