//! The guide to `sock`, [`sockserver`], [`sockssl`], [`sockdiag`] and [`socklens`].
//!
//! | page | read it to |
//! | --- | --- |
//! | [`porting`] | port a Python program: Python and Rust side by side |
//! | [`differences`] | look up what behaves differently from CPython, and why |
//! | [`performance`] | choose a server class |
//! | [`reliability`] | look up what a server guarantees when clients, networks and the system fail |
//! | [`operations`] | run a server behind a balancer, under a supervisor, or with metrics |
//! | [`handover`] | replace a running server while it serves |
//! | [`platforms`] | look up what runs on which system |
//! | [`conformance`] | look up the results of CPython's own tests on `sock` |
//! | [`teaching`] | teach with `socklens` |
//!
//! # Examples
//!
//! The folder `examples` of the repository has 50 programs in reading order, each in Rust and in
//! Python. Those with TLS are in the package `sockssl`.
//!
//! | run | it shows |
//! | --- | --- |
//! | `cargo run --example echo_tcp` | an echo over TCP with plain sockets |
//! | `cargo run --example echo_threading` | a threaded echo server |
//! | `cargo run --example udp` | a UDP server |
//! | `cargo run --example http_page` | a page for a browser, in each model |
//! | `cargo run --example chat` | a chat, with a thread for each client |
//! | `cargo run --example echo_select` | a server in one thread with [`selectors`](crate::selectors) |
//! | `cargo run --example graceful_shutdown` | a server that SIGTERM drains |
//! | `cargo run -p sockssl --example echo_tls` | an echo over TLS |
//! | `cargo run -p sockdiag --example mini_ss` | a table of sockets like that of ss(8) |
//!
#![cfg_attr(docsrs, doc = "[`sockserver`]: https://docs.rs/sockserver")]
#![cfg_attr(docsrs, doc = "[`sockssl`]: https://docs.rs/sockssl")]
#![cfg_attr(docsrs, doc = "[`sockdiag`]: https://docs.rs/sockdiag")]
#![cfg_attr(docsrs, doc = "[`socklens`]: https://docs.rs/socklens")]
#![cfg_attr(not(docsrs), doc = "[`sockserver`]: ../../sockserver/index.html")]
#![cfg_attr(not(docsrs), doc = "[`sockssl`]: ../../sockssl/index.html")]
#![cfg_attr(not(docsrs), doc = "[`sockdiag`]: ../../sockdiag/index.html")]
#![cfg_attr(not(docsrs), doc = "[`socklens`]: ../../socklens/index.html")]

/// Declares a page. Its text is included in the documentation only. The package `sock-docs` runs
/// its code, which needs the other crates.
macro_rules! page {
    ($name:ident, $summary:literal, $file:literal) => {
        #[doc = $summary]
        // The first definition of a link applies, so these replace those of the file, which name
        // other files.
        #[cfg_attr(
            all(doc, not(doctest)),
            doc = "[differences]: differences\n[handover]: handover\n[operations]: operations\n[reliability]: reliability\n[teaching]: teaching\n"
        )]
        #[cfg_attr(all(doc, not(doctest)), doc = include_str!(concat!("../guide/", $file)))]
        pub mod $name {}
    };
}

page!(conformance, "Results of CPython's own tests.", "conformance.md");
page!(differences, "Differences from CPython, with the reasons.", "differences.md");
page!(handover, "A new version in place of a running server.", "handover.md");
page!(operations, "Servers behind a balancer, under a supervisor, and with metrics.", "operations.md");
page!(performance, "Costs of the server classes, and which one to choose.", "performance.md");
page!(platforms, "What runs on which system.", "platforms.md");
page!(porting, "Python and Rust side by side.", "porting.md");
page!(reliability, "Guarantees of a server, and the tests for them.", "reliability.md");
page!(teaching, "Lessons with `socklens`.", "teaching.md");
