//! A sign of life for a person who waits.

use std::io::IsTerminal;
use std::time::Duration;

use blink_core::TransferProgress;
use blink_core::terminal::escape_line;
use blink_core::{PullProgress, PullStep};
use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget};

/// What is done sooner needs no sign.
const QUIET_TIME: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(100);

/// Shows a spinner on standard error while `work` runs, where a terminal is there and it takes its time.
pub(crate) async fn shown<T>(what: &'static str, work: impl Future<Output = T>) -> T {
    Sign::new(what).shown(work).await
}

/// A spinner whose words can change.
pub(crate) struct Sign(ProgressBar);

impl Sign {
    pub(crate) fn new(what: impl Into<String>) -> Sign {
        Sign(
            ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())
                .with_message(escape_line(&what.into()).into_owned()),
        )
    }

    /// Shows it while `work` runs.
    pub(crate) async fn shown<T>(&self, work: impl Future<Output = T>) -> T {
        if !std::io::stderr().is_terminal() {
            return work.await;
        }
        tokio::pin!(work);
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::time::sleep(QUIET_TIME) => {}
        }
        self.0
            .set_style(indicatif::ProgressStyle::default_spinner());
        self.0.set_draw_target(ProgressDrawTarget::stderr());
        self.0.enable_steady_tick(TICK);
        let done = work.await;
        self.0.finish_and_clear();
        done
    }

    /// Tells how far what goes to a file or comes from one is, from now on.
    pub(crate) fn transfer(&self) -> impl Fn(TransferProgress) + Send + Sync + use<> {
        let (bar, before) = (self.0.clone(), self.0.message());
        move |progress| {
            let done = HumanBytes(progress.bytes_done);
            bar.set_message(match progress.bytes_total {
                Some(total) => format!("{before}: {done} of {}", HumanBytes(total)),
                None => format!("{before}: {done}"),
            });
        }
    }

    /// Tells how far an image is, from now on.
    pub(crate) fn image(&self) -> impl Fn(PullProgress) + Send + Sync + use<> {
        let (bar, before) = (self.0.clone(), self.0.message());
        move |progress| {
            let is_over =
                progress.step == PullStep::Unpack && progress.bytes_done == progress.bytes_total;
            let words = if is_over {
                before.clone()
            } else {
                words(progress)
            };
            bar.set_message(words);
        }
    }
}

fn words(progress: PullProgress) -> String {
    let PullProgress {
        bytes_done,
        bytes_total,
        layer,
        layers,
        ..
    } = progress;
    let (done, total) = (HumanBytes(bytes_done), HumanBytes(bytes_total));
    match progress.step {
        PullStep::Download => {
            format!("fetching the image: {done} of {total}, {layer} of {layers} layers")
        }
        _ => format!("unpacking the image: {done} of {total}, layer {layer} of {layers}"),
    }
}
