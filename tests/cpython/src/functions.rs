//! The module's other functions: socket pairs, descriptors, byte order, addresses as text.

use std::os::fd::IntoRawFd;

use pyo3::exceptions::{PyOSError, PyOverflowError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyModule};

use crate::errors::{self, IntoPython};
use crate::raw::{self, Buffer};
use crate::seconds;
use crate::socket::PySocket;

pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(socketpair, module)?)?;
    module.add_function(wrap_pyfunction!(dup, module)?)?;
    module.add_function(wrap_pyfunction!(close, module)?)?;
    module.add_function(wrap_pyfunction!(getdefaulttimeout, module)?)?;
    module.add_function(wrap_pyfunction!(setdefaulttimeout, module)?)?;
    module.add_function(wrap_pyfunction!(htons, module)?)?;
    module.add_function(wrap_pyfunction!(ntohs, module)?)?;
    module.add_function(wrap_pyfunction!(htonl, module)?)?;
    module.add_function(wrap_pyfunction!(ntohl, module)?)?;
    module.add_function(wrap_pyfunction!(inet_aton, module)?)?;
    module.add_function(wrap_pyfunction!(inet_ntoa, module)?)?;
    module.add_function(wrap_pyfunction!(inet_pton, module)?)?;
    module.add_function(wrap_pyfunction!(inet_ntop, module)?)?;
    module.add_function(wrap_pyfunction!(cmsg_len, module)?)?;
    module.add_function(wrap_pyfunction!(cmsg_space, module)?)
}

#[pyfunction]
#[pyo3(signature = (family = None, r#type = 1, proto = 0, /))]
fn socketpair(
    py: Python<'_>,
    family: Option<i32>,
    r#type: i32,
    proto: i32,
) -> PyResult<(PySocket, PySocket)> {
    let family = family.map_or(sock::AF_UNIX, Into::into);
    let (one, other) = py.detach(|| sock::socketpair_with(family, r#type.into(), proto)).py(py)?;
    Ok((PySocket::holding(one), PySocket::holding(other)))
}

#[pyfunction]
#[pyo3(signature = (fd, /))]
fn dup(py: Python<'_>, fd: i32) -> PyResult<i32> {
    let fd = raw::lend_descriptor(fd).ok_or_else(|| errors::closed(py))?;
    Ok(sock::dup(fd).py(py)?.into_raw_fd())
}

#[pyfunction]
#[pyo3(signature = (fd, /))]
fn close(py: Python<'_>, fd: i32) -> PyResult<()> {
    let fd = raw::take_descriptor(fd).ok_or_else(|| errors::closed(py))?;
    py.detach(|| sock::close(fd)).py(py)
}

#[pyfunction]
#[pyo3(signature = ())]
fn getdefaulttimeout() -> Option<f64> {
    let timeout = sock::getdefaulttimeout();
    seconds::show(timeout.map(|timeout| u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX)))
}

#[pyfunction]
#[pyo3(signature = (timeout, /))]
fn setdefaulttimeout(py: Python<'_>, timeout: &Bound<'_, PyAny>) -> PyResult<()> {
    sock::setdefaulttimeout(seconds::parse(timeout)?).py(py)
}

#[pyfunction]
#[pyo3(signature = (x, /))]
fn htons(x: u16) -> u16 {
    sock::htons(x)
}

#[pyfunction]
#[pyo3(signature = (x, /))]
fn ntohs(x: u16) -> u16 {
    sock::ntohs(x)
}

#[pyfunction]
#[pyo3(signature = (x, /))]
fn htonl(x: u32) -> u32 {
    sock::htonl(x)
}

#[pyfunction]
#[pyo3(signature = (x, /))]
fn ntohl(x: u32) -> u32 {
    sock::ntohl(x)
}

#[pyfunction]
#[pyo3(signature = (text, /))]
fn inet_aton<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyBytes>> {
    // C sets no errno, but Python raises OSError.
    let packed = sock::inet_aton(text).map_err(|error| PyOSError::new_err(error.to_string()))?;
    Ok(PyBytes::new(py, &packed))
}

#[pyfunction]
#[pyo3(signature = (packed, /))]
fn inet_ntoa(packed: &Bound<'_, PyAny>) -> PyResult<String> {
    let packed = Buffer::readable(packed)?;
    sock::inet_ntoa(packed.bytes()).map_err(|error| PyOSError::new_err(error.to_string()))
}

#[pyfunction]
#[pyo3(signature = (family, text, /))]
fn inet_pton<'py>(py: Python<'py>, family: i32, text: &str) -> PyResult<Bound<'py, PyBytes>> {
    match sock::inet_pton(family.into(), text) {
        Ok(packed) => Ok(PyBytes::new(py, &packed)),
        Err(error) if sock::errno(&error).is_some() => Err(errors::raise(py, &error)),
        Err(error) => Err(PyOSError::new_err(error.to_string())),
    }
}

#[pyfunction]
#[pyo3(signature = (family, packed, /))]
fn inet_ntop(family: i32, packed: &Bound<'_, PyAny>) -> PyResult<String> {
    let packed = Buffer::readable(packed)?;
    // An unknown family is a ValueError here, unlike in inet_pton.
    sock::inet_ntop(family.into(), packed.bytes()).map_err(|error| PyValueError::new_err(error.to_string()))
}

#[pyfunction]
#[pyo3(name = "CMSG_LEN", signature = (length, /))]
fn cmsg_len(py: Python<'_>, length: isize) -> PyResult<usize> {
    sock::CMSG_LEN(positive(length)?).py(py)
}

#[pyfunction]
#[pyo3(name = "CMSG_SPACE", signature = (length, /))]
fn cmsg_space(py: Python<'_>, length: isize) -> PyResult<usize> {
    sock::CMSG_SPACE(positive(length)?).py(py)
}

fn positive(length: isize) -> PyResult<usize> {
    usize::try_from(length).map_err(|_| PyOverflowError::new_err("argument out of range"))
}
