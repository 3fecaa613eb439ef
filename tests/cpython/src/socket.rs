//! The type `socket`: creation, close, addresses, blocking mode, options.

use std::os::fd::IntoRawFd;
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::{PyOSError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat, PyTuple};
use sock::{AF_INET, AF_VSOCK, FromFdError, SHUT_RD, SHUT_RDWR, SHUT_WR, SOCK_STREAM, Socket};

use crate::address::{self, Given};
use crate::errors::{self, IntoPython};
use crate::raw::{self, Buffer, Mirror};
use crate::seconds;

/// A socket object, which exists before the socket is opened and after it is closed. `_ssl` reads its
/// memory, so the mirror is the first field.
#[pyclass(name = "socket", module = "_socket", subclass, frozen, immutable_type)]
#[repr(C)]
pub(crate) struct PySocket {
    mirror: Mirror,
    held: Mutex<Option<Arc<Socket>>>,
}

impl PySocket {
    pub(crate) fn empty() -> PySocket {
        PySocket { mirror: Mirror::new(), held: Mutex::new(None) }
    }

    pub(crate) fn holding(sock: Socket) -> PySocket {
        let empty = PySocket::empty();
        empty.hold(sock);
        empty
    }

    fn hold(&self, sock: Socket) {
        self.mirror.show(&sock);
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(sock));
    }

    pub(crate) fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// The open socket. A call keeps it open even if another thread closes it.
    pub(crate) fn open(&self, py: Python<'_>) -> PyResult<Arc<Socket>> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.clone().ok_or_else(|| errors::closed(py))
    }

    fn take(&self) -> Option<Arc<Socket>> {
        self.mirror.show_closed();
        self.held.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn address<'py>(&self, caller: &str, address: &Bound<'py, PyAny>) -> PyResult<Given> {
        address::from_python(caller, (self.mirror.family(), self.mirror.proto()), address)
    }
}

/// Calls the hooks of `sys.addaudithook`.
pub(crate) fn audit<'py>(
    py: Python<'py>,
    event: &str,
    arguments: impl IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>, Error: Into<PyErr>>,
) -> PyResult<()> {
    let mut all = vec![event.into_pyobject(py)?.into_any()];
    all.extend(arguments.into_pyobject(py).map_err(Into::into)?.iter());
    py.import("sys")?.call_method1("audit", PyTuple::new(py, all)?).map(drop)
}

#[pymethods]
impl PySocket {
    /// Accepts any arguments for subclasses. `__init__` opens the socket.
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PySocket {
        PySocket::empty()
    }

    #[pyo3(signature = (family = -1, r#type = -1, proto = -1, fileno = None))]
    fn __init__(
        this: &Bound<'_, Self>,
        family: i32,
        r#type: i32,
        proto: i32,
        fileno: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let py = this.py();
        audit(py, "socket.__new__", (this, family, r#type, proto))?;
        let given = |number: i32| (number != -1).then_some(number);
        let sock = match fileno.filter(|fileno| !fileno.is_none()) {
            None => {
                let family = given(family).map_or(AF_INET, Into::into);
                let kind = given(r#type).map_or(SOCK_STREAM, Into::into);
                py.detach(|| Socket::new(family, kind, given(proto).unwrap_or(0))).py(py)?
            }
            Some(fileno) => {
                if fileno.is_instance_of::<PyFloat>() {
                    return Err(PyTypeError::new_err("integer argument expected, got float"));
                }
                let fd = raw::take_descriptor(fileno.extract()?)
                    .ok_or_else(|| PyValueError::new_err("negative file descriptor"))?;
                let (family, kind) = (given(family).map(Into::into), given(r#type).map(Into::into));
                match py.detach(|| Socket::from_fd(fd, family, kind, given(proto))) {
                    Ok(sock) => sock,
                    Err(FromFdError { error, fd }) => {
                        // The caller keeps the descriptor.
                        let _ = fd.into_raw_fd();
                        return Err(errors::raise(py, &error));
                    }
                }
            }
        };
        this.get().hold(sock);
        Ok(())
    }

    fn __repr__(&self) -> String {
        let mirror = &self.mirror;
        let (fd, family, kind, proto) = (mirror.fd(), mirror.family(), mirror.kind(), mirror.proto());
        format!("<socket object, fd={fd}, family={family}, type={kind}, proto={proto}>")
    }

    fn __del__(this: &Bound<'_, Self>) -> PyResult<()> {
        if this.get().mirror.fd() == -1 {
            return Ok(());
        }
        let warned = raw::warn_unclosed(this.as_any());
        let _ = this.get().close(this.py());
        // If warnings are errors, no code can catch it here.
        if let Err(error) = warned {
            error.write_unraisable(this.py(), Some(this.as_any()));
        }
        Ok(())
    }

    fn _accept(&self, py: Python<'_>) -> PyResult<(i32, Py<PyAny>)> {
        let sock = self.open(py)?;
        let (accepted, address) = py.detach(|| sock.accept()).py(py)?;
        let address = address::to_python(py, &address, sock.proto())?;
        Ok((accepted.detach().into_raw_fd(), address))
    }

    fn bind(this: &Bound<'_, Self>, address: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = this.py();
        let given = this.get().address("bind", address)?;
        audit(py, "socket.bind", (this, address))?;
        let sock = this.get().open(py)?;
        py.detach(|| sock.bind(given)).py(py)
    }

    pub(crate) fn close(&self, py: Python<'_>) -> PyResult<()> {
        match self.take().map(Arc::try_unwrap) {
            Some(Ok(sock)) => py.detach(|| sock.close()).py(py),
            // A call of another thread still uses it, and closes it at its end.
            Some(Err(_)) | None => Ok(()),
        }
    }

    fn connect(this: &Bound<'_, Self>, address: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = this.py();
        let given = this.get().address("connect", address)?;
        audit(py, "socket.connect", (this, address))?;
        let sock = this.get().open(py)?;
        py.detach(|| sock.connect(given)).py(py)
    }

    fn connect_ex(this: &Bound<'_, Self>, address: &Bound<'_, PyAny>) -> PyResult<i32> {
        let py = this.py();
        let given = this.get().address("connect_ex", address)?;
        audit(py, "socket.connect", (this, address))?;
        let sock = match this.get().open(py) {
            Ok(sock) => sock,
            Err(_) => return Ok(libc::EBADF),
        };
        py.detach(|| sock.connect_ex(given)).py(py)
    }

    fn detach(&self) -> i32 {
        match self.take().map(Arc::try_unwrap) {
            None => -1,
            Some(Ok(sock)) => sock.detach().into_raw_fd(),
            Some(Err(shared)) => {
                // A call of another thread still uses it, and must not close it.
                let fd = shared.fileno();
                std::mem::forget(shared);
                fd
            }
        }
    }

    fn fileno(&self) -> i32 {
        self.mirror.fd()
    }

    fn getpeername(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let sock = self.open(py)?;
        address::to_python(py, &py.detach(|| sock.getpeername()).py(py)?, sock.proto())
    }

    fn getsockname(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let sock = self.open(py)?;
        address::to_python(py, &py.detach(|| sock.getsockname()).py(py)?, sock.proto())
    }

    #[pyo3(signature = (backlog = None, /))]
    fn listen(&self, py: Python<'_>, backlog: Option<i32>) -> PyResult<()> {
        let sock = self.open(py)?;
        py.detach(|| sock.listen(backlog)).py(py)
    }

    fn shutdown(&self, py: Python<'_>, how: i32) -> PyResult<()> {
        let sock = self.open(py)?;
        let how = match how {
            0 => SHUT_RD,
            1 => SHUT_WR,
            2 => SHUT_RDWR,
            _ => return Err(errors::os_error(py, libc::EINVAL)),
        };
        py.detach(|| sock.shutdown(how)).py(py)
    }
}

/// The blocking mode.
#[pymethods]
impl PySocket {
    fn settimeout(&self, py: Python<'_>, timeout: &Bound<'_, PyAny>) -> PyResult<()> {
        let timeout = seconds::parse(timeout)?;
        let sock = self.open(py)?;
        sock.settimeout(timeout).py(py)?;
        self.mirror.show(&sock);
        Ok(())
    }

    fn setblocking(&self, py: Python<'_>, flag: i64) -> PyResult<()> {
        let sock = self.open(py)?;
        sock.setblocking(flag != 0).py(py)?;
        self.mirror.show(&sock);
        Ok(())
    }

    fn gettimeout(&self) -> Option<f64> {
        seconds::show(self.mirror.timeout())
    }

    fn getblocking(&self) -> bool {
        self.mirror.timeout() != Some(0)
    }

    #[getter]
    fn timeout(&self) -> Option<f64> {
        self.gettimeout()
    }

    #[getter]
    fn family(&self) -> i32 {
        self.mirror.family()
    }

    #[getter]
    fn r#type(&self) -> i32 {
        self.mirror.kind()
    }

    #[getter]
    fn proto(&self) -> i32 {
        self.mirror.proto()
    }
}

/// Options.
#[pymethods]
impl PySocket {
    #[pyo3(signature = (level, option, buflen = 0, /))]
    fn getsockopt<'py>(
        &self,
        py: Python<'py>,
        level: i32,
        option: i32,
        buflen: i32,
    ) -> PyResult<Bound<'py, PyAny>> {
        let sock = self.open(py)?;
        if buflen == 0 {
            // The options of vsock have 64 bits.
            if sock.family() == AF_VSOCK {
                let bytes = py.detach(|| sock.getsockopt_bytes(level, option, 8)).py(py)?;
                let mut value = [0; 8];
                value[..bytes.len()].copy_from_slice(&bytes);
                return Ok(u64::from_ne_bytes(value).into_pyobject(py)?.into_any());
            }
            let value = py.detach(|| sock.getsockopt(level, option)).py(py)?;
            return Ok(value.into_pyobject(py)?.into_any());
        }
        let out_of_range = || PyOSError::new_err("getsockopt buflen out of range");
        let buflen = usize::try_from(buflen).ok().filter(|len| *len <= 1024).ok_or_else(out_of_range)?;
        let bytes = py.detach(|| sock.getsockopt_bytes(level, option, buflen)).py(py)?;
        Ok(pyo3::types::PyBytes::new(py, &bytes).into_any())
    }

    #[pyo3(signature = (level, option, value, optlen = None, /))]
    fn setsockopt(
        &self,
        py: Python<'_>,
        level: i32,
        option: i32,
        value: &Bound<'_, PyAny>,
        optlen: Option<u32>,
    ) -> PyResult<()> {
        let sock = self.open(py)?;
        if let Some(optlen) = optlen {
            if !value.is_none() {
                let name = value.get_type().name()?.to_string();
                let text = format!("setsockopt() argument 3 must be None, not {name}");
                return Err(PyTypeError::new_err(text));
            }
            return py.detach(|| sock.setsockopt_null(level, option, optlen)).py(py);
        }
        // An int, or a bytes-like object.
        match value.extract::<i64>() {
            Ok(wide) if sock.family() == AF_VSOCK => {
                py.detach(|| sock.setsockopt(level, option, &wide.to_ne_bytes())).py(py)
            }
            Ok(_) => {
                let value: i32 = value.extract()?;
                py.detach(|| sock.setsockopt(level, option, value)).py(py)
            }
            Err(error) if error.is_instance_of::<PyTypeError>(py) => {
                let buffer = Buffer::readable(value)?;
                let bytes = buffer.bytes();
                py.detach(|| sock.setsockopt(level, option, bytes)).py(py)
            }
            Err(error) => Err(error),
        }
    }
}
