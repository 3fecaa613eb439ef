//! How much memory programs have, so that a fault in one of them does not take that of the system.
//!
//! A limit of the kernel is no way: it counts addresses, and the runtimes of Go and Java and the
//! sanitizers of C reserve many times the memory that they use.

use std::fs;

/// Bytes that a process has of its own: not those of files such as libraries. `threads` are those of
/// the process, of which the first may have ended.
pub(crate) fn of_process(threads: &[i32]) -> u64 {
    let statuses =
        threads.iter().filter_map(|thread| fs::read_to_string(format!("/proc/{thread}/status")).ok());
    statuses
        .map(|status| sum(&status, &["RssAnon:", "RssShmem:", "VmSwap:"]))
        .find(|bytes| *bytes > 0)
        .unwrap_or(0)
}

/// The same without what it shares with other processes, of which each has its part. The kernel
/// walks over all pages for it.
pub(crate) fn share_of_process(threads: &[i32]) -> u64 {
    let of_thread = |thread| fs::read_to_string(format!("/proc/{thread}/smaps_rollup")).ok();
    let rollups = threads.iter().filter_map(of_thread);
    let share =
        |rollup: String| sum(&rollup, &["Pss:", "SwapPss:"]).saturating_sub(sum(&rollup, &["Pss_File:"]));
    rollups.map(share).find(|bytes| *bytes > 0).unwrap_or_else(|| of_process(threads))
}

/// The sum of lines such as `RssAnon:     1024 kB`.
fn sum(text: &str, keys: &[&str]) -> u64 {
    let number = |line: &str| line.split_whitespace().nth(1)?.parse::<u64>().ok();
    let lines = text.lines().filter(|line| keys.iter().any(|key| line.starts_with(key)));
    lines.filter_map(number).sum::<u64>().saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_files_is_not_counted() {
        let status = "Name:\tx\nVmPeak:\t 900 kB\nRssAnon:\t  100 kB\nRssFile:\t 5000 kB\nRssShmem:\t 20 kB\nVmSwap:\t 3 kB\n";
        assert_eq!(sum(status, &["RssAnon:", "RssShmem:", "VmSwap:"]), 123 * 1024);
    }

    #[test]
    fn this_process_has_memory_and_one_that_has_ended_has_none() {
        let own = i32::try_from(std::process::id()).unwrap();
        let data = std::hint::black_box(vec![7_u8; 64 << 20]);
        for bytes in [of_process(&[-1, own]), share_of_process(&[-1, own])] {
            assert!((64 << 20..64 << 30).contains(&bytes), "{bytes}");
        }
        assert_eq!(of_process(&[-1]), 0);
        drop(data);
    }
}
