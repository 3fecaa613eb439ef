//! Members of `socket` that are Python code in Lib/socket.py, from `sock` instead:
//! `python_half/sitecustomize.py` puts them in place.

use pyo3::prelude::*;
use pyo3::types::PyModule;

pub(crate) fn module(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    PyModule::new(py, "_python_half")
}
