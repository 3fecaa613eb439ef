//! Measures one request through each mixin: accept, dispatch, serve, close.
//!
//! Run it with `cargo bench -p sockserver`. The client connects, sends and half-closes before the
//! server's `handle_request` is called, and reads to the end of file afterwards. So the only wait is
//! the mixin's own dispatch. A hand-written server with `std` is the baseline.
//!
//! Mixins with their own loop (a pool, pre-forked workers, a selector) do not use `handle_request`.
//! They are measured in separate processes, and the wake-up is included. `benches/run short` compares
//! all of them under load.

#[cfg(unix)]
mod loops;
#[cfg(unix)]
mod requests;

#[cfg(unix)]
fn main() {
    if loops::serve_if_requested() {
        return;
    }
    let mut criterion = criterion::Criterion::default().configure_from_args();
    requests::connections(&mut criterion);
    requests::datagrams(&mut criterion);
    loops::connections(&mut criterion);
    criterion.final_summary();
}

/// Half of the mixins exist on Unix only.
#[cfg(not(unix))]
fn main() {
    println!("the benchmarks of sockserver run on Unix only");
}
