//! What the library says, as the value classes of `blink._values`.

use std::time::Duration;

use blink_core::{
    Check, Checkpoint, Declined, DirEntry, ExitStatus, FileType, Hypervisor, Isolation, Latency,
    Lineage, Metadata, Mount, Network, Output, PoolStats, ProcessInfo, ProcessLogs, PublishedPort,
    Report, SessionInfo, TransferProgress,
};
use blink_core::{PullProgress, PullStep, RemovedImages, StoredImage};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyList, PyString, PyTuple};

/// A class of `blink._values`, looked up once.
macro_rules! class {
    ($py:expr, $name:literal) => {{
        static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        CLASS.import($py, "blink._values", $name)?
    }};
}

type Object<'py> = PyResult<Bound<'py, PyAny>>;

pub(crate) fn pool_stats(py: Python<'_>, stats: PoolStats) -> Object<'_> {
    let latency = |latency: Latency| {
        let seconds = |us: u64| Duration::from_micros(us).as_secs_f64();
        class!(py, "Latency").call1((
            latency.count,
            seconds(latency.sum_us),
            seconds(latency.p50_us),
            seconds(latency.p95_us),
            seconds(latency.p99_us),
            seconds(latency.max_us),
        ))
    };
    let fields = PyDict::new(py);
    fields.set_item("openmetrics", stats.to_openmetrics())?;
    fields.set_item("name", stats.name)?;
    for (name, count) in [
        ("size", stats.size),
        ("max", stats.max),
        ("idle", stats.idle),
        ("booting", stats.booting),
        ("claimed", stats.claimed),
        ("waiting", stats.waiting),
    ] {
        fields.set_item(name, count)?;
    }
    for (name, count) in [
        ("hits", stats.hits),
        ("misses", stats.misses),
        ("failed_claims", stats.failed_claims),
        ("boots", stats.boots),
        ("failed_boots", stats.failed_boots),
        ("deaths", stats.deaths),
        ("retired", stats.retired),
        ("resets", stats.resets),
        ("refused", stats.refused),
    ] {
        fields.set_item(name, count)?;
    }
    let ages: Vec<f64> = stats.ages.iter().map(Duration::as_secs_f64).collect();
    fields.set_item("ages", ages)?;
    fields.set_item("last_failure", stats.last_failure)?;
    fields.set_item("claim_latency", latency(stats.claim_latency)?)?;
    fields.set_item("boot_latency", latency(stats.boot_latency)?)?;
    fields.set_item("removal_latency", latency(stats.removal_latency)?)?;
    class!(py, "PoolStats").call((), Some(&fields))
}

/// A list, each item made by `make`.
pub(crate) fn list<'py, T>(
    py: Python<'py>,
    items: impl IntoIterator<Item = T>,
    make: impl Fn(Python<'py>, T) -> Object<'py>,
) -> Object<'py> {
    let items = items.into_iter().map(|item| make(py, item));
    let items = items.collect::<PyResult<Vec<_>>>()?;
    PyList::new(py, items).map(Bound::into_any)
}

pub(crate) fn isolation(py: Python<'_>, isolation: Isolation) -> Bound<'_, PyString> {
    PyString::intern(py, isolation.name())
}

pub(crate) fn output<'py>(py: Python<'py>, output: &Output) -> Object<'py> {
    captured(
        py,
        &output.status,
        [&output.stdout, &output.stderr],
        [output.stdout_bytes, output.stderr_bytes],
        output.isolation,
    )
}

/// An output from its parts.
pub(crate) fn captured<'py>(
    py: Python<'py>,
    status: &ExitStatus,
    [stdout, stderr]: [&[u8]; 2],
    [stdout_bytes, stderr_bytes]: [u64; 2],
    isolated_by: Isolation,
) -> Object<'py> {
    class!(py, "Output").call1((
        PyBytes::new(py, stdout),
        PyBytes::new(py, stderr),
        status.code,
        status.signal,
        status.timed_out,
        status.over_limit,
        &status.reason,
        status.duration.as_secs_f64(),
        isolation(py, isolated_by),
        stdout_bytes,
        stderr_bytes,
    ))
}

pub(crate) fn exit_status<'py>(py: Python<'py>, status: &ExitStatus) -> Object<'py> {
    class!(py, "ExitStatus").call1((
        status.code,
        status.signal,
        status.timed_out,
        status.over_limit,
        &status.reason,
        status.duration.as_secs_f64(),
    ))
}

pub(crate) fn process_info(py: Python<'_>, info: ProcessInfo) -> Object<'_> {
    let status = match &info.status {
        Some(status) => Some(exit_status(py, status)?),
        None => None,
    };
    class!(py, "ProcessInfo").call1((
        info.id,
        info.pid,
        PyTuple::new(py, info.argv)?,
        status,
        info.stdout_bytes,
        info.stderr_bytes,
        info.pty,
        info.key,
    ))
}

pub(crate) fn process_logs<'py>(py: Python<'py>, logs: &ProcessLogs) -> Object<'py> {
    class!(py, "ProcessLogs").call1((
        PyBytes::new(py, &logs.stdout),
        logs.stdout_offset,
        PyBytes::new(py, &logs.stderr),
        logs.stderr_offset,
    ))
}

pub(crate) fn metadata<'py>(py: Python<'py>, metadata: &Metadata) -> Object<'py> {
    let kind = match metadata.file_type {
        FileType::File => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symlink",
        _ => "other",
    };
    let target = metadata.target.as_ref().map(|target| target.as_os_str());
    class!(py, "FileInfo").call1((
        kind,
        metadata.size,
        metadata.mode,
        metadata.uid,
        metadata.gid,
        metadata.modified,
        target,
    ))
}

pub(crate) fn dir_entry(py: Python<'_>, entry: DirEntry) -> Object<'_> {
    let info = metadata(py, &entry.metadata)?;
    class!(py, "DirEntry").call1((entry.name, info))
}

pub(crate) fn checkpoint(py: Python<'_>, checkpoint: Checkpoint) -> Object<'_> {
    class!(py, "Checkpoint").call1((
        checkpoint.name,
        checkpoint.consistency.name(),
        checkpoint.size_bytes,
        checkpoint.parent,
        checkpoint.created_at,
    ))
}

pub(crate) fn declined<'py>(py: Python<'py>, declined: &Declined) -> Object<'py> {
    class!(py, "Declined").call1((declined.option, &declined.asked, &declined.given))
}

pub(crate) fn lineage(py: Python<'_>, lineage: Lineage) -> Object<'_> {
    class!(py, "Lineage").call1((
        lineage.forked_from,
        lineage.current,
        list(py, lineage.checkpoints, checkpoint)?,
    ))
}

pub(crate) fn session_info(py: Python<'_>, info: SessionInfo) -> Object<'_> {
    let fields = PyDict::new(py);
    fields.set_item("name", info.name)?;
    fields.set_item("id", info.id)?;
    fields.set_item("isolation", isolation(py, info.isolation))?;
    fields.set_item("image", info.image)?;
    fields.set_item("running", info.running)?;
    fields.set_item("warm", info.warm)?;
    fields.set_item("labels", info.labels)?;
    fields.set_item("forked_from", info.forked_from)?;
    fields.set_item("checkpoint", info.checkpoint)?;
    fields.set_item("created_at", info.created_at)?;
    fields.set_item("disk_bytes", info.disk_bytes)?;
    fields.set_item("cpus", info.resources.cpus)?;
    fields.set_item("memory_mib", info.resources.memory_mib)?;
    fields.set_item("shared_memory_mib", info.resources.shared_memory_mib)?;
    fields.set_item("disk_mib", info.resources.disk_mib)?;
    fields.set_item("processes", info.resources.processes)?;
    fields.set_item("network", network(py, info.network)?)?;
    fields.set_item("mounts", list(py, info.mounts, mount)?)?;
    fields.set_item("publish", list(py, info.publish, published_port)?)?;
    fields.set_item("idle_stop", info.idle_stop.map(|after| after.as_secs_f64()))?;
    class!(py, "SessionInfo").call((), Some(&fields))
}

fn network(py: Python<'_>, network: Network) -> Object<'_> {
    match network {
        Network::None => Ok(PyString::intern(py, "none").into_any()),
        Network::Hosts(hosts) => PyList::new(py, hosts).map(Bound::into_any),
        _ => Ok(PyString::intern(py, "host").into_any()),
    }
}

fn mount(py: Python<'_>, mount: Mount) -> Object<'_> {
    let (host, guest) = (mount.host.into_os_string(), mount.guest.into_os_string());
    class!(py, "Mount").call1((host, guest, mount.read_only))
}

pub(crate) fn published_port(py: Python<'_>, port: PublishedPort) -> Object<'_> {
    let address = port.host.ip().to_string();
    class!(py, "PublishedPort").call1((port.guest, port.host.port(), address))
}

pub(crate) fn image(py: Python<'_>, image: StoredImage) -> Object<'_> {
    class!(py, "Image").call1((
        image.reference,
        image.digest,
        image.size_bytes,
        image.pulled_at,
        image.used_at,
    ))
}

pub(crate) fn removed(py: Python<'_>, removed: RemovedImages) -> Object<'_> {
    class!(py, "RemovedImages").call1((removed.references, removed.digests, removed.freed_bytes))
}

pub(crate) fn progress(py: Python<'_>, progress: PullProgress) -> Object<'_> {
    let step = match progress.step {
        PullStep::Download => "download",
        PullStep::Unpack => "unpack",
        #[allow(
            unreachable_patterns,
            reason = "there may be more steps in a later version"
        )]
        _ => "other",
    };
    class!(py, "Progress").call1((
        step,
        progress.bytes_done,
        progress.bytes_total,
        progress.layer,
        progress.layers,
    ))
}

pub(crate) fn transfer(py: Python<'_>, progress: TransferProgress) -> Object<'_> {
    class!(py, "TransferProgress").call1((progress.bytes_done, progress.bytes_total))
}

pub(crate) fn report(py: Python<'_>, report: Report) -> Object<'_> {
    class!(py, "Report").call1((
        list(py, report.checks, check)?,
        report.hypervisor.reason(),
        report.root,
        report.control_groups,
        report.hypervisor == Hypervisor::Usable,
    ))
}

fn check(py: Python<'_>, check: Check) -> Object<'_> {
    class!(py, "Check").call1((
        isolation(py, check.isolation),
        check.elapsed.as_secs_f64(),
        check.problem.map(|problem| problem.message().to_owned()),
    ))
}

/// Bytes as a Python object.
pub(crate) fn bytes<'py>(py: Python<'py>, bytes: &[u8]) -> Object<'py> {
    Ok(PyBytes::new(py, bytes).into_any())
}

pub(crate) fn boolean(py: Python<'_>, value: bool) -> Object<'_> {
    Ok(PyBool::new(py, value).to_owned().into_any())
}

pub(crate) fn number(py: Python<'_>, value: u64) -> Object<'_> {
    value.into_bound_py_any(py)
}

pub(crate) fn text(py: Python<'_>, text: String) -> Object<'_> {
    text.into_bound_py_any(py)
}

pub(crate) fn texts(py: Python<'_>, texts: Vec<String>) -> Object<'_> {
    PyList::new(py, texts).map(Bound::into_any)
}
