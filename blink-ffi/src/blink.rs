//! The way in.

use std::ffi::c_char;
use std::sync::Arc;

use blink_core::Blink;
use blink_core::RegistryOptions;

use crate::call::{Caller, call, init};
use crate::cancel::blink_cancel;
use crate::command::{blink_command, flag};
use crate::core::Core;
use crate::error::blink_error;
use crate::failure::Failure;
use crate::handle;
use crate::isolation::isolation;
use crate::output::blink_output;
use crate::progress::Telling;
use crate::sandbox_options::blink_sandbox_options;
use crate::sized::{structure, zeros};
use crate::status::blink_status;

/// Blink, opened: everything begins here.
pub struct blink {
    core: Arc<Core>,
}

impl blink {
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }
}

/// How to open Blink. Everything is borrowed for the call.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct blink_options {
    /// sizeof(blink_options), set by blink_options_init().
    pub size: usize,
    /// The folder for everything that Blink keeps. NULL: BLINK_HOME of the environment, or ~/.blink.
    pub home: *const c_char,
    /// A blink_isolation: that of sandboxes that do not say. BLINK_ISOLATION_DEFAULT by default.
    pub isolation: i32,
    /// 1: the network is never used; images are those that are stored, and those of folders and files. 0 by default.
    pub offline: u32,
    /// Mirrors that are asked before a registry, as "REGISTRY=URL".
    pub mirrors: *const *const c_char,
    /// How many they are.
    pub mirrors_count: usize,
    /// Registries that are talked to over plain HTTP, as "HOST[:PORT]".
    pub insecure_registries: *const *const c_char,
    /// How many they are.
    pub insecure_registries_count: usize,
    /// A file in PEM with certificate authorities to trust besides this machine's. NULL: none.
    pub registry_ca: *const c_char,
    /// Logins for registries, as "REGISTRY=USER:PASSWORD". Others are those of `docker login`.
    pub credentials: *const *const c_char,
    /// How many they are.
    pub credentials_count: usize,
    /// A file to take logins from instead of docker's own config.json. NULL: none.
    pub docker_config: *const c_char,
    /// Bytes that the layers of an image may have together, as they are stored and as they are unpacked. 0: 16 GiB.
    pub image_limit_bytes: u64,
}

structure!(blink_options, zeros());

/// Sets options to their defaults.
///
/// @param options  Written.
/// @param size     sizeof(blink_options).
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for NULL and for a size that no version of it has: the call that it is for
///         then fails, too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_options_init(
    options: *mut blink_options,
    size: usize,
) -> blink_status {
    init!(options, size)
}

/// Opens Blink: its home, and up to 8 threads that all its calls share. What processes that are gone have left in the home
/// is removed. Several may be open at once, also of one home.
///
/// @param options  Borrowed. NULL is the defaults.
/// @param out      Set on success; close with blink_close(). NULL on failure.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for options that cannot be right, an empty home too; NOT_FOUND, NOT_A_DIRECTORY,
///         NAME_TOO_LONG and what else a folder meets where the home cannot be made; RESOURCE_EXHAUSTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_open(
    options: *const blink_options,
    out: *mut *mut blink,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let asked = caller.options(options, "options")?;
        let mut builder = Blink::builder();
        if flag(asked.offline, "offline")? {
            builder = builder.with_offline(true);
        }
        if let Some(isolation) = isolation(asked.isolation)? {
            builder = builder.isolation(isolation);
        }
        if let Some(home) = caller.optional_words(asked.home, "home")? {
            builder = builder.home(home);
        }
        let mut registry = RegistryOptions::default();
        for mirror in caller.all_texts(asked.mirrors, asked.mirrors_count, "mirrors")? {
            let (name, url) = mirror.split_once('=').ok_or_else(|| {
                Failure::invalid(format!("{mirror:?} in mirrors is not REGISTRY=URL"))
            })?;
            registry = registry.with_mirror(name, url);
        }
        let insecure = caller.all_texts(
            asked.insecure_registries,
            asked.insecure_registries_count,
            "insecure_registries",
        )?;
        for name in insecure {
            registry = registry.with_insecure(name);
        }
        if let Some(file) = caller.optional_words(asked.registry_ca, "registry_ca")? {
            registry = registry.with_ca_file(file);
        }
        if let Some(file) = caller.optional_words(asked.docker_config, "docker_config")? {
            registry = registry.with_docker_config(file);
        }
        let credentials = asked.credentials;
        for login in caller.all_texts(credentials, asked.credentials_count, "credentials")? {
            let parts = login
                .split_once('=')
                .and_then(|(name, login)| Some((name, login.split_once(':')?)));
            // Without what was given: it has a password in it.
            let (name, (user, password)) = parts.ok_or_else(|| {
                Failure::invalid("an element of credentials is not REGISTRY=USER:PASSWORD")
            })?;
            registry = registry.with_credentials(name, user, password);
        }
        if asked.image_limit_bytes > 0 {
            builder = builder.image_limit_bytes(asked.image_limit_bytes);
        }
        let core = Core::open(builder.with_registry(registry))?;
        out.give(blink { core });
        Ok(())
    })
}

/// Closes Blink. What was made from it stays good until it is freed; the threads end with the last of it, which may wait
/// up to a minute for what was cancelled and is being undone. Two threads may close at once: the second does nothing.
///
/// @param blink  Taken. NULL does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn blink_close(blink: *mut blink) {
    handle::free(blink);
}

/// Runs one command in a sandbox of its own, which is gone afterwards. A command that exits with another code than 0, or
/// is killed when its time is over, is no failure: the output says so.
///
/// @param blink    Borrowed. May be used from several threads at once.
/// @param options  The sandbox's. Borrowed; NULL is the defaults. It cannot be detached.
/// @param command  Borrowed.
/// @param cancel   Borrowed. NULL: it cannot be cancelled.
/// @param out      Set on success; free with blink_output_free(). NULL on failure.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0), or as blink_sandbox_create() and blink_sandbox_exec().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_run(
    blink: *const blink,
    options: *const blink_sandbox_options,
    command: *const blink_command,
    cancel: *const blink_cancel,
    out: *mut *mut blink_output,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let blink = handle::get(blink)?;
        let options = caller.sandbox_options(options)?;
        if options.detached {
            return Err(Failure::invalid(
                "the sandbox of one command cannot be detached; make it with blink_sandbox_create()",
            ));
        }
        let command = caller.command(command)?;
        let telling = Telling::new(options.progress, options.progress_data);
        let builder = options.describe(blink.core.blink().sandbox(), &telling);
        let output = telling.wait(&blink.core, cancel, async {
            let sandbox = builder.create().await?;
            let result = sandbox.exec(command).await;
            let removed = sandbox.remove().await;
            let output = result?;
            removed.map(|()| output)
        })?;
        out.give(blink_output::new(output));
        Ok(())
    })
}

impl Caller<'_> {
    /// A number of milliseconds that may be "none".
    pub(crate) fn milliseconds(&self, number: u64) -> Option<std::time::Duration> {
        (number > 0).then(|| std::time::Duration::from_millis(number))
    }
}
