//! What there is to say about sessions.

use std::ffi::{CString, c_char};
use std::time::Duration;

use blink_core::{Network, SessionInfo};

use crate::blink::blink;
use crate::call::{Caller, call, init};
use crate::entries::milliseconds;
use crate::error::blink_error;
use crate::failure::{Failure, quietly};
use crate::handle;
use crate::processes::no_such;
use crate::sandbox_options::{blink_mount, blink_network, blink_port};
use crate::session::blink_session;
use crate::shown::Shown as Array;
use crate::sized::{dispose, structure, zeros};
use crate::status::blink_status;
use crate::text::{cut, isolation, pointer};

/// A list of sessions, as they were when it was made.
pub struct blink_session_list(Vec<Shown>);

struct Shown {
    info: SessionInfo,
    name: CString,
    id: CString,
    image: CString,
    forked_from: Option<CString>,
    checkpoint: Option<CString>,
    labels: Array<*const c_char>,
    hosts: Array<*const c_char>,
    mounts: Array<blink_mount>,
    ports: Array<blink_port>,
}

impl Shown {
    fn filled(&self) -> blink_session_info {
        blink_session_info {
            size: 0,
            name: self.name.as_ptr(),
            id: self.id.as_ptr(),
            isolation: isolation(self.info.isolation).as_ptr(),
            image: self.image.as_ptr(),
            forked_from: pointer(self.forked_from.as_ref()),
            checkpoint: pointer(self.checkpoint.as_ref()),
            running: self.info.running.into(),
            warm: self.info.warm.into(),
            created_ms: milliseconds(self.info.created_at),
            disk_bytes: self.info.disk_bytes,
            labels: self.labels.first(),
            labels_count: self.labels.count(),
            cpus: self.info.resources.cpus.unwrap_or(0.0),
            memory_mib: self.info.resources.memory_mib.unwrap_or(0),
            disk_mib: self.info.resources.disk_mib,
            processes: self.info.resources.processes,
            idle_stop_ms: self.info.idle_stop.map_or(0, whole_milliseconds),
            network: network(&self.info.network),
            reserved: 0,
            hosts: self.hosts.first(),
            hosts_count: self.hosts.count(),
            mounts: self.mounts.first(),
            mounts_count: self.mounts.count(),
            ports: self.ports.first(),
            ports_count: self.ports.count(),
            owner: std::ptr::null_mut(),
        }
    }
}

impl blink_session_list {
    pub(crate) fn new(list: Vec<SessionInfo>) -> blink_session_list {
        let show = |info: SessionInfo| Shown {
            name: cut(info.name.clone()),
            id: cut(info.id.clone()),
            image: cut(info.image.clone()),
            forked_from: info.forked_from.clone().map(cut),
            checkpoint: info.checkpoint.clone().map(cut),
            labels: Array::texts(
                info.labels
                    .iter()
                    .map(|(name, value)| format!("{name}={value}")),
            ),
            hosts: Array::texts(match &info.network {
                Network::Hosts(hosts) => hosts.clone(),
                _ => Vec::new(),
            }),
            mounts: Array::mounts(&info.mounts),
            ports: Array::ports(&info.publish),
            info,
        };
        blink_session_list(list.into_iter().map(show).collect())
    }
}

/// A session. Its strings and arrays belong to the list that it is from; where blink_session_info_get() or
/// blink_session_info_find() has filled it in, they are its own until blink_session_info_dispose().
#[repr(C)]
#[derive(Clone, Copy)]
pub struct blink_session_info {
    /// sizeof(blink_session_info), set by blink_session_info_init().
    pub size: usize,
    /// Names it in its home.
    pub name: *const c_char,
    /// Stays the same when it is renamed.
    pub id: *const c_char,
    /// The isolation that it has each time that it runs: "microvm" or "namespace".
    pub isolation: *const c_char,
    /// What it was made from.
    pub image: *const c_char,
    /// The session that it was forked from, as "session" or "session@checkpoint"; NULL if it was not.
    pub forked_from: *const c_char,
    /// The checkpoint that its disk was last at; NULL if there is none.
    pub checkpoint: *const c_char,
    /// 1 if its sandbox runs.
    pub running: u32,
    /// 1 if its sandbox goes on when its host process ends.
    pub warm: u32,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: i64,
    /// What its disk occupies beyond its checkpoints.
    pub disk_bytes: u64,
    /// Its labels, each as "NAME=VALUE"; NULL if it has none.
    pub labels: *const *const c_char,
    /// How many they are.
    pub labels_count: usize,
    /// Processors that it may use; 0 if that was not said.
    pub cpus: f64,
    /// Memory that it may use, in MiB; 0 if that was not said.
    pub memory_mib: u64,
    /// What it may write, in MiB.
    pub disk_mib: u64,
    /// Processes and threads that it may have at once.
    pub processes: u64,
    /// Milliseconds without use after which its machine is stopped; 0: never.
    pub idle_stop_ms: u64,
    /// A blink_network: what it can reach.
    pub network: i32,
    /// Always 0.
    pub reserved: u32,
    /// The hosts of BLINK_NETWORK_HOSTS; NULL if there are none.
    pub hosts: *const *const c_char,
    /// How many they are.
    pub hosts_count: usize,
    /// What it sees of the host; NULL if that is nothing.
    pub mounts: *const blink_mount,
    /// How many they are.
    pub mounts_count: usize,
    /// Its ports that programs of the host reach, as they were asked for: port 0 of the host is any that is free each time
    /// that it runs, which blink_sandbox_published_port() tells. NULL if there are none.
    pub ports: *const blink_port,
    /// How many they are.
    pub ports_count: usize,
    /// What blink_session_info_dispose() frees; NULL in what a list has filled in.
    pub owner: *mut blink_session_list,
}

structure!(blink_session_info, zeros());

/// Sets up a blink_session_info to be filled in.
///
/// @param info  Written.
/// @param size  sizeof(blink_session_info).
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for NULL and for a size that no version of it has: the call that it is for
///         then fails, too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_info_init(
    info: *mut blink_session_info,
    size: usize,
) -> blink_status {
    init!(info, size)
}

/// Lists all sessions of the home, by name, whoever has them.
///
/// @param blink  Borrowed. May be used from several threads at once.
/// @param out    Set on success; free with blink_session_list_free(). NULL on failure.
/// @param err    May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); CORRUPT and UNSUPPORTED if the list of sessions is damaged, or of a later version.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_list_all(
    blink: *const blink,
    out: *mut *mut blink_session_list,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let blink = handle::get(blink)?;
        let core = blink.core();
        let list = core.wait(std::ptr::null(), core.blink().sessions())?;
        out.give(blink_session_list::new(list));
        Ok(())
    })
}

/// What there is to say about a session, whoever has it.
///
/// @param blink  Borrowed. May be used from several threads at once.
/// @param name   Its name.
/// @param info   Set up with blink_session_info_init(), and filled in; free what is in it with blink_session_info_dispose().
/// @param err    May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); NOT_FOUND.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_info_find(
    blink: *const blink,
    name: *const c_char,
    info: *mut blink_session_info,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        caller.to_fill(info, "info")?;
        let blink = handle::get(blink)?;
        let core = blink.core();
        let name = caller.text(name, "name")?;
        let found = core.wait(std::ptr::null(), core.blink().session_info(name))?;
        fill(caller, info, found)
    })
}

/// What there is to say about a session that this process has, whatever its name is now.
///
/// @param session  Borrowed. May be used from several threads at once.
/// @param info     Set up with blink_session_info_init(), and filled in; free what is in it with
///                 blink_session_info_dispose().
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0), or INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_info_get(
    session: *const blink_session,
    info: *mut blink_session_info,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        caller.to_fill(info, "info")?;
        let session = handle::get(session)?;
        let found = session.core().wait(std::ptr::null(), async {
            Ok::<_, blink_core::Error>(session.session.info().await)
        })?;
        fill(caller, info, found)
    })
}

/// Fills in a structure that owns what it shows.
fn fill(
    caller: &Caller<'_>,
    info: *mut blink_session_info,
    found: SessionInfo,
) -> Result<(), Failure> {
    let list = blink_session_list::new(vec![found]);
    let mut filled = list.0[0].filled();
    // It stays where it is in memory.
    filled.owner = handle::give(list);
    caller
        .fill(info, &filled, "info")
        .inspect_err(|_| handle::free(filled.owner))
}

/// Frees what is in a blink_session_info, and sets it up to be filled in again.
///
/// @param info  What blink_session_info_get() or blink_session_info_find() has filled in, or what was only set up. NULL does
///              nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_info_dispose(info: *mut blink_session_info) {
    dispose!(info)
}

/// The number of sessions in a list.
///
/// @param list  Borrowed. May be used from several threads at once.
/// @return 0 for NULL or an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_session_list_count(list: *const blink_session_list) -> usize {
    quietly(0, || handle::get(list).map_or(0, |list| list.0.len()))
}

/// A session of a list.
///
/// @param list   Borrowed. May be used from several threads at once.
/// @param index  From 0.
/// @param info   Set up with blink_session_info_init(), and filled in. Its strings belong to the list.
/// @param err    May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0), or INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_list_get(
    list: *const blink_session_list,
    index: usize,
    info: *mut blink_session_info,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let list = handle::get(list)?;
        let shown = list.0.get(index).ok_or_else(|| no_such(index))?;
        caller.fill(info, &shown.filled(), "info")
    })
}

/// Frees a list with its strings.
///
/// @param list  Taken. NULL does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn blink_session_list_free(list: *mut blink_session_list) {
    handle::free(list);
}

fn whole_milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn network(network: &Network) -> i32 {
    let known = match network {
        Network::None => blink_network::None,
        Network::Hosts(_) => blink_network::Hosts,
        _ => blink_network::Host,
    };
    known as i32
}
