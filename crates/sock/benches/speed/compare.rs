//! Scenarios, each with its variants; criterion for the times, turns for the ratios.

use std::hint::black_box;
use std::time::Duration;

use criterion::Criterion;
use nix::time::{ClockId, clock_gettime};

/// How often each variant has its turn, and for how long: short turns, so that those
/// that are compared have met the same weather.
const TURNS: usize = 301;
const TURN: Duration = Duration::from_millis(2);

/// The same work done in several ways, the first of which is the measure.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) variants: Vec<Variant>,
    /// Ratios that must hold: a variant, what it is compared with, the most.
    pub(crate) bounds: &'static [(&'static str, &'static str, f64)],
}

pub(crate) struct Variant {
    name: &'static str,
    /// Runs the work the given number of times and returns the elapsed time.
    work: Box<dyn FnMut(u64) -> Duration>,
}

impl Variant {
    /// A variant that is timed as a whole.
    pub(crate) fn new(name: &'static str, mut once: impl FnMut() + 'static) -> Variant {
        Variant::timed(name, move |times| {
            let begin = cpu_time();
            for _ in 0..times {
                once();
            }
            cpu_time() - begin
        })
    }

    /// A variant that knows itself which part of its work counts.
    pub(crate) fn timed(name: &'static str, work: impl FnMut(u64) -> Duration + 'static) -> Variant {
        Variant { name, work: Box::new(work) }
    }
}

impl Scenario {
    pub(crate) fn run(mut self, criterion: &mut Criterion) {
        let mut group = criterion.benchmark_group(self.name);
        for variant in &mut self.variants {
            group
                .bench_function(variant.name, |bencher| bencher.iter_custom(|times| (variant.work)(times)));
        }
        group.finish();
        if self.wants_table() {
            self.compare();
        }
    }

    /// Whether this is `cargo bench`, with no filter that leaves this scenario out, and
    /// with nothing else to do.
    fn wants_table(&self) -> bool {
        let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
        let measures = std::env::args().any(|word| word == "--bench")
            && !words.iter().any(|word| matches!(word.as_str(), "--list" | "--test" | "--profile-time"));
        let filter = words.first().filter(|word| !word.starts_with('-'));
        measures && filter.is_none_or(|part| self.name.contains(part.as_str()))
    }

    /// Lets the variants take turns and prints the medians of each turn's ratios.
    fn compare(&mut self) {
        let times: Vec<u64> = self.variants.iter_mut().map(|variant| variant.times_in_a_turn()).collect();
        let mut turns = vec![Vec::with_capacity(TURNS); self.variants.len()];
        for turn in 0..TURNS {
            for step in 0..self.variants.len() {
                // Every other round is reversed, so that the order does not favour one candidate.
                let number = if turn % 2 == 0 { step } else { self.variants.len() - 1 - step };
                let took = (self.variants[number].work)(black_box(times[number]));
                turns[number].push(took.as_secs_f64() / times[number] as f64);
            }
        }
        println!("\n{}: CPU time, and its ratio to {} ({TURNS} turns)", self.name, self.variants[0].name);
        for (variant, own) in self.variants.iter().zip(&turns) {
            let ratio = median_ratio(own, &turns[0]);
            println!("  {:16} {:9.1} ns  {ratio:5.3}", variant.name, median(own.clone()) * 1e9);
        }
        let find = |name| self.variants.iter().position(|variant| variant.name == name);
        for &(one, other, most) in self.bounds {
            if let (Some(one_at), Some(other_at)) = (find(one), find(other)) {
                let ratio = median_ratio(&turns[one_at], &turns[other_at]);
                let verdict = if ratio <= most { "holds" } else { "MISSED" };
                println!("  {one} to {other}: {ratio:.3}, at most {most:.2}: {verdict}");
            }
        }
        println!();
    }
}

impl Variant {
    fn times_in_a_turn(&mut self) -> u64 {
        let mut times = 16;
        loop {
            let took = (self.work)(times);
            if took >= TURN / 4 {
                return ((TURN.as_secs_f64() / took.as_secs_f64()) * times as f64) as u64;
            }
            times *= 2;
        }
    }
}

fn median_ratio(own: &[f64], other: &[f64]) -> f64 {
    median(own.iter().zip(other).map(|(own, other)| own / other).collect())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// CPU time of all threads: what others do on the machine is not in it.
pub(crate) fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).expect("POSIX has this clock").into()
}

/// Keeps everything on one CPU: what is measured is calls, not the scheduler.
#[cfg(target_os = "linux")]
pub(crate) fn pin() {
    use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
    use nix::unistd::Pid;

    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).expect("which CPUs are there");
    let last = (0..CpuSet::count()).rev().find(|&cpu| allowed.is_set(cpu).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(last.expect("a process has a CPU")).expect("it was in a set");
    sched_setaffinity(this, &one).expect("one of the CPUs that are allowed");
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn pin() {}
