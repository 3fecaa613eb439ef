//! `send`, `recv` and related calls.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::address;
use crate::errors::IntoPython;
use crate::raw::Buffer;
use crate::socket::{PySocket, audit};

#[pymethods]
impl PySocket {
    #[pyo3(signature = (bufsize, flags = 0, /))]
    fn recv<'py>(&self, py: Python<'py>, bufsize: isize, flags: i32) -> PyResult<Bound<'py, PyBytes>> {
        let bufsize = size(bufsize, "negative buffersize in recv")?;
        let sock = self.open(py)?;
        let data = py.detach(|| sock.recv_with_flags(bufsize, flags.into())).py(py)?;
        Ok(PyBytes::new(py, &data))
    }

    #[pyo3(signature = (buffer, nbytes = 0, flags = 0))]
    fn recv_into(
        &self,
        py: Python<'_>,
        buffer: &Bound<'_, PyAny>,
        nbytes: isize,
        flags: i32,
    ) -> PyResult<usize> {
        let mut buffer = Buffer::writable(buffer)?;
        let part = part(&mut buffer, nbytes, "recv_into")?;
        let sock = self.open(py)?;
        py.detach(|| sock.recv_into_with_flags(part, flags.into())).py(py)
    }

    #[pyo3(signature = (bufsize, flags = 0, /))]
    fn recvfrom<'py>(
        &self,
        py: Python<'py>,
        bufsize: isize,
        flags: i32,
    ) -> PyResult<(Bound<'py, PyBytes>, Py<PyAny>)> {
        let bufsize = size(bufsize, "negative buffersize in recvfrom")?;
        let sock = self.open(py)?;
        let (data, address) = py.detach(|| sock.recvfrom_with_flags(bufsize, flags.into())).py(py)?;
        Ok((PyBytes::new(py, &data), address::to_python(py, &address, sock.proto())?))
    }

    #[pyo3(signature = (buffer, nbytes = 0, flags = 0))]
    fn recvfrom_into(
        &self,
        py: Python<'_>,
        buffer: &Bound<'_, PyAny>,
        nbytes: isize,
        flags: i32,
    ) -> PyResult<(usize, Py<PyAny>)> {
        let mut buffer = Buffer::writable(buffer)?;
        let part = part(&mut buffer, nbytes, "recvfrom_into")?;
        let sock = self.open(py)?;
        let (received, address) = py.detach(|| sock.recvfrom_into_with_flags(part, flags.into())).py(py)?;
        Ok((received, address::to_python(py, &address, sock.proto())?))
    }

    #[pyo3(signature = (data, flags = 0, /))]
    fn send(&self, py: Python<'_>, data: &Bound<'_, PyAny>, flags: i32) -> PyResult<usize> {
        let data = Buffer::readable(data)?;
        let bytes = data.bytes();
        let sock = self.open(py)?;
        py.detach(|| sock.send_with_flags(bytes, flags.into())).py(py)
    }

    #[pyo3(signature = (data, flags = 0, /))]
    fn sendall(&self, py: Python<'_>, data: &Bound<'_, PyAny>, flags: i32) -> PyResult<()> {
        let data = Buffer::readable(data)?;
        let bytes = data.bytes();
        let sock = self.open(py)?;
        py.detach(|| sock.sendall_with_flags(bytes, flags.into())).py(py)
    }

    #[pyo3(signature = (*args))]
    fn sendto(this: &Bound<'_, Self>, args: &Bound<'_, PyTuple>) -> PyResult<usize> {
        let py = this.py();
        let (flags, address) = match args.len() {
            2 => (0, args.get_item(1)?),
            3 => (args.get_item(1)?.extract()?, args.get_item(2)?),
            given => {
                let text = format!("sendto() takes 2 or 3 arguments ({given} given)");
                return Err(PyTypeError::new_err(text));
            }
        };
        let data = Buffer::readable(&args.get_item(0)?)?;
        let given = this.get().address("sendto", &address)?;
        audit(py, "socket.sendto", (this, address))?;
        let bytes = data.bytes();
        let sock = this.get().open(py)?;
        py.detach(|| sock.sendto_with_flags(bytes, i32::into(flags), given)).py(py)
    }
}

pub(crate) fn size(given: isize, otherwise: &'static str) -> PyResult<usize> {
    usize::try_from(given).map_err(|_| PyValueError::new_err(otherwise))
}

/// Returns the first `nbytes` of a buffer, all of it for 0.
fn part<'a>(buffer: &'a mut Buffer, nbytes: isize, caller: &str) -> PyResult<&'a mut [u8]> {
    let count = usize::try_from(nbytes)
        .map_err(|_| PyValueError::new_err(format!("negative buffersize in {caller}")))?;
    let bytes = buffer.bytes_mut();
    let count = if count == 0 { bytes.len() } else { count };
    bytes.get_mut(..count).ok_or_else(|| {
        PyValueError::new_err(format!("nbytes is greater than the length of the buffer in {caller}"))
    })
}
