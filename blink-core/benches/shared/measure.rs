//! Samples, and how they are written.

use std::time::{Duration, Instant};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Times of one thing, sorted.
#[derive(Default)]
pub(crate) struct Samples {
    times: Vec<Duration>,
}

impl Samples {
    pub(crate) fn add(&mut self, time: Duration) {
        let at = self.times.partition_point(|known| *known <= time);
        self.times.insert(at, time);
    }

    pub(crate) fn count(&self) -> usize {
        self.times.len()
    }

    pub(crate) fn median(&self) -> Duration {
        self.percentile(50)
    }

    pub(crate) fn p95(&self) -> Duration {
        self.percentile(95)
    }

    pub(crate) fn p99(&self) -> Duration {
        self.percentile(99)
    }

    fn percentile(&self, percent: usize) -> Duration {
        let last = self.times.len().saturating_sub(1);
        self.times
            .get(last * percent / 100)
            .copied()
            .unwrap_or_default()
    }

    /// `median / p99`.
    pub(crate) fn text(&self) -> String {
        format!("{} / {}", time_text(self.median()), time_text(self.p99()))
    }

    /// How much longer the median is than another's.
    pub(crate) fn ratio(&self, other: &Samples) -> f64 {
        self.median().as_secs_f64() / other.median().as_secs_f64()
    }
}

/// Amounts by second, of one thing that was done several times.
#[derive(Default)]
pub(crate) struct Rates {
    rates: Vec<f64>,
}

impl Rates {
    pub(crate) fn add(&mut self, amount: u64, time: Duration) {
        self.rates.push(amount as f64 / time.as_secs_f64());
        self.rates.sort_by(f64::total_cmp);
    }

    pub(crate) fn median(&self) -> f64 {
        self.rates.get(self.rates.len() / 2).copied().unwrap_or(0.0)
    }

    /// How much faster the median is than another's.
    pub(crate) fn ratio(&self, other: &Rates) -> f64 {
        self.median() / other.median()
    }

    /// The slowest and the fastest, in GB/s.
    pub(crate) fn spread(&self) -> String {
        let ends = (self.rates.first(), self.rates.last());
        match ends {
            (Some(slowest), Some(fastest)) => {
                format!("{:.2} to {:.2} GB/s", slowest / GB, fastest / GB)
            }
            _ => String::new(),
        }
    }
}

pub(crate) const GB: f64 = 1e9;
pub(crate) const GIB: f64 = (1_u64 << 30) as f64;
pub(crate) const MB: f64 = 1e6;

/// Times a call that blocks.
pub(crate) fn timed<T>(call: impl FnOnce() -> Result<T>) -> Result<(Duration, T)> {
    let start = Instant::now();
    let value = call()?;
    Ok((start.elapsed(), value))
}

pub(crate) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

pub(crate) fn time_text(time: Duration) -> String {
    let micros = micros(time);
    match micros {
        ..100.0 => format!("{micros:.1} µs"),
        ..1e4 => format!("{:.3} ms", micros / 1e3),
        _ => format!("{:.1} ms", micros / 1e3),
    }
}
