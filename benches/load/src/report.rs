//! The report of a run.

use serde::Serialize;

#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) operations: u64,
    /// Operations per second.
    pub(crate) rate: f64,
    /// CPU time of the server per operation, in microseconds.
    pub(crate) cpu: f64,
    /// Percentiles of the latency, in microseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    /// Voluntary context switches of the server per operation.
    pub(crate) switches: f64,
    /// Threads of the server, including those of its children.
    pub(crate) threads: u64,
    /// CPUs that the server, this process and other processes kept busy.
    pub(crate) server_cores: f64,
    pub(crate) load_cores: f64,
    pub(crate) other_cores: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) idle: Option<IdleReport>,
}

/// Bytes for each idle connection, computed as a difference.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct IdleReport {
    pub(crate) connections: usize,
    pub(crate) user: f64,
    pub(crate) page_tables: f64,
    pub(crate) kernel_stacks: f64,
    pub(crate) slab: f64,
    /// Threads of the server while all connections were idle.
    pub(crate) threads: u64,
}
