//! The functions that resolve names.

use pyo3::exceptions::{PyOSError, PyOverflowError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyList, PyString, PyTuple};
use sock::{AF_INET6, AI_NUMERICHOST, Address, Hints, HostEntry, SOCK_DGRAM, ToAddress};

use crate::address::{self, modulo, resolver_host, text};
use crate::errors::IntoPython;
use crate::socket::audit;

#[pyfunction]
#[pyo3(signature = (host, port, family = 0, r#type = 0, proto = 0, flags = 0))]
pub(crate) fn getaddrinfo<'py>(
    py: Python<'py>,
    host: &Bound<'_, PyAny>,
    port: &Bound<'_, PyAny>,
    family: i32,
    r#type: i32,
    proto: i32,
    flags: i32,
) -> PyResult<Bound<'py, PyList>> {
    let name = match host {
        none if none.is_none() => None,
        name if name.is_instance_of::<PyString>() || name.is_instance_of::<PyBytes>() => {
            Some(resolver_host(name)?)
        }
        _ => return Err(PyTypeError::new_err("getaddrinfo() argument 1 must be string or None")),
    };
    // A number as text, which Python also accepts.
    let service = match port {
        none if none.is_none() => None,
        // Since 3.12 (gh-74895) any number is passed on.
        number if number.is_instance_of::<PyInt>() && py.version_info() >= (3, 12) => {
            Some(number.str()?.extract()?)
        }
        number if number.is_instance_of::<PyInt>() => Some(number.extract::<i64>()?.to_string()),
        name if name.is_instance_of::<PyString>() || name.is_instance_of::<PyBytes>() => Some(text(name)?),
        _ => return Err(PyOSError::new_err("Int or String expected")),
    };
    audit(py, "socket.getaddrinfo", (host, port, family, r#type, proto))?;
    let hints = Hints::new().family(family.into()).kind(r#type.into()).proto(proto).flags(flags.into());
    let answers = py.detach(|| sock::getaddrinfo_with(name.as_deref(), service, &hints)).py(py)?;
    let list = PyList::empty(py);
    for answer in answers {
        let address = address::to_python(py, &answer.address, answer.proto)?;
        let canonname = answer.canonname.unwrap_or_default();
        list.append((answer.family.as_raw(), answer.kind.as_raw(), answer.proto, canonname, address))?;
    }
    Ok(list)
}

#[pyfunction]
#[pyo3(signature = (sockaddr, flags, /))]
pub(crate) fn getnameinfo(
    py: Python<'_>,
    sockaddr: &Bound<'_, PyAny>,
    flags: i32,
) -> PyResult<(String, String)> {
    let tuple = sockaddr
        .cast::<PyTuple>()
        .map_err(|_| PyTypeError::new_err("getnameinfo() argument 1 must be a tuple"))?;
    if !(2..=4).contains(&tuple.len()) {
        return Err(PyTypeError::new_err("getnameinfo(): illegal sockaddr argument"));
    }
    let (host, port): (String, i32) = (tuple.get_item(0)?.extract()?, tuple.get_item(1)?.extract()?);
    let number = |index| if tuple.len() > index { modulo(&tuple.get_item(index)?) } else { Ok(0) };
    let (flowinfo, scope): (u32, u32) = (number(2)?, number(3)?);
    audit(py, "socket.getnameinfo", (sockaddr,))?;
    // The host must be numeric.
    let hints = Hints::new().kind(SOCK_DGRAM).flags(AI_NUMERICHOST);
    let answers = py.detach(|| sock::getaddrinfo_with(&*host, port.to_string(), &hints)).py(py)?;
    let address = match answers.first().map(|answer| &answer.address) {
        Some(Address::Inet6(v6)) => (*v6.ip(), v6.port(), flowinfo, scope).to_address(AF_INET6).py(py)?,
        Some(address) if tuple.len() == 2 => address.clone(),
        _ => return Err(PyOSError::new_err("IPv4 sockaddr must be 2 tuple")),
    };
    py.detach(|| sock::getnameinfo(&address, flags)).py(py)
}

#[pyfunction]
#[pyo3(signature = (host, /))]
pub(crate) fn gethostbyname(py: Python<'_>, host: &Bound<'_, PyAny>) -> PyResult<String> {
    let name = resolver_host(host)?;
    audit(py, "socket.gethostbyname", (host,))?;
    Ok(py.detach(|| sock::gethostbyname(&name)).py(py)?.to_string())
}

type Entry = (String, Vec<String>, Vec<String>);

#[pyfunction]
#[pyo3(signature = (host, /))]
pub(crate) fn gethostbyname_ex(py: Python<'_>, host: &Bound<'_, PyAny>) -> PyResult<Entry> {
    let name = resolver_host(host)?;
    audit(py, "socket.gethostbyname", (host,))?;
    Ok(entry(py.detach(|| sock::gethostbyname_ex(&name)).py(py)?))
}

#[pyfunction]
#[pyo3(signature = (host, /))]
pub(crate) fn gethostbyaddr(py: Python<'_>, host: &Bound<'_, PyAny>) -> PyResult<Entry> {
    let name = resolver_host(host)?;
    audit(py, "socket.gethostbyaddr", (host,))?;
    Ok(entry(py.detach(|| sock::gethostbyaddr(&name)).py(py)?))
}

fn entry(entry: HostEntry) -> Entry {
    (entry.name, entry.aliases, entry.addresses.iter().map(ToString::to_string).collect())
}

#[pyfunction]
#[pyo3(signature = ())]
pub(crate) fn gethostname(py: Python<'_>) -> PyResult<String> {
    audit(py, "socket.gethostname", ())?;
    py.detach(sock::gethostname).py(py)
}

#[pyfunction]
#[pyo3(signature = (name, /))]
pub(crate) fn sethostname(py: Python<'_>, name: &Bound<'_, PyAny>) -> PyResult<()> {
    let encoded = address::file_name(name)?;
    audit(py, "socket.sethostname", (name,))?;
    py.detach(|| sock::sethostname(encoded)).py(py)
}

#[pyfunction]
#[pyo3(signature = (name, protocol = None, /))]
pub(crate) fn getservbyname(py: Python<'_>, name: &str, protocol: Option<&str>) -> PyResult<u16> {
    audit(py, "socket.getservbyname", (name, protocol.unwrap_or("")))?;
    py.detach(|| sock::getservbyname(name, protocol)).py(py)
}

#[pyfunction]
#[pyo3(signature = (port, protocol = None, /))]
pub(crate) fn getservbyport(py: Python<'_>, port: i32, protocol: Option<&str>) -> PyResult<String> {
    let number = u16::try_from(port)
        .map_err(|_| PyOverflowError::new_err("getservbyport: port must be 0-65535."))?;
    audit(py, "socket.getservbyport", (port, protocol.unwrap_or("")))?;
    py.detach(|| sock::getservbyport(number, protocol)).py(py)
}

#[pyfunction]
#[pyo3(signature = (name, /))]
pub(crate) fn getprotobyname(py: Python<'_>, name: &str) -> PyResult<i32> {
    py.detach(|| sock::getprotobyname(name)).py(py)
}

#[pyfunction]
#[pyo3(signature = ())]
pub(crate) fn if_nameindex(py: Python<'_>) -> PyResult<Vec<(u32, String)>> {
    py.detach(sock::if_nameindex).py(py)
}

#[pyfunction]
#[pyo3(signature = (name, /))]
pub(crate) fn if_nametoindex(py: Python<'_>, name: &Bound<'_, PyAny>) -> PyResult<u32> {
    let name = String::from_utf8(address::file_name(name)?)
        .map_err(|_| PyOSError::new_err("no interface with this name"))?;
    py.detach(|| sock::if_nametoindex(&name)).py(py)
}

#[pyfunction]
#[pyo3(signature = (index, /))]
pub(crate) fn if_indextoname(py: Python<'_>, index: u32) -> PyResult<String> {
    py.detach(|| sock::if_indextoname(index)).py(py)
}
