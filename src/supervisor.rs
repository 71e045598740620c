//! Messages between a supervisor and this process, by systemd's protocol, which others (s6, podman,
//! supervisord's plugins) have adopted: readiness, reload, stop, watchdog, and passed sockets. Each applies
//! only if the supervisor sets its environment variable.
//!
//! Sources: sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3).

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use rustix::time::{ClockId, clock_gettime};

use crate::limits::{MAX_INHERITED_SOCKETS, MAX_STATUS, NOTIFY_TIMEOUT};

/// The supervisor's notification socket, if it has one.
#[derive(Debug)]
pub struct Supervisor(Option<(UnixDatagram, SocketAddr)>);

impl Supervisor {
    /// The supervisor that `NOTIFY_SOCKET` names.
    ///
    /// # Errors
    /// The variable is set and is no socket address.
    pub fn from_environment() -> io::Result<Self> {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(Self(None));
        };
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("NOTIFY_SOCKET: {}: {error}", Path::new(&name).display()))
        };
        let address = address(&name).map_err(named)?;
        let socket = UnixDatagram::unbound().map_err(named)?;
        socket.set_write_timeout(Some(NOTIFY_TIMEOUT)).map_err(named)?;
        Ok(Self(Some((socket, address))))
    }

    /// Notifies that the process is ready: at the start and after each reload, even a failed one.
    pub fn ready(&self, status: &str) {
        self.tell(&["READY=1", &status_line(status)]);
    }

    /// Notifies that a reload begins; [`Self::ready`] must follow.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let stamp = format!("MONOTONIC_USEC={}", now.tv_sec * 1_000_000 + now.tv_nsec / 1_000);
        self.tell(&["RELOADING=1", &stamp]);
    }

    /// Notifies that the drain begins, for at most `timeout`: the supervisor must wait at least as long.
    pub fn stopping(&self, timeout: Duration, status: &str) {
        let extend = format!("EXTEND_TIMEOUT_USEC={}", timeout.as_micros());
        self.tell(&["STOPPING=1", &extend, &status_line(status)]);
    }

    /// Notifies that the process is alive; call it more often than [`watchdog`] says.
    pub fn alive(&self) {
        self.tell(&["WATCHDOG=1"]);
    }

    fn tell(&self, lines: &[&str]) {
        if let Some((socket, address)) = &self.0 {
            // A supervisor that does not listen only misses its own notices.
            let _ = socket.send_to_addr(lines.join("\n").as_bytes(), address);
        }
    }
}

/// A path, or after an `@` a name in the abstract namespace.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "expected a path from / or a name behind @")),
    }
}

/// The status on one line.
fn status_line(status: &str) -> String {
    let line = status.chars().map(|c| if c.is_control() { ' ' } else { c });
    format!("STATUS={}", line.take(MAX_STATUS).collect::<String>())
}

/// How long the supervisor waits for a sign of life; `None`: it does not watch.
pub fn watchdog() -> Option<Duration> {
    if !is_meant("WATCHDOG_PID", true) {
        return None;
    }
    let micros = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    (micros > 0).then(|| Duration::from_micros(micros))
}

/// The sockets that the supervisor passes to this process.
///
/// `pidfd_getfd` on this process takes them, because adopting a bare descriptor number needs `unsafe`.
///
/// # Errors
/// There are more than [`MAX_INHERITED_SOCKETS`]; the kernel (before 5.6) or a system call filter refuses the
/// call.
pub fn sockets() -> io::Result<Vec<OwnedFd>> {
    let Ok(count) = std::env::var("LISTEN_FDS") else { return Ok(Vec::new()) };
    if !is_meant("LISTEN_PID", false) {
        return Ok(Vec::new());
    }
    let named = |error: io::Error| io::Error::new(error.kind(), format!("LISTEN_FDS={count}: {error}"));
    let count = match count.parse::<usize>() {
        Ok(count) if count <= MAX_INHERITED_SOCKETS => count,
        _ => {
            let expected = format!("expected 0 to {MAX_INHERITED_SOCKETS}");
            return Err(named(io::Error::new(io::ErrorKind::InvalidInput, expected)));
        }
    };
    let this = pidfd_open(getpid(), PidfdFlags::empty()).map_err(|error| named(error.into()))?;
    (FIRST_SOCKET..)
        .take(count)
        .map(|number| {
            pidfd_getfd(&this, number, PidfdGetfdFlags::empty()).map_err(|error| named(error.into()))
        })
        .collect()
}

/// First inherited descriptor: after stdin, stdout and stderr.
const FIRST_SOCKET: i32 = 3;

/// Whether the variables that belong to `name` are for this process, and not for a parent of it.
fn is_meant(name: &str, otherwise: bool) -> bool {
    match std::env::var(name) {
        Ok(pid) => pid.parse() == Ok(getpid().as_raw_nonzero().get()),
        Err(_) => otherwise,
    }
}

#[cfg(test)]
mod tests {
    use super::{address, status_line};
    use std::ffi::OsStr;

    #[test]
    fn both_kinds_of_address_and_nothing_else() {
        assert!(address(OsStr::new("/run/notify")).expect("path").as_pathname().is_some());
        assert!(address(OsStr::new("@name")).expect("abstract").as_pathname().is_none());
        for bad in ["relative", "vsock:2:1", &format!("/{}", "x".repeat(200))] {
            assert!(address(OsStr::new(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_status_cannot_forge_a_line() {
        assert_eq!(status_line("a\nREADY=1"), "STATUS=a READY=1");
        assert_eq!(status_line(&"长".repeat(10_000)).chars().count(), "STATUS=".len() + super::MAX_STATUS);
    }
}
