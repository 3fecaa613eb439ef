//! What a run found out.

use serde::Serialize;

#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) operations: u64,
    /// Operations a second.
    pub(crate) rate: f64,
    /// Server CPU for each operation, microseconds.
    pub(crate) cpu: f64,
    /// Microseconds that half, 99 % and 99.9 % of the operations took at most.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    /// Voluntary context switches of the server for each operation.
    pub(crate) switches: f64,
    /// The server's threads, those of its children included.
    pub(crate) threads: u64,
    /// CPUs the server, this process and everybody else kept busy.
    pub(crate) server_cores: f64,
    pub(crate) load_cores: f64,
    pub(crate) other_cores: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) idle: Option<IdleReport>,
}

/// Bytes for each idle connection, by difference.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct IdleReport {
    pub(crate) connections: usize,
    pub(crate) user: f64,
    pub(crate) page_tables: f64,
    pub(crate) kernel_stacks: f64,
    pub(crate) slab: f64,
    /// The server's threads while nobody said anything.
    pub(crate) threads: u64,
}
