//! `sendmsg`, `recvmsg`, `recvmsg_into`.

use std::ffi::CString;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::IntoRawFd;

use pyo3::exceptions::{PyRuntimeWarning, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PySequence};
use sock::{Ancillary, Message, MessageInto, SCM_RIGHTS, SOL_SOCKET};

use crate::address;
use crate::errors::IntoPython;
use crate::raw::{Buffer, lend_descriptor};
use crate::socket::{PySocket, audit};
use crate::transfer::size;

type Received<'py, T> = (T, Bound<'py, PyList>, i32, Py<PyAny>);

#[pymethods]
impl PySocket {
    #[pyo3(signature = (bufsize, ancbufsize = 0, flags = 0, /))]
    fn recvmsg<'py>(
        &self,
        py: Python<'py>,
        bufsize: isize,
        ancbufsize: isize,
        flags: i32,
    ) -> PyResult<Received<'py, Bound<'py, PyBytes>>> {
        let bufsize = size(bufsize, "negative buffer size in recvmsg()")?;
        let ancbufsize = size(ancbufsize, "invalid ancillary data buffer length")?;
        let sock = self.open(py)?;
        let Message { data, ancillary, flags, address, .. } =
            py.detach(|| sock.recvmsg_with_flags(bufsize, ancbufsize, flags.into())).py(py)?;
        let address = address::to_python(py, &address, sock.proto())?;
        Ok((PyBytes::new(py, &data), list(py, ancillary)?, flags.as_raw(), address))
    }

    #[pyo3(signature = (buffers, ancbufsize = 0, flags = 0, /))]
    fn recvmsg_into<'py>(
        &self,
        py: Python<'py>,
        buffers: &Bound<'_, PyAny>,
        ancbufsize: isize,
        flags: i32,
    ) -> PyResult<Received<'py, usize>> {
        let mut buffers =
            buffers.try_iter()?.map(|buffer| Buffer::writable(&buffer?)).collect::<PyResult<Vec<_>>>()?;
        let ancbufsize = size(ancbufsize, "invalid ancillary data buffer length")?;
        let mut slices: Vec<_> =
            buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer.bytes_mut())).collect();
        let sock = self.open(py)?;
        let MessageInto { received, ancillary, flags, address, .. } =
            py.detach(|| sock.recvmsg_into_with_flags(&mut slices, ancbufsize, flags.into())).py(py)?;
        let address = address::to_python(py, &address, sock.proto())?;
        Ok((received, list(py, ancillary)?, flags.as_raw(), address))
    }

    #[pyo3(signature = (buffers, ancdata = None, flags = 0, address = None, /))]
    fn sendmsg(
        this: &Bound<'_, Self>,
        buffers: &Bound<'_, PyAny>,
        ancdata: Option<&Bound<'_, PyAny>>,
        flags: i32,
        address: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<usize> {
        let py = this.py();
        let buffers =
            buffers.try_iter()?.map(|buffer| Buffer::readable(&buffer?)).collect::<PyResult<Vec<_>>>()?;
        let slices: Vec<_> = buffers.iter().map(|buffer| IoSlice::new(buffer.bytes())).collect();
        let ancillary = match ancdata {
            Some(items) => items.try_iter()?.map(|item| item_of(&item?)).collect::<PyResult<Vec<_>>>()?,
            None => Vec::new(),
        };
        let given = address.map(|address| this.get().address("sendmsg", address)).transpose()?;
        audit(py, "socket.sendmsg", (this, address))?;
        let sock = this.get().open(py)?;
        py.detach(|| match given {
            Some(address) => sock.sendmsg_to(&slices, &ancillary, flags.into(), address),
            None => sock.sendmsg_with_flags(&slices, &ancillary, flags.into()),
        })
        .py(py)
    }
}

/// Python passes descriptors as numbers. They are borrowed for the call.
fn item_of(item: &Bound<'_, PyAny>) -> PyResult<Ancillary<'static>> {
    let wrong = || PyTypeError::new_err("[sendmsg() ancillary data items] must be sequences of length 3");
    let item = item.cast::<PySequence>().map_err(|_| wrong())?;
    if item.len()? != 3 {
        return Err(wrong());
    }
    let data = Buffer::readable(&item.get_item(2)?)?;
    let (level, kind) = (item.get_item(0)?.extract()?, item.get_item(1)?.extract()?);
    if (level, kind) != (SOL_SOCKET, SCM_RIGHTS) {
        return Ok(Ancillary::new(level, kind, data.bytes()));
    }
    let numbers = data.bytes().chunks_exact(4);
    let fds: Option<Vec<_>> = numbers
        .map(|number| lend_descriptor(i32::from_ne_bytes(number.try_into().unwrap_or_default())))
        .collect();
    let closed = || io::Error::from_raw_os_error(libc::EBADF);
    Ok(Ancillary::rights(&fds.ok_or_else(closed).py(item.py())?))
}

/// Creates the list of tuples. Python owns the descriptors once the list is complete. A failure before
/// that closes them.
fn list<'py>(py: Python<'py>, ancillary: Vec<Ancillary<'static>>) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for item in &ancillary {
        list.append((item.level(), item.kind(), PyBytes::new(py, item.data())))?;
        if item.is_truncated() {
            let text = CString::from(c"received malformed or improperly-truncated ancillary data");
            PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &text, 1)?;
        }
    }
    for descriptor in ancillary.into_iter().flat_map(Ancillary::into_descriptors) {
        let _ = descriptor.into_raw_fd();
    }
    Ok(list)
}
