//! The spans of a pool as OpenTelemetry sees them: `cargo run -p blink-core --example telemetry`.
//!
//! Blink reports to whatever subscriber of `tracing` the program has installed. Here that is `tracing-opentelemetry`, with an
//! exporter that keeps the spans in memory; in a service it is one that sends them to a collector.

use std::collections::BTreeMap;

use blink_core::{Blink, Command, IsolationChoice, SandboxSpec};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("blink"));
    tracing_subscriber::registry().with(layer).init();

    // A home of its own; a service leaves it out.
    let home = tempfile::tempdir()?;
    let blink = Blink::builder()
        .home(home.path())
        .isolation(IsolationChoice::Auto)
        .build()
        .await?;
    let pool = blink
        .pool(SandboxSpec::default())
        .name("workers")
        .size(2)
        .build()
        .await?;
    pool.ready().await?;
    let sandbox = pool.claim().await?;
    sandbox.exec(Command::new("true")).await?;
    drop(sandbox);
    pool.close().await;

    let mut spans: BTreeMap<String, usize> = BTreeMap::new();
    for span in exporter.get_finished_spans()? {
        *spans.entry(span.name.into_owned()).or_default() += 1;
    }
    for (name, count) in &spans {
        println!("{name}: {count}");
    }
    assert_eq!(spans.get("pool_claim"), Some(&1));
    Ok(())
}

#[cfg(test)]
#[test]
fn it_runs() {
    main().expect("the example fails");
}
