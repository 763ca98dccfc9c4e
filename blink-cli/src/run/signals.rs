//! The signals that this command gets.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// What a shell adds to a signal's number.
const EXIT_BASE: i32 = 128;

/// A signal that asks for an end, or a window that has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caught {
    Hangup,
    Interrupt,
    Quit,
    Terminate,
    WindowChange,
}

impl Caught {
    /// Its number, the same on every Linux.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Caught::Hangup => 1,
            Caught::Interrupt => 2,
            Caught::Quit => 3,
            Caught::Terminate => 15,
            Caught::WindowChange => 28,
        }
    }
}

/// The exit code of what a signal has ended.
pub(crate) fn exit_code(signal: Caught) -> i32 {
    EXIT_BASE + i32::from(signal.number())
}

/// The signals from now on: they no longer end this process by themselves.
pub(crate) struct Signals {
    hangup: Signal,
    interrupt: Signal,
    quit: Signal,
    terminate: Signal,
    window_change: Signal,
}

impl Signals {
    pub(crate) fn catch() -> Result<Signals, Failure> {
        let catch = |kind| {
            signal(kind)
                .map_err(|error| Failure::internal(format!("signals cannot be caught: {error}")))
        };
        Ok(Signals {
            hangup: catch(SignalKind::hangup())?,
            interrupt: catch(SignalKind::interrupt())?,
            quit: catch(SignalKind::quit())?,
            terminate: catch(SignalKind::terminate())?,
            window_change: catch(SignalKind::window_change())?,
        })
    }

    /// The next one. May be given up at any time.
    pub(crate) async fn next(&mut self) -> Caught {
        tokio::select! {
            Some(()) = self.hangup.recv() => Caught::Hangup,
            Some(()) = self.interrupt.recv() => Caught::Interrupt,
            Some(()) = self.quit.recv() => Caught::Quit,
            Some(()) = self.terminate.recv() => Caught::Terminate,
            Some(()) = self.window_change.recv() => Caught::WindowChange,
            // Signals come as long as the process lives.
            else => std::future::pending().await,
        }
    }

    /// The next one that asks for an end.
    pub(crate) async fn ending(&mut self) -> Caught {
        loop {
            let caught = self.next().await;
            if caught != Caught::WindowChange {
                return caught;
            }
        }
    }

    /// Does `work`, but lets the user out who does not want to wait for it: what is left behind then goes with the
    /// next start.
    pub(crate) async fn ends_at_once_while<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            done = work => done,
            signal = self.ending() => std::process::exit(exit_code(signal)),
        }
    }
}
