//! Converts `sock`'s errors to Python's exceptions.

use std::io;

use pyo3::exceptions::{
    PyKeyboardInterrupt, PyMemoryError, PyOSError, PyOverflowError, PyTimeoutError, PyTypeError,
    PyValueError,
};
use pyo3::prelude::*;
use sock::{ArgumentError, ArgumentFault, GaiError, HostError};

pub(crate) use exceptions::{gaierror, herror};

#[allow(non_camel_case_types, reason = "Python's names")]
mod exceptions {
    use pyo3::create_exception;
    use pyo3::exceptions::PyOSError;

    create_exception!(socket, gaierror, PyOSError);
    create_exception!(socket, herror, PyOSError);
}

/// The exception for an error.
pub(crate) fn raise(py: Python<'_>, error: &io::Error) -> PyErr {
    if sock::was_interrupted(error) {
        // The interrupt hook stored the exception here.
        return PyErr::take(py).unwrap_or_else(|| PyKeyboardInterrupt::new_err(()));
    }
    if let Some(gai) = GaiError::of(error) {
        return gaierror::new_err((gai.code(), gai.text()));
    }
    if let Some(host) = HostError::of(error) {
        return herror::new_err((host.code(), host.text()));
    }
    let text = error.to_string();
    match ArgumentError::of(error).map(ArgumentError::fault) {
        Some(ArgumentFault::Value) => return PyValueError::new_err(text),
        Some(ArgumentFault::Range) => return PyOverflowError::new_err(text),
        Some(ArgumentFault::Type) => return PyTypeError::new_err(text),
        _ => {}
    }
    match (error.raw_os_error(), error.kind()) {
        (Some(number), _) => os_error(py, number),
        (None, io::ErrorKind::TimedOut) => PyTimeoutError::new_err("timed out"),
        (None, io::ErrorKind::OutOfMemory) => PyMemoryError::new_err(()),
        // An errno with a message of `sock`, or no errno.
        (None, _) => match sock::errno(error) {
            Some(number) => PyOSError::new_err((number, text)),
            None => PyOSError::new_err(text),
        },
    }
}

/// `OSError` chooses its subclass by the errno.
pub(crate) fn os_error(py: Python<'_>, number: i32) -> PyErr {
    let text = py.import("os").and_then(|os| os.call_method1("strerror", (number,)));
    match text {
        Ok(text) => PyOSError::new_err((number, text.unbind())),
        Err(error) => error,
    }
}

/// The error of every call on a closed socket.
pub(crate) fn closed(py: Python<'_>) -> PyErr {
    os_error(py, libc::EBADF)
}

/// Stores an exception for [`raise`].
pub(crate) fn leave(py: Python<'_>, raised: PyErr) {
    raised.restore(py);
}

/// Allows `….py(py)?` at the end of a call.
pub(crate) trait IntoPython<T> {
    fn py(self, py: Python<'_>) -> PyResult<T>;
}

impl<T> IntoPython<T> for io::Result<T> {
    fn py(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|error| raise(py, &error))
    }
}
