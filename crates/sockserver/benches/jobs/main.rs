//! What one job costs through each mixin: accepted, handed over, served, closed.
//!
//! `cargo bench -p sockserver`. The client connects, sends and half-closes before the
//! server's `handle_request` is called, and reads to the end of file after it: so
//! nobody waits for anybody but for the mixin's own hand-over. The same by hand over
//! `std` is the measure.
//!
//! Mixins that own their loop (a pool, workers forked beforehand, a selector) have no
//! place in `handle_request`: they are compared in processes of their own, where the
//! wake-up counts too. `benches/run short` compares all of them under load.

#[cfg(unix)]
mod loops;
#[cfg(unix)]
mod requests;

#[cfg(unix)]
fn main() {
    if loops::serve_as_told() {
        return;
    }
    let mut criterion = criterion::Criterion::default().configure_from_args();
    requests::connections(&mut criterion);
    requests::datagrams(&mut criterion);
    loops::connections(&mut criterion);
    criterion.final_summary();
}

/// Half of what is compared is Unix's.
#[cfg(not(unix))]
fn main() {
    println!("the benchmarks of sockserver run on Unix only");
}
