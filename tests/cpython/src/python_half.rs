//! Replacements for members of `socket` that are Python code in Lib/socket.py. `site/python_half.py`
//! installs them.

use std::fs::File;
use std::io::{self, IoSlice, Read, Seek, SeekFrom};
use std::os::fd::IntoRawFd;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyModule};
use sock::{
    AF_UNSPEC, ConnectError, ConnectionOptions, ReceivedFds, ServerOptions, Socket, SocketReader,
    StreamSocket, ToAddress,
};

use crate::address::{self, host_of};
use crate::errors::{self, IntoPython};
use crate::raw::{self, Buffer};
use crate::seconds;
use crate::socket::PySocket;
use crate::transfer::size;

pub(crate) fn module(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    let module = PyModule::new(py, "_python_half")?;
    module.add_function(wrap_pyfunction!(readinto, &module)?)?;
    module.add_function(wrap_pyfunction!(write, &module)?)?;
    module.add_function(wrap_pyfunction!(sendfile, &module)?)?;
    module.add_function(wrap_pyfunction!(sendfile_from, &module)?)?;
    module.add_function(wrap_pyfunction!(send_fds, &module)?)?;
    module.add_function(wrap_pyfunction!(recv_fds, &module)?)?;
    module.add_function(wrap_pyfunction!(create_server, &module)?)?;
    module.add_function(wrap_pyfunction!(create_connection, &module)?)?;
    Ok(module)
}

/// The raw file of `makefile` for reading. It never reads more than requested.
#[pyfunction]
fn readinto(sock: &Bound<'_, PySocket>, buffer: &Bound<'_, PyAny>) -> PyResult<usize> {
    let py = sock.py();
    let mut buffer = Buffer::writable(buffer)?;
    let sock = sock.get().open(py)?;
    let bytes = buffer.bytes_mut();
    py.detach(|| SocketReader::new(&*sock, 0).read(bytes)).py(py)
}

/// The raw file of `makefile` for writing. Writes may be partial.
#[pyfunction]
fn write(sock: &Bound<'_, PySocket>, data: &Bound<'_, PyAny>) -> PyResult<usize> {
    let py = sock.py();
    let data = Buffer::readable(data)?;
    let sock = sock.get().open(py)?;
    let bytes = data.bytes();
    py.detach(|| StreamSocket::send(&*sock, bytes)).py(py)
}

/// `sendfile` of a file that has a descriptor.
#[pyfunction]
fn sendfile(sock: &Bound<'_, PySocket>, fd: i32, offset: u64, count: Option<i64>) -> PyResult<u64> {
    let py = sock.py();
    let count = positive(count)?;
    let file = raw::lend_descriptor(fd).ok_or_else(|| errors::closed(py))?.try_clone_to_owned().py(py)?;
    let sock = sock.get().open(py)?;
    py.detach(|| sock.sendfile(&File::from(file), offset, count)).py(py)
}

/// `sendfile` of a file that only reads.
#[pyfunction]
fn sendfile_from(
    sock: &Bound<'_, PySocket>,
    file: &Bound<'_, PyAny>,
    offset: u64,
    count: Option<i64>,
) -> PyResult<u64> {
    let py = sock.py();
    let count = positive(count)?;
    let sock = sock.get().open(py)?;
    let mut file = PythonFile { file: file.clone().unbind(), raised: None };
    let result = py.detach(|| sock.sendfile_from(&mut file, offset, count));
    match file.raised {
        Some(raised) if result.is_err() => Err(raised),
        _ => result.py(py),
    }
}

fn positive(count: Option<i64>) -> PyResult<Option<u64>> {
    let wrong = |count| PyValueError::new_err(format!("count must be a positive integer (got {count})"));
    count.map(|count| u64::try_from(count).map_err(|_| wrong(count))).transpose()
}

/// A file object of Python, with Rust's traits.
struct PythonFile {
    file: Py<PyAny>,
    raised: Option<PyErr>,
}

impl PythonFile {
    fn call<T>(&mut self, ask: impl FnOnce(&Bound<'_, PyAny>) -> PyResult<T>) -> io::Result<T> {
        Python::attach(|py| ask(self.file.bind(py))).map_err(|raised| {
            self.raised = Some(raised);
            io::Error::other("the file object raised an exception")
        })
    }
}

impl Read for PythonFile {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.call(|file| {
            let data = Buffer::readable(&file.call_method1("read", (out.len(),))?)?;
            let data = data.bytes();
            out[..data.len()].copy_from_slice(data);
            Ok(data.len())
        })
    }
}

impl Seek for PythonFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (offset, whence) = match to {
            SeekFrom::Start(offset) => (offset as i64, 0),
            SeekFrom::Current(offset) => (offset, 1),
            SeekFrom::End(offset) => (offset, 2),
        };
        self.call(|file| file.call_method1("seek", (offset, whence))?.extract())
    }
}

#[pyfunction]
fn send_fds(
    sock: &Bound<'_, PySocket>,
    buffers: &Bound<'_, PyAny>,
    fds: Vec<i32>,
    flags: i32,
    address: Option<&Bound<'_, PyAny>>,
) -> PyResult<usize> {
    let py = sock.py();
    let buffers =
        buffers.try_iter()?.map(|buffer| Buffer::readable(&buffer?)).collect::<PyResult<Vec<_>>>()?;
    let slices: Vec<_> = buffers.iter().map(|buffer| IoSlice::new(buffer.bytes())).collect();
    let fds = fds.into_iter().map(raw::lend_descriptor).collect::<Option<Vec<_>>>();
    let fds = fds.ok_or_else(|| errors::closed(py))?;
    let address = address.map(|address| sock.get().address("sendmsg", address)).transpose()?;
    let sock = sock.get().open(py)?;
    py.detach(|| match address {
        Some(address) => sock.send_fds_to(&slices, &fds, flags.into(), address),
        None => sock.send_fds_with_flags(&slices, &fds, flags.into()),
    })
    .py(py)
}

type Received<'py> = (Bound<'py, PyBytes>, Vec<i32>, i32, Py<PyAny>);

#[pyfunction]
fn recv_fds<'py>(
    sock: &Bound<'py, PySocket>,
    bufsize: isize,
    maxfds: usize,
    flags: i32,
) -> PyResult<Received<'py>> {
    let py = sock.py();
    let bufsize = size(bufsize, "negative buffer size in recvmsg()")?;
    let sock = sock.get().open(py)?;
    let ReceivedFds { data, descriptors, flags, address, .. } =
        py.detach(|| sock.recv_fds_with_flags(bufsize, maxfds, flags.into())).py(py)?;
    let address = address::to_python(py, &address, sock.proto())?;
    let descriptors = descriptors.into_iter().map(IntoRawFd::into_raw_fd).collect();
    Ok((PyBytes::new(py, &data), descriptors, flags.as_raw(), address))
}

/// The arguments for the constructor of `socket.socket`.
type Parts = (i32, i32, i32, i32);

fn parts(sock: Socket) -> Parts {
    (sock.family().as_raw(), sock.kind().as_raw(), sock.proto(), sock.detach().into_raw_fd())
}

#[pyfunction]
fn create_server(
    py: Python<'_>,
    address: &Bound<'_, PyAny>,
    family: i32,
    backlog: Option<i32>,
    reuse_port: bool,
    dualstack_ipv6: bool,
) -> PyResult<Parts> {
    let given = address::from_python("bind", (family, 0), address)?;
    let mut options =
        ServerOptions::new().family(family.into()).reuse_port(reuse_port).dualstack_ipv6(dualstack_ipv6);
    if let Some(backlog) = backlog {
        options = options.backlog(backlog);
    }
    py.detach(|| sock::create_server_with(given, &options)).py(py).map(parts)
}

/// Returns the parts of the socket, or an exception for each address if all have failed.
#[pyfunction]
#[pyo3(signature = (host, port, source_address, *timeout))]
fn create_connection<'py>(
    py: Python<'py>,
    host: &Bound<'py, PyAny>,
    port: i64,
    source_address: Option<(Bound<'py, PyAny>, i64)>,
    timeout: Vec<Bound<'py, PyAny>>,
) -> PyResult<(Option<Parts>, Bound<'py, PyList>)> {
    let host = address::resolver_host(host)?;
    let source = source_address.map(|(host, port)| PyResult::Ok((host_of(&host)?, port))).transpose()?;
    // None is a timeout too. Without the argument the default timeout applies.
    let timeout = timeout.first().map(seconds::parse).transpose()?;
    let connected = py.detach(|| {
        let mut options = ConnectionOptions::new();
        if let Some(timeout) = timeout {
            options = options.timeout(timeout);
        }
        if let Some(source) = source {
            options = options.source_address(source.to_address(AF_UNSPEC)?);
        }
        sock::create_connection_with((host, port), &options)
    });
    let failed = PyList::empty(py);
    match connected {
        Ok(sock) => Ok((Some(parts(sock)), failed)),
        Err(error) => {
            let Some(of_each) = ConnectError::of(&error) else {
                return Err(errors::raise(py, &error));
            };
            for (_, error) in of_each.attempts() {
                failed.append(errors::raise(py, error).into_value(py))?;
            }
            Ok((None, failed))
        }
    }
}
