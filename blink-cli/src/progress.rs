//! A sign of life for a person who waits.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::ProgressBar;

/// What is done sooner needs no sign.
const QUIET_TIME: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(100);

/// Shows a spinner on standard error while `work` runs, where a terminal is there and it takes its time.
pub(crate) async fn shown<T>(what: &'static str, work: impl Future<Output = T>) -> T {
    if !std::io::stderr().is_terminal() {
        return work.await;
    }
    tokio::pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = tokio::time::sleep(QUIET_TIME) => {}
    }
    let spinner = ProgressBar::new_spinner().with_message(what);
    spinner.enable_steady_tick(TICK);
    let done = work.await;
    spinner.finish_and_clear();
    done
}
