//! The code that needs `unsafe`: buffers of Python objects, descriptors as numbers, and the memory that
//! `_ssl` reads.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_void};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicI32, AtomicI64, Ordering};

use pyo3::exceptions::{PyOSError, PyResourceWarning, PyTimeoutError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::errors;
use crate::socket::PySocket;

/// The bytes of a Python object, held while this value lives.
pub(crate) struct Buffer(Box<ffi::Py_buffer>);

impl Buffer {
    /// Converts like the format `y*`: any bytes-like object.
    pub(crate) fn readable(object: &Bound<'_, PyAny>) -> PyResult<Buffer> {
        Buffer::get(object, ffi::PyBUF_SIMPLE)
    }

    /// Converts like the format `w*`: any writable bytes-like object.
    pub(crate) fn writable(object: &Bound<'_, PyAny>) -> PyResult<Buffer> {
        Buffer::get(object, ffi::PyBUF_WRITABLE).map_err(|_| {
            let name =
                object.get_type().name().map_or_else(|_| "object".to_owned(), |name| name.to_string());
            PyTypeError::new_err(format!("a read-write bytes-like object is required, not {name}"))
        })
    }

    fn get(object: &Bound<'_, PyAny>, flags: c_int) -> PyResult<Buffer> {
        let mut view = Box::new(MaybeUninit::<ffi::Py_buffer>::zeroed());
        // SAFETY: the object is alive, and the view does not move until it is released.
        if unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), view.as_mut_ptr(), flags) } != 0 {
            return Err(PyErr::fetch(object.py()));
        }
        // SAFETY: the call above filled it.
        Ok(Buffer(unsafe { view.assume_init() }))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len as usize
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self.len() {
            0 => &[],
            // SAFETY: Python does not move this memory until the view is released. Python code may
            // write to it meanwhile, as it may while C reads it.
            len => unsafe { slice::from_raw_parts(self.0.buf.cast(), len) },
        }
    }

    /// Returns the bytes of a [`writable`](Buffer::writable) buffer.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        assert_eq!(self.0.readonly, 0, "asked for as writable");
        match self.len() {
            0 => &mut [],
            // SAFETY: as above, and it was requested as writable.
            len => unsafe { slice::from_raw_parts_mut(self.0.buf.cast(), len) },
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: PyObject_GetBuffer filled it, and an attached thread drops it, because a view
        // cannot be moved to another thread.
        unsafe { ffi::PyBuffer_Release(&mut *self.0) };
    }
}

/// Takes ownership of a descriptor that Python code passes as a number.
pub(crate) fn take_descriptor(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: Python code that passes a number as a socket gives up its ownership.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Borrows a descriptor that Python code passes as a number.
pub(crate) fn lend_descriptor<'a>(fd: RawFd) -> Option<BorrowedFd<'a>> {
    // SAFETY: Python code is responsible for its numbers. A wrong one fails with EBADF.
    (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
}

/// The fields that `_ssl` reads after the head of a socket object (`PySocketSockObject` of CPython
/// 3.11's socketmodule.h), copied from the socket.
#[repr(C)]
pub(crate) struct Mirror {
    fd: AtomicI32,
    family: AtomicI32,
    kind: AtomicI32,
    proto: AtomicI32,
    error_handler: extern "C" fn() -> *mut ffi::PyObject,
    /// Nanoseconds; -1 for none.
    timeout: AtomicI64,
}

impl Mirror {
    pub(crate) fn new() -> Mirror {
        Mirror {
            fd: AtomicI32::new(-1),
            family: AtomicI32::new(0),
            kind: AtomicI32::new(0),
            proto: AtomicI32::new(0),
            error_handler: set_error,
            timeout: AtomicI64::new(-1),
        }
    }

    pub(crate) fn show(&self, sock: &sock::Socket) {
        self.family.store(sock.family().as_raw(), Ordering::Relaxed);
        self.kind.store(sock.kind().as_raw(), Ordering::Relaxed);
        self.proto.store(sock.proto(), Ordering::Relaxed);
        let timeout =
            sock.gettimeout().map(|timeout| i64::try_from(timeout.as_nanos()).unwrap_or(i64::MAX));
        self.timeout.store(timeout.unwrap_or(-1), Ordering::Relaxed);
        self.fd.store(sock.fileno(), Ordering::Release);
    }

    pub(crate) fn show_closed(&self) {
        self.fd.store(-1, Ordering::Release);
    }

    pub(crate) fn fd(&self) -> i32 {
        self.fd.load(Ordering::Acquire)
    }

    pub(crate) fn family(&self) -> i32 {
        self.family.load(Ordering::Relaxed)
    }

    pub(crate) fn kind(&self) -> i32 {
        self.kind.load(Ordering::Relaxed)
    }

    pub(crate) fn proto(&self) -> i32 {
        self.proto.load(Ordering::Relaxed)
    }

    /// Nanoseconds, `None` for none.
    pub(crate) fn timeout(&self) -> Option<u64> {
        u64::try_from(self.timeout.load(Ordering::Relaxed)).ok()
    }
}

/// Called by `_ssl` when one of its reads or writes has failed.
extern "C" fn set_error() -> *mut ffi::PyObject {
    // SAFETY: `_ssl` is attached when it calls this, and errno is that of its call.
    unsafe { ffi::PyErr_SetFromErrno(ffi::PyExc_OSError) }
}

/// `PySocketModule_APIObject` of CPython's socketmodule.h.
#[repr(C)]
struct Api {
    sock_type: *mut ffi::PyObject,
    error: *mut ffi::PyObject,
    timeout_error: *mut ffi::PyObject,
}

const CAPSULE: &CStr = c"_socket.CAPI";

/// The objects that `_ssl` imports: the type of sockets, and two exceptions.
pub(crate) fn capsule<'py>(py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
    check_layout(py)?;
    let api = Api {
        sock_type: py.get_type::<PySocket>().into_ptr().cast(),
        error: py.get_type::<PyOSError>().into_ptr().cast(),
        timeout_error: py.get_type::<PyTimeoutError>().into_ptr().cast(),
    };
    let api = Box::into_raw(Box::new(api)).cast::<c_void>();
    // SAFETY: the object is never freed, like the static in CPython, and the name is static too.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyCapsule_New(api, CAPSULE.as_ptr(), None)) }
}

/// Returns whether a socket object has the layout that `_ssl` expects: the head, then the mirror.
fn check_layout(py: Python<'_>) -> PyResult<()> {
    let object = Bound::new(py, PySocket::empty())?;
    let head = object.as_ptr() as usize;
    let behind = ptr::from_ref(object.get().mirror()) as usize - head;
    assert_eq!(behind, size_of::<ffi::PyObject>(), "the mirror is behind the object's head");
    assert_eq!(std::mem::offset_of!(Mirror, timeout), 24, "the fields are CPython's");
    Ok(())
}

/// `PyErr_ResourceWarning(source, 1, "unclosed %R", source)`.
pub(crate) fn warn_unclosed(source: &Bound<'_, PyAny>) -> PyResult<()> {
    static WARN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = source.py();
    let warn =
        WARN.get_or_try_init(py, || PyResult::Ok(py.import("warnings")?.getattr("warn")?.unbind()))?;
    let text = format!("unclosed {}", source.repr()?);
    warn.call1(py, (text, py.get_type::<PyResourceWarning>(), 1, source)).map(drop)
}

/// Runs Python's signal handlers. An exception is stored in this thread for [`errors::raise`].
pub(crate) fn run_signal_handlers() -> bool {
    Python::attach(|py| match py.check_signals() {
        Ok(()) => true,
        Err(raised) => {
            errors::leave(py, raised);
            false
        }
    })
}
