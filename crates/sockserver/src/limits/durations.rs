//! The histogram of the time that requests take.

use std::fmt;
use std::io;
use std::time::Duration;

/// As many bounds a histogram may have.
pub(crate) const MAX_BOUNDS: usize = 20;

/// The upper bounds of the buckets, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Buckets {
    bounds: [u64; MAX_BOUNDS],
    len: usize,
}

/// The default bounds of Prometheus' client libraries.
impl Default for Buckets {
    fn default() -> Buckets {
        let mut bounds = [0; MAX_BOUNDS];
        let defaults = [5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000];
        bounds[..defaults.len()].copy_from_slice(&defaults);
        Buckets { bounds, len: defaults.len() }
    }
}

impl Buckets {
    /// Creates the buckets of these bounds.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `InvalidInput` if there are too many, or if they do not increase by
    /// a millisecond at least.
    pub(crate) fn new(bounds: impl IntoIterator<Item = Duration>) -> io::Result<Buckets> {
        let invalid = |sentence: String| io::Error::new(io::ErrorKind::InvalidInput, sentence);
        let (mut buckets, mut last) = (Buckets { bounds: [0; MAX_BOUNDS], len: 0 }, Duration::ZERO);
        for bound in bounds {
            let milliseconds = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX);
            let is_whole = Duration::from_millis(milliseconds) == bound;
            if !is_whole || bound <= last {
                return Err(invalid(format!(
                    "duration_buckets must be whole milliseconds that increase, not {bound:?} after {last:?}"
                )));
            }
            let Some(place) = buckets.bounds.get_mut(buckets.len) else {
                return Err(invalid(format!("duration_buckets must be at most {MAX_BOUNDS}")));
            };
            *place = milliseconds;
            (buckets.len, last) = (buckets.len + 1, bound);
        }
        Ok(buckets)
    }

    fn bounds(&self) -> &[u64] {
        &self.bounds[..self.len]
    }

    /// Returns the bucket of a duration. The last one is that beyond each bound.
    #[inline]
    pub(crate) fn index_of(&self, milliseconds: u64) -> usize {
        let bounds = self.bounds();
        bounds.iter().position(|bound| milliseconds <= *bound).unwrap_or(bounds.len())
    }
}

/// How long requests took: their number, the sum, and how many took no longer than each bound.
///
/// It is [`Stats::request_duration`](crate::Stats::request_duration). The bounds are those of
/// [`Builder::duration_buckets`](crate::Builder::duration_buckets).
///
/// See the example of [`DurationHistogram::buckets`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DurationHistogram {
    buckets: Buckets,
    /// How many requests are in each bucket.
    counts: [u64; MAX_BOUNDS + 1],
    /// The sum of all durations in milliseconds.
    sum: u64,
}

impl Default for DurationHistogram {
    fn default() -> DurationHistogram {
        DurationHistogram::new(Buckets::default(), [0; MAX_BOUNDS + 1], 0)
    }
}

impl DurationHistogram {
    pub(crate) fn new(buckets: Buckets, counts: [u64; MAX_BOUNDS + 1], sum: u64) -> DurationHistogram {
        DurationHistogram { buckets, counts, sum }
    }

    /// Returns the number of requests.
    ///
    /// See the example of [`DurationHistogram::buckets`].
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Returns the sum of their durations.
    ///
    /// # Examples
    ///
    /// ```
    /// let durations = sockserver::Stats::default().request_duration;
    /// let average = durations.sum().as_secs_f64() / durations.count().max(1) as f64;
    /// assert_eq!(average, 0.0);
    /// ```
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_millis(self.sum)
    }

    /// Returns the upper bound of each bucket and how many requests took no longer. The last bucket
    /// has no bound and counts all requests.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let limit = Duration::from_secs(30);
    /// let server = TCPServer::builder(handler_fn(|cx| cx.request.sendall(b"hello")))
    ///     .duration_buckets([limit])
    ///     .bind(("127.0.0.1", 0))?;
    /// let _client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// let durations = server.stats().request_duration;
    /// assert_eq!(durations.buckets().collect::<Vec<_>>(), [(Some(limit), 1), (None, 1)]);
    /// assert_eq!(durations.count(), 1);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> + '_ {
        let bounds = self.buckets.bounds().iter().map(|bound| Some(Duration::from_millis(*bound)));
        let mut sum = 0_u64;
        bounds.chain([None]).zip(self.counts).map(move |(bound, count)| {
            sum = sum.saturating_add(count);
            (bound, sum)
        })
    }
}

impl fmt::Debug for DurationHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, sum) = (self.count(), self.sum());
        f.debug_struct("DurationHistogram")
            .field("count", &count)
            .field("sum", &sum)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(bounds: &[u64]) -> io::Result<Buckets> {
        Buckets::new(bounds.iter().map(|bound| Duration::from_millis(*bound)))
    }

    #[test]
    fn a_duration_is_in_the_first_bucket_that_it_does_not_exceed() {
        let buckets = milliseconds(&[5, 10, 1000]).unwrap();
        for (duration, index) in [(0, 0), (5, 0), (6, 1), (10, 1), (11, 2), (1000, 2), (1001, 3)] {
            assert_eq!(buckets.index_of(duration), index, "{duration} ms");
        }
        assert_eq!(milliseconds(&[]).unwrap().index_of(7), 0);
    }

    #[test]
    fn bounds_increase_and_are_whole_milliseconds() {
        for bounds in [&[0][..], &[5, 5], &[10, 5]] {
            assert_eq!(milliseconds(bounds).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{bounds:?}");
        }
        assert!(Buckets::new([Duration::from_micros(1500)]).is_err());
        assert!(Buckets::new([Duration::MAX]).is_err());
        let most: Vec<u64> = (1..=MAX_BOUNDS as u64).collect();
        assert_eq!(milliseconds(&most).unwrap().bounds(), most);
        assert!(milliseconds(&(1..=MAX_BOUNDS as u64 + 1).collect::<Vec<_>>()).is_err());
    }
}
