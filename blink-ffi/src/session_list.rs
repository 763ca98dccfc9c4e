//! What there is to say about sessions.

use std::ffi::{CString, c_char};
use std::time::Duration;

use blink_core::{Network, SessionInfo};

use crate::blink::blink;
use crate::call::{call, init};
use crate::entries::milliseconds;
use crate::error::blink_error;
use crate::failure::quietly;
use crate::handle;
use crate::processes::no_such;
use crate::sandbox_options::{blink_mount, blink_network, blink_port};
use crate::session::blink_session;
use crate::shown::Shown as Array;
use crate::sized::{structure, zeros};
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
    labels: Vec<CString>,
    hosts: Array<*const c_char>,
    mounts: Array<blink_mount>,
    ports: Array<blink_port>,
}

impl blink_session_list {
    pub(crate) fn new(list: Vec<SessionInfo>) -> blink_session_list {
        let show = |info: SessionInfo| Shown {
            name: cut(info.name.clone()),
            id: cut(info.id.clone()),
            image: cut(info.image.clone()),
            forked_from: info.forked_from.clone().map(cut),
            checkpoint: info.checkpoint.clone().map(cut),
            labels: info
                .labels
                .iter()
                .map(|(name, value)| cut(format!("{name}={value}")))
                .collect(),
            hosts: Array::texts(match &info.network {
                Network::Hosts(hosts) => hosts,
                _ => &[],
            }),
            mounts: Array::mounts(&info.mounts),
            ports: Array::ports(&info.publish),
            info,
        };
        blink_session_list(list.into_iter().map(show).collect())
    }
}

/// A session in a list. Its strings belong to the list.
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
    /// How many labels it has: blink_session_list_label() gives them.
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

/// What there is to say about one session, whoever has it: a list of one.
///
/// @param blink  Borrowed. May be used from several threads at once.
/// @param name   Its name.
/// @param out    Set on success; free with blink_session_list_free(). NULL on failure.
/// @param err    May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); NOT_FOUND.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_list_one(
    blink: *const blink,
    name: *const c_char,
    out: *mut *mut blink_session_list,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let blink = handle::get(blink)?;
        let core = blink.core();
        let name = caller.text(name, "name")?;
        let info = core.wait(std::ptr::null(), core.blink().session_info(name))?;
        out.give(blink_session_list::new(vec![info]));
        Ok(())
    })
}

/// What there is to say about a session that this process has, whatever its name is now: a list of one.
///
/// @param session  Borrowed. May be used from several threads at once.
/// @param out      Set on success; free with blink_session_list_free(). NULL on failure.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0), or INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_list_of(
    session: *const blink_session,
    out: *mut *mut blink_session_list,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let session = handle::get(session)?;
        let info = session.core().wait(std::ptr::null(), async {
            Ok::<_, blink_core::Error>(session.session.info().await)
        })?;
        out.give(blink_session_list::new(vec![info]));
        Ok(())
    })
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
        let filled = blink_session_info {
            size: 0,
            name: shown.name.as_ptr(),
            id: shown.id.as_ptr(),
            isolation: isolation(shown.info.isolation).as_ptr(),
            image: shown.image.as_ptr(),
            forked_from: pointer(shown.forked_from.as_ref()),
            checkpoint: pointer(shown.checkpoint.as_ref()),
            running: shown.info.running.into(),
            warm: shown.info.warm.into(),
            created_ms: milliseconds(shown.info.created_at),
            disk_bytes: shown.info.disk_bytes,
            labels_count: shown.labels.len(),
            cpus: shown.info.resources.cpus.unwrap_or(0.0),
            memory_mib: shown.info.resources.memory_mib.unwrap_or(0),
            disk_mib: shown.info.resources.disk_mib,
            processes: shown.info.resources.processes,
            idle_stop_ms: shown.info.idle_stop.map_or(0, whole_milliseconds),
            network: network(&shown.info.network),
            reserved: 0,
            hosts: shown.hosts.first(),
            hosts_count: shown.hosts.count(),
            mounts: shown.mounts.first(),
            mounts_count: shown.mounts.count(),
            ports: shown.ports.first(),
            ports_count: shown.ports.count(),
        };
        caller.fill(info, &filled, "info")
    })
}

/// A label of a session of a list.
///
/// @param list   Borrowed. May be used from several threads at once.
/// @param index  The session's, from 0.
/// @param label  The label's, from 0.
/// @return "NAME=VALUE", which belongs to the list; NULL if the index is out of range.
#[unsafe(no_mangle)]
pub extern "C" fn blink_session_list_label(
    list: *const blink_session_list,
    index: usize,
    label: usize,
) -> *const c_char {
    quietly(std::ptr::null(), || {
        let list = handle::get(list).ok();
        let session = list.as_ref().and_then(|list| list.0.get(index));
        pointer(session.and_then(|session| session.labels.get(label)))
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
