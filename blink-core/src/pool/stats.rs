//! What happens in a pool, counted.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use blink_host::lock;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Times are counted in microseconds, up to an hour, with two significant digits: some 20 KiB for each histogram.
const LONGEST_US: u64 = 3_600_000_000;
const DIGITS: u8 = 2;

/// What there is to say of a pool.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct PoolStats {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// How many sandboxes are to wait to be claimed.
    pub size: usize,
    /// How many there may be in all.
    pub max: usize,
    /// Those that wait to be claimed.
    pub idle: usize,
    /// Those that boot.
    pub booting: usize,
    /// Those that were claimed and are not gone, and those that are being removed.
    pub claimed: usize,
    /// Claims that wait for a sandbox.
    pub waiting: usize,
    /// For how long those wait that wait to be claimed, the longest first.
    #[serde(rename = "ages_ms", with = "milliseconds")]
    pub ages: Vec<Duration>,
    /// Claims that found a sandbox waiting.
    pub hits: u64,
    /// Claims that did not, and waited for a boot.
    pub misses: u64,
    /// Claims that failed: no boot succeeded for them, their time was over, or the pool was closed.
    pub failed_claims: u64,
    /// Boots that succeeded.
    pub boots: u64,
    /// Boots that failed.
    pub failed_boots: u64,
    /// Sandboxes that had died before they were claimed, or had lost a program.
    pub deaths: u64,
    /// Sandboxes that were replaced because they were too old, or let go of because nobody claimed any.
    pub retired: u64,
    /// Claimed sandboxes that were released and replaced, in a pool that resets.
    pub resets: u64,
    /// Boots that were not begun because the host was short of memory, or the budget was used up.
    pub refused: u64,
    /// Why the last boot has failed, if none has succeeded since.
    pub last_failure: Option<String>,
    /// From a claim to its sandbox.
    pub claim_latency: Latency,
    /// From the beginning of a boot until its sandbox is ready.
    pub boot_latency: Latency,
    /// From a sandbox's end until nothing of it is left.
    pub removal_latency: Latency,
}

mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(times: &[Duration], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(times.iter().map(Duration::as_millis))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<Duration>, D::Error> {
        let times = Vec::<u64>::deserialize(from)?;
        Ok(times.into_iter().map(Duration::from_millis).collect())
    }
}

/// How long something took, each time that it was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Latency {
    /// How often.
    pub count: u64,
    /// All of them together, in microseconds.
    pub sum_us: u64,
    /// Half of them took no longer, in microseconds.
    pub p50_us: u64,
    /// 95 of 100 took no longer, in microseconds.
    pub p95_us: u64,
    /// 99 of 100 took no longer, in microseconds.
    pub p99_us: u64,
    /// The longest, in microseconds.
    pub max_us: u64,
}

/// Times of one kind.
struct Times {
    histogram: Mutex<(Histogram<u64>, u64)>,
}

impl Times {
    fn new() -> Times {
        let histogram = Histogram::new_with_bounds(1, LONGEST_US, DIGITS)
            .expect("the bounds are constants that a histogram can have");
        Times {
            histogram: Mutex::new((histogram, 0)),
        }
    }

    fn record(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(LONGEST_US);
        let (histogram, sum) = &mut *lock(&self.histogram);
        histogram.saturating_record(us.clamp(1, LONGEST_US));
        *sum = sum.saturating_add(us);
    }

    fn latency(&self) -> Latency {
        let (histogram, sum_us) = &*lock(&self.histogram);
        Latency {
            count: histogram.len(),
            sum_us: *sum_us,
            p50_us: histogram.value_at_quantile(0.5),
            p95_us: histogram.value_at_quantile(0.95),
            p99_us: histogram.value_at_quantile(0.99),
            max_us: histogram.max(),
        }
    }
}

/// Counts.
#[derive(Default)]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
    failed_claims: AtomicU64,
    boots: AtomicU64,
    failed_boots: AtomicU64,
    deaths: AtomicU64,
    retired: AtomicU64,
    resets: AtomicU64,
    refused: AtomicU64,
}

/// Of one pool, as it happens. The facade of the crate `metrics` hears of all of it.
pub(super) struct Stats {
    /// The pool's, in metrics.
    label: String,
    counts: Counts,
    claims: Times,
    boots: Times,
    removals: Times,
}

/// How a claim came to its sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Hit,
    Miss,
    Failed,
}

impl Stats {
    pub(super) fn new(name: Option<&str>) -> Stats {
        Stats {
            label: name.unwrap_or_default().to_owned(),
            counts: Counts::default(),
            claims: Times::new(),
            boots: Times::new(),
            removals: Times::new(),
        }
    }

    fn count(&self, counter: &AtomicU64, metric: &'static str, label: &'static str) {
        counter.fetch_add(1, Ordering::Relaxed);
        metrics::counter!(metric, "pool" => self.label.clone(), "outcome" => label).increment(1);
    }

    pub(super) fn claimed(&self, outcome: Outcome, time: Duration) {
        let (counter, label) = match outcome {
            Outcome::Hit => (&self.counts.hits, "hit"),
            Outcome::Miss => (&self.counts.misses, "miss"),
            Outcome::Failed => (&self.counts.failed_claims, "failed"),
        };
        self.count(counter, "blink_pool_claims_total", label);
        if outcome != Outcome::Failed {
            self.claims.record(time);
            metrics::histogram!("blink_pool_claim_seconds", "pool" => self.label.clone())
                .record(time);
        }
    }

    pub(super) fn booted(&self, time: Duration) {
        self.count(&self.counts.boots, "blink_pool_boots_total", "booted");
        self.boots.record(time);
        metrics::histogram!("blink_pool_boot_seconds", "pool" => self.label.clone()).record(time);
    }

    pub(super) fn boot_failed(&self) {
        self.count(
            &self.counts.failed_boots,
            "blink_pool_boots_total",
            "failed",
        );
    }

    pub(super) fn refused(&self) {
        self.count(&self.counts.refused, "blink_pool_boots_total", "refused");
    }

    pub(super) fn died(&self) {
        self.count(&self.counts.deaths, "blink_pool_removals_total", "died");
    }

    pub(super) fn retired(&self) {
        self.count(&self.counts.retired, "blink_pool_removals_total", "retired");
    }

    pub(super) fn reset(&self) {
        self.count(&self.counts.resets, "blink_pool_removals_total", "reset");
    }

    pub(super) fn removed(&self, time: Duration) {
        self.removals.record(time);
        metrics::histogram!("blink_pool_removal_seconds", "pool" => self.label.clone())
            .record(time);
    }

    /// Tells how many there are now.
    pub(super) fn gauge(&self, stats: &PoolStats) {
        for (state, count) in stats.states() {
            #[expect(clippy::cast_precision_loss, reason = "nobody has so many sandboxes")]
            metrics::gauge!("blink_pool_sandboxes", "pool" => self.label.clone(), "state" => state)
                .set(count as f64);
        }
    }

    /// All that is counted, beside what the pool is now.
    pub(super) fn fill(&self, stats: &mut PoolStats) {
        let Counts {
            hits,
            misses,
            failed_claims,
            boots,
            failed_boots,
            deaths,
            retired,
            resets,
            refused,
        } = &self.counts;
        for (count, to) in [
            (hits, &mut stats.hits),
            (misses, &mut stats.misses),
            (failed_claims, &mut stats.failed_claims),
            (boots, &mut stats.boots),
            (failed_boots, &mut stats.failed_boots),
            (deaths, &mut stats.deaths),
            (retired, &mut stats.retired),
            (resets, &mut stats.resets),
            (refused, &mut stats.refused),
        ] {
            *to = count.load(Ordering::Relaxed);
        }
        stats.claim_latency = self.claims.latency();
        stats.boot_latency = self.boots.latency();
        stats.removal_latency = self.removals.latency();
    }
}

impl PoolStats {
    fn states(&self) -> [(&'static str, usize); 4] {
        [
            ("idle", self.idle),
            ("booting", self.booting),
            ("claimed", self.claimed),
            ("waiting", self.waiting),
        ]
    }

    /// The same as text in the format of [OpenMetrics](https://openmetrics.io), which Prometheus reads. The names are those
    /// that the crate `metrics` is told.
    pub fn to_openmetrics(&self) -> String {
        let pool = label(self.name.as_deref().unwrap_or_default());
        let mut text = String::new();
        let mut counters = |name: &str, help: &str, values: &[(&str, u64)]| {
            let _ = writeln!(text, "# TYPE {name} counter\n# HELP {name} {help}");
            for (outcome, value) in values {
                let _ = writeln!(
                    text,
                    "{name}_total{{pool=\"{pool}\",outcome=\"{outcome}\"}} {value}"
                );
            }
        };
        counters(
            "blink_pool_claims",
            "Claims, by how they came to a sandbox.",
            &[
                ("hit", self.hits),
                ("miss", self.misses),
                ("failed", self.failed_claims),
            ],
        );
        counters(
            "blink_pool_boots",
            "Boots of sandboxes.",
            &[
                ("booted", self.boots),
                ("failed", self.failed_boots),
                ("refused", self.refused),
            ],
        );
        counters(
            "blink_pool_removals",
            "Sandboxes that were removed before they were claimed, or reset.",
            &[
                ("died", self.deaths),
                ("retired", self.retired),
                ("reset", self.resets),
            ],
        );
        let name = "blink_pool_sandboxes";
        let _ = writeln!(
            text,
            "# TYPE {name} gauge\n# HELP {name} Sandboxes, and claims that wait for one."
        );
        for (state, value) in self.states() {
            let _ = writeln!(text, "{name}{{pool=\"{pool}\",state=\"{state}\"}} {value}");
        }
        for (name, help, latency) in [
            (
                "blink_pool_claim_seconds",
                "From a claim to its sandbox.",
                self.claim_latency,
            ),
            (
                "blink_pool_boot_seconds",
                "From the beginning of a boot until its sandbox is ready.",
                self.boot_latency,
            ),
            (
                "blink_pool_removal_seconds",
                "From a sandbox's end until nothing of it is left.",
                self.removal_latency,
            ),
        ] {
            let seconds = |us: u64| Duration::from_micros(us).as_secs_f64();
            let _ = writeln!(
                text,
                "# TYPE {name} summary\n# UNIT {name} seconds\n# HELP {name} {help}"
            );
            for (quantile, us) in [
                ("0.5", latency.p50_us),
                ("0.95", latency.p95_us),
                ("0.99", latency.p99_us),
            ] {
                let value = seconds(us);
                let _ = writeln!(
                    text,
                    "{name}{{pool=\"{pool}\",quantile=\"{quantile}\"}} {value}"
                );
            }
            let (count, sum) = (latency.count, seconds(latency.sum_us));
            let _ = writeln!(
                text,
                "{name}_count{{pool=\"{pool}\"}} {count}\n{name}_sum{{pool=\"{pool}\"}} {sum}"
            );
        }
        text.push_str("# EOF\n");
        text
    }
}

/// The value of a label.
fn label(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_has_all_that_is_counted() {
        let stats = Stats::new(Some("a\"b"));
        let us = Duration::from_micros;
        (1..=100).for_each(|time| stats.claimed(Outcome::Hit, us(time)));
        stats.claimed(Outcome::Failed, us(1));
        stats.booted(us(2000));
        let mut seen = PoolStats {
            name: Some("a\"b".into()),
            idle: 3,
            ..PoolStats::default()
        };
        stats.fill(&mut seen);
        assert_eq!(seen.claim_latency.count, 100);
        assert_eq!(
            (seen.claim_latency.p50_us, seen.claim_latency.max_us),
            (50, 100)
        );
        let text = seen.to_openmetrics();
        for line in [
            r#"blink_pool_claims_total{pool="a\"b",outcome="hit"} 100"#,
            r#"blink_pool_claims_total{pool="a\"b",outcome="failed"} 1"#,
            r#"blink_pool_sandboxes{pool="a\"b",state="idle"} 3"#,
            r#"blink_pool_claim_seconds{pool="a\"b",quantile="0.5"} 0.00005"#,
            r#"blink_pool_boot_seconds_count{pool="a\"b"} 1"#,
        ] {
            assert!(text.lines().any(|seen| seen == line), "{line}: {text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
