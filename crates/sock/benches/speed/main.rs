//! What `sock` costs beside the raw calls, `std::net`, and Python's way.
//!
//! `cargo bench -p sock` measures each variant with criterion and then compares them
//! side by side: on a machine whose speed wanders, a few percent show only when the
//! variants take turns. What it compares:
//!
//! | variant | calls |
//! | --- | --- |
//! | raw | send(2) and recv(2) through `nix`, which is libc and nothing else |
//! | std | `TcpStream`: `read`, `write_all` |
//! | sock | `Socket`: `recv_into`, `sendall`, blocking |
//! | sock, timeout | the same with a timeout set |
//! | sock, makefile | `makefile_rwb`: `read_exact`, `write_all`, `flush` |
//! | poll first | poll(2) before each call, as CPython does with a timeout set |

#[cfg(unix)]
mod calls;
#[cfg(unix)]
mod compare;
#[cfg(unix)]
mod datagrams;
#[cfg(unix)]
mod ends;
#[cfg(unix)]
mod streams;

#[cfg(unix)]
fn main() {
    let mut criterion = criterion::Criterion::default().configure_from_args();
    compare::pin();
    for scenario in [
        calls::receive(),
        streams::ping_pong(),
        streams::ping_pong_of_two(),
        streams::streaming(),
        datagrams::datagrams(),
    ] {
        scenario.run(&mut criterion);
    }
    criterion.final_summary();
}

/// The raw calls are Unix's.
#[cfg(not(unix))]
fn main() {
    println!("the benchmarks of sock run on Unix only");
}
