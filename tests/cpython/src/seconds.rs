//! Converts timeouts between Python's seconds and durations.

use std::time::Duration;

use pyo3::exceptions::{PyOverflowError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyFloat;

/// Converts the argument of `settimeout`.
pub(crate) fn parse(value: &Bound<'_, PyAny>) -> PyResult<Option<Duration>> {
    if value.is_none() {
        return Ok(None);
    }
    let too_large = || PyOverflowError::new_err("timestamp out of range for platform time_t");
    let nanoseconds = if let Ok(float) = value.cast::<PyFloat>() {
        let seconds = float.value();
        if seconds.is_nan() {
            return Err(PyValueError::new_err("Invalid value NaN (not a number)"));
        }
        // Rounded up, so that a short timeout does not become zero.
        let nanoseconds = (seconds * 1e9).ceil();
        if !(i64::MIN as f64..i64::MAX as f64).contains(&nanoseconds) {
            return Err(too_large());
        }
        nanoseconds as i64
    } else {
        value.extract::<i64>()?.checked_mul(1_000_000_000).ok_or_else(too_large)?
    };
    let nanoseconds =
        u64::try_from(nanoseconds).map_err(|_| PyValueError::new_err("Timeout value out of range"))?;
    Ok(Some(Duration::from_nanos(nanoseconds)))
}

/// Converts the result of `gettimeout`.
pub(crate) fn show(nanoseconds: Option<u64>) -> Option<f64> {
    const SECOND: u64 = 1_000_000_000;
    nanoseconds.map(|nanoseconds| match nanoseconds % SECOND {
        0 => (nanoseconds / SECOND) as f64,
        _ => nanoseconds as f64 / 1e9,
    })
}
