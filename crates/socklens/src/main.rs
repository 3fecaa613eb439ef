//! Real socket calls, the kernel's view of the sockets, and the packets between them, in text.

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    socklens::cli::main(std::env::args_os().skip(1).collect())
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("socklens needs Linux: it uses network namespaces and the socket diagnostics of its kernel");
    std::process::ExitCode::from(77)
}
