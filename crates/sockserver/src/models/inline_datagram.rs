//! Datagrams in the accept loop itself: receive, handle, send.
//!
//! A datagram needs no job here unless there are hooks, or a limit for each address. The registry
//! records its client for the report of a drain, and the handler runs.

use std::io;

use sock::{Address, Socket};

use crate::accept::acceptor::Next;
use crate::accept::mixin::AcceptLoop;
use crate::connection::datagram::DatagramBuf;
use crate::lifecycle::current_server::ServingThread;
use crate::lifecycle::registry::log_end;
use crate::limits::access::Denial;
use crate::limits::stats::Outcome;
use crate::os::guard::discard;
use crate::request::core::{Core, MakeDatagramHandler};
use crate::request::datagram_batch::{AnswerBatch, Received};
use crate::request::datagram_handler::{self, ReceivedDatagram};
use crate::request::hooks::call_handle_error;

/// Serves datagrams until the server stops. Datagrams that were received together are served to
/// the last one, and their answers are sent together.
pub(super) fn serve(accept_loop: &AcceptLoop<'_>, make: &MakeDatagramHandler) -> io::Result<()> {
    let core = accept_loop.core();
    let settings = accept_loop.settings();
    let needs_jobs = core.has_hooks || core.registry().limits().max_connections_per_ip.is_some();
    let mut receiver = settings.receiver(settings.max_batch)?;
    let mut answers = (settings.max_batch > 1).then(AnswerBatch::default);
    let mut answer = Vec::new();
    loop {
        match accept_loop.next_datagrams(|listener| receiver.receive(listener))? {
            Next::Taken(listener) => {
                for index in 0..receiver.len() {
                    let Some(Received { data, client_address, info }) = receiver.get(index) else { break };
                    let size = settings.max_packet_size;
                    if needs_jobs {
                        let packet = DatagramBuf::new(data, size, &listener, info);
                        if let Some(job) = accept_loop.admit_datagram(packet, client_address) {
                            job.run_in_batch(answers.as_mut());
                        }
                        continue;
                    }
                    if let Err(denial) = core.handle.admission().check(&client_address) {
                        refuse(core, &client_address, denial);
                        continue;
                    }
                    let datagram = ReceivedDatagram::new(data, size, &listener, info.as_ref());
                    serve_one(core, make, datagram, &client_address, &mut answer, answers.as_mut());
                }
                send(answers.as_mut(), &listener, core);
                accept_loop.run_housekeeping()?;
            }
            Next::Refused | Next::TimedOut => {}
            Next::Stopped => return Ok(()),
        }
        accept_loop.service_actions();
    }
}

/// Counts and logs a datagram that is not served.
#[cold]
fn refuse(core: &Core, client_address: &Address, denial: Denial) {
    let registry = core.registry();
    let (number, _) = registry.begin_inline(client_address);
    core.handle.admission().refuse(client_address, denial);
    log_end(number, client_address, registry.end_inline(Outcome::Rejected));
}

fn serve_one(
    core: &Core,
    make: &MakeDatagramHandler,
    datagram: ReceivedDatagram<'_>,
    client_address: &Address,
    answer: &mut Vec<u8>,
    answers: Option<&mut AnswerBatch>,
) {
    let registry = core.registry();
    let (number, begun) = registry.begin_inline(client_address);
    let serving = ServingThread::begin(registry);
    let served =
        datagram_handler::serve(make, datagram, client_address, &core.handle, begun, answer, answers);
    let outcome = match served {
        Ok(()) => Outcome::Finished,
        Err(error) => {
            call_handle_error(&*core.hooks, &error, client_address);
            let outcome = error.outcome();
            discard(error);
            outcome
        }
    };
    drop(serving);
    log_end(number, client_address, registry.end_inline(outcome));
}

fn send(answers: Option<&mut AnswerBatch>, listener: &Socket, core: &Core) {
    if let Some(answers) = answers {
        answers.send(listener, &*core.hooks);
    }
}
