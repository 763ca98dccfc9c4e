//! Connections into sandboxes, as sockets.

use std::ffi::c_char;
use std::os::fd::IntoRawFd;

use blink_core::{Connection, Error};

use crate::call::{Caller, call};
use crate::cancel::blink_cancel;
use crate::core::Core;
use crate::error::blink_error;
use crate::failure::Failure;
use crate::handle;
use crate::sandbox::blink_sandbox;
use crate::status::blink_status;

/// Waits for a connection, and hands it over as a socket.
fn connect(
    caller: &Caller<'_>,
    core: &Core,
    cancel: *const blink_cancel,
    fd: *mut i32,
    connecting: impl Future<Output = Result<Connection, Error>>,
) -> Result<(), Failure> {
    let socket = core.wait(cancel, async { connecting.await?.into_socket() })?;
    caller.set(fd, socket.into_raw_fd());
    Ok(())
}

/// Connects to a TCP port inside a sandbox, whatever its network.
///
/// What comes of it is a connected stream socket, which blocks unless it is told otherwise, and is not inherited by programs
/// that are started. It behaves as a socket does: read(), write(), poll(), and shutdown() with SHUT_WR, which ends the one
/// direction for the peer; what was written before close() arrives. A write to a peer that has gone raises SIGPIPE: use
/// send() with MSG_NOSIGNAL. When the sandbox ends, or its handle is freed, the socket is at its end.
///
/// @param sandbox  Borrowed. May be used from several threads at once.
/// @param host     "localhost", or an IP address of the sandbox's.
/// @param port     The port.
/// @param cancel   Borrowed. NULL: it cannot be cancelled.
/// @param fd       Set to the socket, which is the caller's: close it with close(). -1 on failure.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); NOT_FOUND if nothing answers; INVALID_ARGUMENT if it is not an address;
///         RESOURCE_EXHAUSTED if there are no more descriptors; SANDBOX_DIED; CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_sandbox_connect_tcp(
    sandbox: *const blink_sandbox,
    host: *const c_char,
    port: u16,
    cancel: *const blink_cancel,
    fd: *mut i32,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let fd = caller.place(fd, -1)?;
        let held = handle::get(sandbox)?;
        let host = caller.text(host, "host")?;
        let connecting = held.sandbox.connect_tcp(host, port);
        connect(caller, held.sandbox.core(), cancel, fd, connecting)
    })
}

/// Connects to a unix socket inside a sandbox, as blink_sandbox_connect_tcp().
///
/// @param sandbox  Borrowed. May be used from several threads at once.
/// @param path     The socket's path in the sandbox, absolute.
/// @param cancel   Borrowed. NULL: it cannot be cancelled.
/// @param fd       Set to the socket, which is the caller's: close it with close(). -1 on failure.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return As blink_sandbox_connect_tcp().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_sandbox_connect_unix(
    sandbox: *const blink_sandbox,
    path: *const c_char,
    cancel: *const blink_cancel,
    fd: *mut i32,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let fd = caller.place(fd, -1)?;
        let held = handle::get(sandbox)?;
        let path = caller.words(path, "path")?;
        let connecting = held.sandbox.connect_unix(path);
        connect(caller, held.sandbox.core(), cancel, fd, connecting)
    })
}
