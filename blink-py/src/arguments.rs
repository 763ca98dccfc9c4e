//! What Python's callers say, as the library's own descriptions.

use std::ffi::OsString;
use std::net::IpAddr;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use blink_core::{
    Claim, Command, IsolationChoice, Mount, Network, PoolBuilder, PublishedPort, SandboxBuilder,
    SandboxSpec, SessionBuilder, Stdin, WhenEmpty,
};
use bytes::Bytes;
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

use crate::failure::invalid;

/// `subprocess.PIPE`, which is also `blink.PIPE`.
const PIPE: i64 = -1;

/// Text as the file system has it, bytes, or anything with `__fspath__`.
pub(crate) fn os_string(value: &Bound<'_, PyAny>) -> PyResult<OsString> {
    static FSPATH: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    if let Ok(text) = value.cast::<PyString>() {
        return text.extract();
    }
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(OsString::from_vec(bytes.as_bytes().to_vec()));
    }
    let path = FSPATH.import(value.py(), "os", "fspath")?.call1((value,))?;
    match path.cast::<PyBytes>() {
        Ok(bytes) => Ok(OsString::from_vec(bytes.as_bytes().to_vec())),
        Err(_) => path.extract(),
    }
}

pub(crate) fn path(value: &Bound<'_, PyAny>) -> PyResult<PathBuf> {
    os_string(value).map(PathBuf::from)
}

/// Text in UTF-8, or what has a buffer of bytes.
pub(crate) fn bytes(value: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(Bytes::copy_from_slice(bytes.as_bytes()));
    }
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(Bytes::copy_from_slice(text.to_str()?.as_bytes()));
    }
    static MEMORYVIEW: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let view = MEMORYVIEW
        .import(value.py(), "builtins", "memoryview")?
        .call1((value,))?;
    let bytes = view.call_method0(intern!(value.py(), "tobytes"))?;
    Ok(Bytes::copy_from_slice(bytes.cast::<PyBytes>()?.as_bytes()))
}

/// Seconds, from 0 on.
pub(crate) fn seconds(what: &str, value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let seconds: f64 = value.extract()?;
    Duration::try_from_secs_f64(seconds).map_err(|_| {
        invalid(format!(
            "{what} of {seconds} is not a time; give seconds, 0 or more"
        ))
        .into()
    })
}

fn not_known(function: &str, name: &str) -> PyErr {
    PyTypeError::new_err(format!(
        "{function}() got an unexpected keyword argument '{name}'"
    ))
}

/// Options by name; what is `None` is left at its default.
fn options<'py>(all: &Bound<'py, PyDict>) -> PyResult<Vec<(String, Bound<'py, PyAny>)>> {
    all.iter()
        .filter(|(_, value)| !value.is_none())
        .map(|(name, value)| Ok((name.extract()?, value)))
        .collect()
}

/// Fails for options that nobody has taken.
pub(crate) fn all_known(function: &str, rest: &Bound<'_, PyDict>) -> PyResult<()> {
    match rest.keys().iter().next() {
        Some(name) => Err(not_known(function, &name.extract::<String>()?)),
        None => Ok(()),
    }
}

/// A command, with those of the options that are its own, which are taken out of them.
pub(crate) fn command(argv: &Bound<'_, PyAny>, options: &Bound<'_, PyDict>) -> PyResult<Command> {
    if argv.is_instance_of::<PyString>() || argv.is_instance_of::<PyBytes>() {
        return Err(PyTypeError::new_err(
            "a command is a list of a program and its arguments, such as [\"ls\", \"/\"]; for a script use \
             run_code(script, language=\"sh\")",
        ));
    }
    let mut argv = argv.try_iter()?.map(|arg| os_string(&arg?));
    let program = match argv.next() {
        Some(program) => program?,
        None => OsString::new(),
    };
    let command = Command::new(program).args(argv.collect::<PyResult<Vec<_>>>()?);
    with_options(command, options)
}

/// A program in a language, with its options.
pub(crate) fn code(code: &str, language: &str, options: &Bound<'_, PyDict>) -> PyResult<Command> {
    let command = Command::code(language, code).map_err(crate::failure::Failure::from)?;
    with_options(command, options)
}

fn with_options(mut command: Command, options: &Bound<'_, PyDict>) -> PyResult<Command> {
    for (name, value) in mine(options, &COMMAND)? {
        command = match name.as_str() {
            "env" => environment(&value)?
                .into_iter()
                .fold(command, |command, (name, value)| command.env(name, value)),
            "cwd" => command.current_dir(os_string(&value)?),
            "user" => command.user(value.extract::<String>()?),
            "stdin" => command.stdin(stdin(&value)?),
            "timeout" => command.timeout(seconds("a timeout", &value)?),
            "output_limit" => command.output_limit_bytes(value.extract()?),
            "pty" => {
                let (rows, cols) = value.extract()?;
                command.pty(rows, cols)
            }
            _ => command.key(value.extract::<String>()?),
        };
    }
    Ok(command)
}

fn stdin(value: &Bound<'_, PyAny>) -> PyResult<Stdin> {
    match value.extract::<i64>() {
        Ok(PIPE) => Ok(Stdin::Piped),
        Ok(other) => Err(PyTypeError::new_err(format!(
            "stdin is bytes, text or blink.PIPE, not {other}"
        ))),
        Err(_) => bytes(value).map(Stdin::Bytes),
    }
}

/// The options that are a command's own.
const COMMAND: [&str; 8] = [
    "env",
    "cwd",
    "user",
    "stdin",
    "timeout",
    "output_limit",
    "pty",
    "key",
];

/// Takes options out of others.
fn mine<'py>(
    all: &Bound<'py, PyDict>,
    names: &[&str],
) -> PyResult<Vec<(String, Bound<'py, PyAny>)>> {
    let mut taken = Vec::new();
    for name in names {
        let Some(value) = all.get_item(name)? else {
            continue;
        };
        all.del_item(name)?;
        if !value.is_none() {
            taken.push(((*name).to_owned(), value));
        }
    }
    Ok(taken)
}

fn pairs<'py>(
    mapping: &Bound<'py, PyAny>,
) -> PyResult<Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>)>> {
    let items = mapping.call_method0(intern!(mapping.py(), "items"))?;
    items.try_iter()?.map(|item| item?.extract()).collect()
}

/// What options change in a description, which there may only be later.
pub(crate) type Change<Builder> = Box<dyn FnOnce(Builder) -> Builder + Send>;

/// Writes an option down that sandboxes and sessions have alike; `false` where there is none of that name.
fn describe(spec: &mut SandboxSpec, name: &str, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    match name {
        "image" => spec.image = Some(image(value)?),
        "isolation" => spec.isolation = Some(isolation(value)?),
        "hostname" => spec.hostname = Some(value.extract()?),
        "cpus" => spec.cpus = Some(value.extract()?),
        "memory_mib" => spec.memory_mib = Some(value.extract()?),
        "shared_memory_mib" => spec.shared_memory_mib = Some(value.extract()?),
        "disk_mib" => spec.disk_mib = Some(value.extract()?),
        "processes" => spec.processes = Some(value.extract()?),
        "network" => spec.network = Some(network(value)?),
        "mounts" => spec.mounts = each(value, mount)?,
        "publish" => spec.publish = each(value, port)?,
        "env" => spec.env = environment(value)?,
        "cwd" => spec.current_dir = Some(os_string(value)?.into()),
        "user" => spec.user = Some(value.extract()?),
        "boot_timeout" => spec.boot_timeout = Some(seconds("a boot_timeout", value)?),
        _ => return Ok(false),
    }
    Ok(true)
}

/// What these options change in a sandbox, all of which must be its own; says whether it is detached too.
pub(crate) fn sandbox(
    function: &str,
    all: &Bound<'_, PyDict>,
) -> PyResult<(Change<SandboxBuilder>, bool)> {
    let (mut spec, mut detached, mut key) = (SandboxSpec::default(), false, None::<String>);
    for (name, value) in options(all)? {
        if name == "detached" {
            detached = value.extract()?;
        } else if name == "key" {
            key = Some(value.extract()?);
        } else if !describe(&mut spec, &name, &value)? {
            return Err(not_known(function, &name));
        }
    }
    let change = move |builder: SandboxBuilder| {
        let builder = builder.spec(spec);
        let builder = match key {
            Some(key) => builder.key(key),
            None => builder,
        };
        match detached {
            true => builder.detached(),
            false => builder,
        }
    };
    Ok((Box::new(change), detached))
}

/// What these options change in a session, all of which must be its own.
pub(crate) fn session(function: &str, all: &Bound<'_, PyDict>) -> PyResult<Change<SessionBuilder>> {
    let (mut spec, mut patience) = (SandboxSpec::default(), None);
    for (name, value) in options(all)? {
        match name.as_str() {
            "labels" => {
                for (name, value) in pairs(&value)? {
                    spec.labels.insert(name.extract()?, value.extract()?);
                }
            }
            "idle_stop" => spec.idle_stop = Some(seconds("an idle_stop", &value)?),
            "warm" => spec.warm = Some(value.extract()?),
            "patience" => patience = Some(seconds("a patience", &value)?),
            _ if describe(&mut spec, &name, &value)? => {}
            _ => return Err(not_known(function, &name)),
        }
    }
    Ok(Box::new(move |builder| {
        let builder = builder.spec(spec);
        match patience {
            Some(patience) => builder.patience(patience),
            None => builder,
        }
    }))
}

/// What is said of a claim, all of which must be its own.
pub(crate) fn claim(function: &str, all: &Bound<'_, PyDict>) -> PyResult<Change<Claim>> {
    let (mut spec, mut timeout, mut key) = (SandboxSpec::default(), None, None::<String>);
    for (name, value) in options(all)? {
        match name.as_str() {
            "labels" => {
                for (name, value) in pairs(&value)? {
                    spec.labels.insert(name.extract()?, value.extract()?);
                }
            }
            "timeout" => timeout = Some(seconds("a timeout", &value)?),
            "key" => key = Some(value.extract()?),
            "env" | "hostname" | "memory_mib" | "network" | "publish" => {
                describe(&mut spec, &name, &value)?;
            }
            _ => return Err(not_known(function, &name)),
        }
    }
    Ok(Box::new(move |claim| {
        let claim = claim.asking(spec);
        let claim = match key {
            Some(key) => claim.key(key),
            None => claim,
        };
        match timeout {
            Some(timeout) => claim.timeout(timeout),
            None => claim,
        }
    }))
}

/// What a pool's sandboxes are, and what is said of the pool, all of which must be its own.
pub(crate) fn pool(
    function: &str,
    all: &Bound<'_, PyDict>,
) -> PyResult<(SandboxSpec, Change<PoolBuilder>)> {
    let mut spec = SandboxSpec::default();
    let mut changes: Vec<Change<PoolBuilder>> = Vec::new();
    for (name, value) in options(all)? {
        changes.push(match name.as_str() {
            "name" => {
                let name: String = value.extract()?;
                Box::new(move |pool| pool.name(name))
            }
            "shared" => {
                let shared = value.extract()?;
                Box::new(move |pool| pool.shared(shared))
            }
            "size" => {
                let size = value.extract()?;
                Box::new(move |pool| pool.size(size))
            }
            "max" => {
                let max = value.extract()?;
                Box::new(move |pool| pool.max(max))
            }
            "refill" => {
                let boots = value.extract()?;
                Box::new(move |pool| pool.refill(boots))
            }
            "max_age" => {
                let age = seconds("a max_age", &value)?;
                Box::new(move |pool| pool.max_age(age))
            }
            "max_idle" => {
                let idle = seconds("a max_idle", &value)?;
                Box::new(move |pool| pool.max_idle(idle))
            }
            "warmup_timeout" => {
                let timeout = seconds("a warmup_timeout", &value)?;
                Box::new(move |pool| pool.warmup_timeout(timeout))
            }
            "reset_on_release" => {
                let resets = value.extract()?;
                Box::new(move |pool| pool.reset_on_release(resets))
            }
            "when_empty" => {
                let when_empty = match value.extract::<String>()?.as_str() {
                    "boot" => WhenEmpty::Boot,
                    "wait" => WhenEmpty::Wait,
                    other => {
                        let message = format!(
                            "{other:?} is not what a claim can do; choose \"boot\" or \"wait\""
                        );
                        return Err(invalid(message).into());
                    }
                };
                Box::new(move |pool| pool.when_empty(when_empty))
            }
            "warmup" => of_commands(&value, PoolBuilder::warmup)?,
            "prepare" => of_commands(&value, PoolBuilder::prepare)?,
            "start" => of_commands(&value, PoolBuilder::start)?,
            "interpreters" => {
                let languages: Vec<String> = value.extract()?;
                Box::new(move |pool| languages.into_iter().fold(pool, PoolBuilder::interpreter))
            }
            _ if describe(&mut spec, &name, &value)? => continue,
            _ => return Err(not_known(function, &name)),
        });
    }
    let change = move |pool| changes.into_iter().fold(pool, |pool, change| change(pool));
    Ok((spec, Box::new(change)))
}

/// Commands of a pool: each is a list of words, or a script for the shell.
fn of_commands(
    values: &Bound<'_, PyAny>,
    add: fn(PoolBuilder, Command) -> PoolBuilder,
) -> PyResult<Change<PoolBuilder>> {
    if values.is_instance_of::<PyString>() {
        return Err(PyTypeError::new_err(
            "commands of a pool are a list, such as [\"pip install x\", [\"make\", \"-C\", \"/srv\"]]",
        ));
    }
    let commands = each(values, |value| match value.cast::<PyString>() {
        Ok(script) => Ok(Command::shell(script.extract::<OsString>()?)),
        Err(_) => command(value, &PyDict::new(value.py())),
    })?;
    Ok(Box::new(move |pool| commands.into_iter().fold(pool, add)))
}

fn each<T>(
    values: &Bound<'_, PyAny>,
    make: impl Fn(&Bound<'_, PyAny>) -> PyResult<T>,
) -> PyResult<Vec<T>> {
    values.try_iter()?.map(|value| make(&value?)).collect()
}

fn environment(value: &Bound<'_, PyAny>) -> PyResult<Vec<(OsString, OsString)>> {
    pairs(value)?
        .iter()
        .map(|(name, value)| Ok((os_string(name)?, os_string(value)?)))
        .collect()
}

pub(crate) fn isolation(value: &Bound<'_, PyAny>) -> PyResult<IsolationChoice> {
    let name: String = value.extract()?;
    Ok(name.parse().map_err(crate::failure::Failure::from)?)
}

/// A reference, or the path of a folder or tar.
pub(crate) fn image(value: &Bound<'_, PyAny>) -> PyResult<String> {
    os_string(value)?
        .into_string()
        .map_err(|image| invalid(format!("the image {image:?} is no text in UTF-8")).into())
}

fn network(value: &Bound<'_, PyAny>) -> PyResult<Network> {
    if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        return Ok(Network::Hosts(value.extract()?));
    }
    match value.extract::<String>()?.as_str() {
        "none" => Ok(Network::None),
        "host" => Ok(Network::Host),
        other => Err(invalid(format!(
            "{other:?} is not a network; choose \"none\", \"host\", or a list of hosts"
        ))
        .into()),
    }
}

fn mount(value: &Bound<'_, PyAny>) -> PyResult<Mount> {
    let py = value.py();
    let host = path(&value.getattr(intern!(py, "host"))?)?;
    let guest = path(&value.getattr(intern!(py, "guest"))?)?;
    let mount = Mount::new(host, guest);
    match value.getattr(intern!(py, "read_only"))?.extract()? {
        true => Ok(mount.read_only()),
        false => Ok(mount),
    }
}

fn port(value: &Bound<'_, PyAny>) -> PyResult<PublishedPort> {
    let py = value.py();
    let guest = value.getattr(intern!(py, "guest_port"))?.extract()?;
    let host = value.getattr(intern!(py, "host_port"))?.extract()?;
    let address: String = value.getattr(intern!(py, "address"))?.extract()?;
    let address: IpAddr = address.parse().map_err(|_| {
        PyErr::from(invalid(format!(
            "{address:?} is not an IP address of this machine to publish at"
        )))
    })?;
    Ok(PublishedPort::new(host, guest).at(address))
}
