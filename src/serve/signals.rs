//! Signals have a thread of their own from the start of the process: even while the main thread is blocked, a
//! stop has its deadline and a second one ends the process at once.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::gateway::Gateway;
use crate::limits::{LAST_RESORT, THREAD_STACK};
use crate::logging;

/// What a signal asks of the main thread.
pub enum Order {
    /// SIGHUP.
    Reload,
    /// The first SIGTERM or SIGINT.
    Stop,
}

/// Takes over the signals. None is lost or deadly before [`watch`].
///
/// # Errors
/// The system refuses the handlers.
pub fn take() -> io::Result<Signals> {
    Signals::new([SIGTERM, SIGINT, SIGHUP])
}

/// Turns signals into orders. SIGHUPs during a reload become one further reload; after a stop they are
/// ignored.
///
/// # Errors
/// The system refuses the thread.
pub fn watch(mut signals: Signals, gateway: Arc<Gateway>) -> io::Result<Receiver<Order>> {
    // Two: a reload is queued only when the channel is empty, so that a stop always has room.
    let (sender, orders) = bounded(2);
    thread::Builder::new().stack_size(THREAD_STACK).name("signals".to_owned()).spawn(move || {
        let mut is_stopping = false;
        for signal in &mut signals {
            let order = match signal {
                SIGHUP if is_stopping || !sender.is_empty() => continue,
                SIGHUP => Order::Reload,
                _ if is_stopping => end(),
                _ => {
                    is_stopping = true;
                    end_after(gateway.live.snapshot().shutdown_timeout + LAST_RESORT);
                    Order::Stop
                }
            };
            // Fails only if the main thread has ended already.
            let _ = sender.try_send(order);
        }
    })?;
    Ok(orders)
}

/// Ends the process after `timeout` unconditionally. If the system refuses the thread, the drain's own limit
/// applies.
fn end_after(timeout: Duration) {
    let deadline = thread::Builder::new().stack_size(THREAD_STACK).name("deadline".to_owned());
    let _ = deadline.spawn(move || {
        thread::sleep(timeout);
        end()
    });
}

fn end() -> ! {
    logging::flush();
    std::process::exit(0)
}
