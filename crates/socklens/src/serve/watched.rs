//! The process of programs that the page shows. As that of a lesson, it reads commands from its
//! standard input and writes the recording to its standard output.

use std::time::SystemTime;

use crate::event::EventKind;
use crate::record::{Head, meta};
use crate::serve::lesson::{end, wait_for_end, write_events, write_line, write_text};
use crate::watch::{self, Commands};

/// Runs the programs of the arguments, which are those of `socklens watch`.
pub(crate) fn watched(arguments: &[String]) -> Result<u8, String> {
    let mut arguments = watch::parse(arguments)?;
    arguments.hold_by_default();
    let begin = SystemTime::now();
    // Before the second thread starts.
    let lab = match watch::lab(arguments.tier) {
        Ok(lab) => lab,
        Err(reason) => {
            write_line(&watch::source(&arguments));
            write_text("notrun", &reason);
            return wait_for_end();
        }
    };
    write_line(&meta(&Head::new("watch", lab.tier().to_string(), begin)));
    write_line(&watch::source(&arguments));
    let hub = lab.hub.clone();
    std::thread::spawn(move || write_events(&hub));
    let result = watch::run(&lab, &arguments, Commands::OfServer(end));
    lab.hub.with(|state| {
        if let Err(error) = result {
            state.put(EventKind::Note(format!("cannot watch: {error}")));
        }
        state.put(EventKind::Paused { next: None });
    });
    // Packets can still be decided, until the server closes the input.
    loop {
        std::thread::park();
    }
}
