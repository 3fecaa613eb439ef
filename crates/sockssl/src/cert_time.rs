//! Formats points in time the way Python's certificate dictionaries do.

use std::time::{Duration, SystemTime};

/// Formats a point in time as certificates have it in Python: `Jan  5 09:34:43 2018 GMT`.
///
/// Python: the format that `ssl.cert_time_to_seconds` reads.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_515_144_883);
/// assert_eq!(sockssl::cert_time(time), "Jan  5 09:34:43 2018 GMT");
/// ```
#[must_use]
pub fn cert_time(time: SystemTime) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let Ok(time) = x509_cert::der::DateTime::from_system_time(time) else {
        return "a time out of range".into();
    };
    let month = MONTHS.get(usize::from(time.month()).wrapping_sub(1)).copied().unwrap_or("???");
    let (day, year) = (time.day(), time.year());
    format!("{month} {day:2} {:02}:{:02}:{:02} {year} GMT", time.hour(), time.minutes(), time.seconds())
}

/// Formats seconds since 1970 in the same way.
pub(crate) fn cert_time_of(seconds: u64) -> String {
    cert_time(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}
