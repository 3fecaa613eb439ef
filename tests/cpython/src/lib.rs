//! CPython's `_socket` over `sock`, so that CPython's own tests run on `sock`.
//!
//! It only converts values and exceptions. It makes no decision by errno, has no loop around a call,
//! does not wait, and does not parse addresses. `sock` does all of that.
//!
//! | file | what it converts |
//! | --- | --- |
//! | `socket.rs`, `transfer.rs`, `message.rs` | the type `socket` |
//! | `address.rs`, `seconds.rs`, `errors.rs` | addresses, timeouts, exceptions |
//! | `resolver.rs`, `functions.rs` | the module's functions |
//! | `python_half.rs` | members of Lib/socket.py that are Python there |
//! | `raw.rs` | buffers, descriptors, and the memory `_ssl` reads |

mod address;
mod errors;
mod functions;
mod message;
mod python_half;
mod raw;
mod resolver;
mod seconds;
mod socket;
mod transfer;

use pyo3::exceptions::{PyOSError, PyTimeoutError};
use pyo3::prelude::*;
use pyo3::types::PyModule;

use socket::PySocket;

#[pymodule]
fn _socket(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    sock::set_interrupt_hook(Some(raw::run_signal_handlers));

    let sock_type = py.get_type::<PySocket>();
    module.add("socket", &sock_type)?;
    module.add("SocketType", &sock_type)?;
    module.add("error", py.get_type::<PyOSError>())?;
    module.add("timeout", py.get_type::<PyTimeoutError>())?;
    module.add("gaierror", py.get_type::<errors::gaierror>())?;
    module.add("herror", py.get_type::<errors::herror>())?;
    module.add("has_ipv6", true)?;
    module.add("CAPI", raw::capsule(py)?)?;
    for (name, value) in sock::constants() {
        module.add(name, value)?;
    }
    resolver(module)?;
    functions::add(module)?;
    module.add("_python_half", python_half::module(py)?)?;
    // The real module has no `__all__`, and `from _socket import *` would use it.
    module.delattr("__all__")
}

fn resolver(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(resolver::getaddrinfo, module)?)?;
    module.add_function(wrap_pyfunction!(resolver::getnameinfo, module)?)?;
    module.add_function(wrap_pyfunction!(resolver::gethostbyname, module)?)?;
    module.add_function(wrap_pyfunction!(resolver::gethostbyname_ex, module)?)?;
    module.add_function(wrap_pyfunction!(resolver::gethostbyaddr, module)?)?;
    module.add_function(wrap_pyfunction!(resolver::gethostname, module)?)?;
    module.add_function(wrap_pyfunction!(resolver::sethostname, module)?)?;
    module.add_function(wrap_pyfunction!(resolver::getservbyname, module)?)?;
    module.add_function(wrap_pyfunction!(resolver::getservbyport, module)?)?;
    module.add_function(wrap_pyfunction!(resolver::getprotobyname, module)?)?;
    module.add_function(wrap_pyfunction!(resolver::if_nameindex, module)?)?;
    module.add_function(wrap_pyfunction!(resolver::if_nametoindex, module)?)?;
    module.add_function(wrap_pyfunction!(resolver::if_indextoname, module)?)
}
