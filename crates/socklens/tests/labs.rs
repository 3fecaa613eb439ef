//! The promise: nothing is left behind by a lab. This program has no harness, because a process can
//! move into a user namespace only while it has one thread.

#[cfg(target_os = "linux")]
fn main() {
    use socklens::{Lab, Options, Scenario, Tier, run};

    let count = |folder: &str| std::fs::read_dir(folder).unwrap().count();
    let text = "L = B.socket(AF_INET, SOCK_STREAM)
L.bind((\"10.0.0.2\", 80))
L.listen(5)
A1 = A.socket(AF_INET, SOCK_STREAM)
A1.connect((\"10.0.0.2\", 80))
B1 = L.accept()
B1.recv(10) &
L.accept() &
expect B1.state == ESTABLISHED";
    let scenario = Scenario::parse("labs", text).unwrap();
    let mut before = None;
    for round in 0..100 {
        let lab = match Lab::new(Some(Tier::Veth)) {
            Ok(lab) => lab,
            Err(error) if round == 0 && std::env::var_os("SOCK_REQUIRE_LENS").is_none() => {
                println!("NOT RUN: {error}");
                return;
            }
            Err(error) => panic!("lab {round}: {error}"),
        };
        let report = run(&scenario, &lab, Options::default(), &mut std::io::sink()).unwrap();
        assert_eq!((report.passed, &report.failures[..]), (1, &[][..]), "lab {round}");
        drop(lab);
        let now = (count("/proc/self/task"), count("/proc/self/fd"));
        assert_eq!(*before.get_or_insert(now), now, "threads and descriptors after lab {round}");
    }
    println!("100 labs: {before:?} threads and descriptors after each");
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("NOT RUN: socklens needs Linux");
}
