//! Pools.

use std::ffi::{CString, c_char};
use std::sync::Arc;
use std::time::Duration;

use blink_core::{Claim, Command, Latency, Pool, PoolBuilder, PoolStats, SharedPool, WhenEmpty};

use crate::blink::blink;
use crate::bytes::blink_bytes;
use crate::call::{Caller, call, init};
use crate::cancel::blink_cancel;
use crate::command::{blink_command, flag};
use crate::core::{Core, Held};
use crate::error::blink_error;
use crate::failure::{Failure, quietly};
use crate::handle;
use crate::progress::Telling;
use crate::sandbox::blink_sandbox;
use crate::sandbox_options::blink_sandbox_options;
use crate::session::blink_session;
use crate::sized::{structure, zeros};
use crate::status::blink_status;
use crate::strings::blink_strings;
use crate::text::{cut, pointer};

/// Sandboxes that are booted before they are asked for: a pool of this process, or one that another keeps.
pub struct blink_pool {
    pool: Held<Either>,
    name: Option<CString>,
}

enum Either {
    Own(Pool),
    Other(SharedPool),
}

impl Either {
    fn claim(&self) -> Claim {
        match self {
            Either::Own(pool) => pool.claim(),
            Either::Other(pool) => pool.claim(),
        }
    }

    async fn stats(&self) -> blink_core::Result<PoolStats> {
        match self {
            Either::Own(pool) => Ok(pool.stats()),
            Either::Other(pool) => pool.stats().await,
        }
    }
}

impl blink_pool {
    fn new(core: &Arc<Core>, pool: Either) -> blink_pool {
        let name = match &pool {
            Either::Own(pool) => pool.name().map(cut),
            Either::Other(pool) => Some(cut(pool.name())),
        };
        blink_pool {
            pool: Held::new(core, pool),
            name,
        }
    }
}

/// A pool to make. Everything is borrowed for the call that it is given to.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct blink_pool_options {
    /// sizeof(blink_pool_options), set by blink_pool_options_init().
    pub size: usize,
    /// What each of its sandboxes is. NULL is the defaults. Ports, a host name and `detached` are not a pool's.
    pub sandbox: *const blink_sandbox_options,
    /// Its name, in statistics and errors. NULL: none.
    pub name: *const c_char,
    /// Sandboxes that are ready at any time; 1 by default.
    pub ready: usize,
    /// Sandboxes in all: those that are ready, boot, or were claimed and are not gone. 0: `ready` and 64 more.
    pub max: usize,
    /// Sandboxes that boot at once while no claim waits. 0: half of the host's processors.
    pub refill: usize,
    /// Milliseconds after its boot for which a sandbox waits until it is replaced. 0: no limit.
    pub max_age_ms: u64,
    /// Milliseconds without a claim after which no sandbox is kept ready, until the next claim. 0: no limit.
    pub max_idle_ms: u64,
    /// Milliseconds that a command of `warmup` or `prepare` may take that has no timeout. 0: 5 minutes.
    pub warmup_timeout_ms: u64,
    /// Commands that run once, when the pool is made. All its sandboxes share the disk that they leave.
    pub warmup: *const blink_command,
    /// How many they are.
    pub warmup_count: usize,
    /// Commands that run in each sandbox before it is ready.
    pub prepare: *const blink_command,
    /// How many they are.
    pub prepare_count: usize,
    /// Programs that are started in each sandbox, and go on. One in which such a program has ended is replaced.
    pub start: *const blink_command,
    /// How many they are.
    pub start_count: usize,
    /// Languages whose interpreter is started in each sandbox and waits for the first code of a claimant: "python".
    pub interpreters: *const *const c_char,
    /// How many they are.
    pub interpreters_count: usize,
    /// 1: other processes of the home can claim from it by its name, with blink_pool_open(); it needs namespaces. 0 by default.
    pub shared: u32,
    /// 1: a claim waits for the next sandbox if none is ready. 0, the default: it boots one, and fails if that does.
    pub waits: u32,
    /// 1: the number of sandboxes stays the same: a released one is reset, and only then claimed again. 0 by default.
    pub resets: u32,
    /// Always 0.
    pub reserved: u32,
}

structure!(
    blink_pool_options,
    blink_pool_options {
        ready: 1,
        ..zeros()
    },
    reserved
);

/// What a claimed sandbox is beside what its pool's are. Everything is borrowed for the call that it is given to.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct blink_claim_options {
    /// sizeof(blink_claim_options), set by blink_claim_options_init().
    pub size: usize,
    /// Of which env, hostname, memory_mib (no more than the pool's), network, hosts and ports can be said. NULL: nothing.
    pub sandbox: *const blink_sandbox_options,
    /// Labels as "NAME=VALUE" in UTF-8, which a session keeps.
    pub labels: *const *const c_char,
    /// How many they are.
    pub labels_count: usize,
    /// Milliseconds that a sandbox is waited for; 60,000 by default, 0 does not wait.
    pub timeout_ms: u64,
    /// Makes a repeated claim harmless: while what a key has claimed is there, nothing else is claimed with it, for 24 h, also
    /// after a crash of this process. A session is opened again; a sandbox that somebody has is BUSY. 256 bytes at most. NULL:
    /// none.
    pub key: *const c_char,
}

structure!(
    blink_claim_options,
    blink_claim_options {
        timeout_ms: 60_000,
        ..zeros()
    }
);

/// How long something took, each time that it was done. It never grows.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct blink_latency {
    /// How often it was done.
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

/// What has happened in a pool, and what it has now.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct blink_pool_stats {
    /// sizeof(blink_pool_stats), set by blink_pool_stats_init().
    pub size: usize,
    /// How many sandboxes are to be ready.
    pub ready: usize,
    /// How many there may be in all.
    pub max: usize,
    /// Those that are ready.
    pub idle: usize,
    /// Those that boot.
    pub booting: usize,
    /// Those that were claimed and are not gone, and those that are being removed.
    pub claimed: usize,
    /// Claims that wait for a sandbox.
    pub waiting: usize,
    /// Claims that found a sandbox ready.
    pub hits: u64,
    /// Claims that waited for one.
    pub misses: u64,
    /// Claims that failed.
    pub failed_claims: u64,
    /// Boots that succeeded.
    pub boots: u64,
    /// Boots that failed.
    pub failed_boots: u64,
    /// Boots that were not begun for want of memory.
    pub refused: u64,
    /// Sandboxes that died before they were claimed.
    pub deaths: u64,
    /// Sandboxes that were too old, or not needed.
    pub retired: u64,
    /// Sandboxes that were reset.
    pub resets: u64,
    /// From a claim to its sandbox.
    pub claim: blink_latency,
    /// From the beginning of a boot until its sandbox is ready.
    pub boot: blink_latency,
    /// From a sandbox's end until nothing of it is left.
    pub removal: blink_latency,
}

structure!(blink_pool_stats, zeros());

/// Sets options to their defaults.
///
/// @param options  Written.
/// @param size     sizeof(blink_pool_options).
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for NULL and for a size that no version of it has: the call that it is for
///         then fails, too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_pool_options_init(
    options: *mut blink_pool_options,
    size: usize,
) -> blink_status {
    init!(options, size)
}

/// Sets options to their defaults.
///
/// @param options  Written.
/// @param size     sizeof(blink_claim_options).
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for NULL and for a size that no version of it has: the call that it is for
///         then fails, too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_claim_options_init(
    options: *mut blink_claim_options,
    size: usize,
) -> blink_status {
    init!(options, size)
}

/// Sets up a blink_pool_stats to be filled in.
///
/// @param stats  Written.
/// @param size   sizeof(blink_pool_stats).
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for NULL and for a size that no version of it has: the call that it is for
///         then fails, too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_pool_stats_init(
    stats: *mut blink_pool_stats,
    size: usize,
) -> blink_status {
    init!(stats, size)
}

impl Caller<'_> {
    fn commands(
        &self,
        first: *const blink_command,
        count: usize,
        what: &str,
    ) -> Result<Vec<Command>, Failure> {
        let commands = self.array(first, count, what)?;
        let commands = commands.iter().map(|command| self.command(command));
        commands.collect()
    }

    fn claim_options(
        &self,
        options: *const blink_claim_options,
        claim: Claim,
    ) -> Result<Claim, Failure> {
        let asked = self.options(options, "the claim's options")?;
        let sandbox = self.sandbox_options(asked.sandbox)?;
        if sandbox.detached {
            return Err(Failure::invalid(
                "a sandbox of a pool cannot be detached; claim it as a session",
            ));
        }
        let mut spec = sandbox.spec;
        for label in self.all_texts(asked.labels, asked.labels_count, "labels")? {
            let (name, value) = label.split_once('=').ok_or_else(|| {
                Failure::invalid(format!("{label:?} in labels is not NAME=VALUE"))
            })?;
            spec.labels.insert(name.to_owned(), value.to_owned());
        }
        let claim = claim
            .asking(spec)
            .timeout(Duration::from_millis(asked.timeout_ms));
        Ok(match self.optional_text(asked.key, "key")? {
            Some(key) => claim.key(key),
            None => claim,
        })
    }

    /// What is asked for of the pool itself.
    fn described(
        &self,
        asked: &blink_pool_options,
        mut builder: PoolBuilder,
    ) -> Result<PoolBuilder, Failure> {
        if let Some(name) = self.optional_text(asked.name, "name")? {
            builder = builder.name(name);
        }
        if asked.max > 0 {
            builder = builder.max(asked.max);
        }
        if asked.refill > 0 {
            builder = builder.refill(asked.refill);
        }
        if let Some(age) = self.milliseconds(asked.max_age_ms) {
            builder = builder.max_age(age);
        }
        if let Some(idle) = self.milliseconds(asked.max_idle_ms) {
            builder = builder.max_idle(idle);
        }
        if let Some(timeout) = self.milliseconds(asked.warmup_timeout_ms) {
            builder = builder.warmup_timeout(timeout);
        }
        for command in self.commands(asked.warmup, asked.warmup_count, "warmup")? {
            builder = builder.warmup(command);
        }
        for command in self.commands(asked.prepare, asked.prepare_count, "prepare")? {
            builder = builder.prepare(command);
        }
        for command in self.commands(asked.start, asked.start_count, "start")? {
            builder = builder.start(command);
        }
        for language in
            self.all_texts(asked.interpreters, asked.interpreters_count, "interpreters")?
        {
            builder = builder.interpreter(language);
        }
        if flag(asked.waits, "waits")? {
            builder = builder.when_empty(WhenEmpty::Wait);
        }
        Ok(builder
            .size(asked.ready)
            .shared(flag(asked.shared, "shared")?)
            .reset_on_release(flag(asked.resets, "resets")?))
    }
}

/// Makes a pool: fetches its image, runs the commands of `warmup`, and begins to boot, which blink_pool_ready() waits for.
///
/// @param blink    Borrowed. May be used from several threads at once.
/// @param options  Borrowed. NULL is the defaults.
/// @param cancel   Borrowed. NULL: it cannot be cancelled.
/// @param out      Set on success; free with blink_pool_free(). NULL on failure.
/// @param err      May be NULL. If set, free with blink_error_free(). If a command has failed, blink_error_output() has its output.
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for options that no pool can have, and a command that fails; TIMEOUT for one
///         that does not end; ALREADY_EXISTS if another process keeps a shared pool of this name; CANCELLED; otherwise as
///         blink_sandbox_create().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_pool_create(
    blink: *const blink,
    options: *const blink_pool_options,
    cancel: *const blink_cancel,
    out: *mut *mut blink_pool,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let blink = handle::get(blink)?;
        let core = blink.core();
        let asked = caller.options(options, "the pool's options")?;
        let sandbox = caller.sandbox_options(asked.sandbox)?;
        if sandbox.detached {
            return Err(Failure::invalid(
                "sandboxes of a pool cannot be detached; share the pool with other processes instead",
            ));
        }
        let spec = sandbox.spec.clone();
        let builder = caller.described(&asked, core.blink().pool(spec))?;
        let telling = Telling::new(sandbox.progress, sandbox.progress_data);
        let image = sandbox.describe(core.blink().sandbox(), &telling);
        let pool = telling.wait(core, cancel, async move {
            // With its progress, which a pool does not tell.
            image.fetch_image().await?;
            builder.build().await
        })?;
        out.give(blink_pool::new(core, Either::Own(pool)));
        Ok(())
    })
}

/// Attaches to a pool that another process of this home keeps.
///
/// @param blink  Borrowed. May be used from several threads at once.
/// @param name   Its name.
/// @param out    Set on success; free with blink_pool_free(). NULL on failure.
/// @param err    May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); NOT_FOUND if none does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_pool_open(
    blink: *const blink,
    name: *const c_char,
    out: *mut *mut blink_pool,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let blink = handle::get(blink)?;
        let core = blink.core();
        let name = caller.text(name, "name")?;
        let pool = core.wait(std::ptr::null(), core.blink().open_pool(name))?;
        out.give(blink_pool::new(core, Either::Other(pool)));
        Ok(())
    })
}

/// Lists the names of the pools that processes of this home keep for others.
///
/// @param blink  Borrowed. May be used from several threads at once.
/// @param out    Set on success; free with blink_strings_free(). NULL on failure.
/// @param err    May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0), or INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_pool_list(
    blink: *const blink,
    out: *mut *mut blink_strings,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let blink = handle::get(blink)?;
        let core = blink.core();
        let pools = core.wait(std::ptr::null(), async {
            Ok::<_, blink_core::Error>(core.blink().pools().await)
        })?;
        out.give(blink_strings::new(
            pools.into_iter().filter_map(|pool| pool.name),
        ));
        Ok(())
    })
}

/// The name of a pool.
///
/// @param pool  Borrowed. May be used from several threads at once.
/// @return There until the pool is freed. NULL if it has none, for NULL, or for an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_pool_name(pool: *const blink_pool) -> *const c_char {
    quietly(std::ptr::null(), || {
        let pool = handle::get(pool);
        pool.map_or(std::ptr::null(), |pool| pointer(pool.name.as_ref()))
    })
}

/// Waits until as many sandboxes are ready as are to be. A pool that another process keeps is asked whether it is there.
///
/// @param pool    Borrowed. May be used from several threads at once.
/// @param cancel  Borrowed. NULL: it cannot be cancelled.
/// @param err     May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT if a command of `prepare` fails, or the pool was closed; NOT_FOUND if its
///         process is gone; CANCELLED; otherwise what made a boot fail.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_pool_ready(
    pool: *const blink_pool,
    cancel: *const blink_cancel,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |_caller| {
        let pool = handle::get(pool)?;
        let core = pool.pool.core().clone();
        core.wait(cancel, async {
            match &*pool.pool {
                Either::Own(pool) => pool.ready().await,
                Either::Other(pool) => pool.stats().await.map(drop),
            }
        })
    })
}

/// Claims a sandbox: one that is ready if there is one, and otherwise the next that boots. Who comes first is served first. It
/// is used once: removed when it is freed, and never handed out again.
///
/// @param pool     Borrowed. May be used from several threads at once.
/// @param options  Borrowed. NULL is the defaults.
/// @param cancel   Borrowed. NULL: it cannot be cancelled.
/// @param out      Set on success; free with blink_sandbox_free(). NULL on failure.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); TIMEOUT if there is none in time; BUSY if somebody has what the key has claimed; INVALID_ARGUMENT for invalid options, and once the pool is
///         closed; NOT_FOUND if the pool's process is gone; CANCELLED; otherwise as blink_sandbox_create(), if a boot for it fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_pool_claim(
    pool: *const blink_pool,
    options: *const blink_claim_options,
    cancel: *const blink_cancel,
    out: *mut *mut blink_sandbox,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let pool = handle::get(pool)?;
        let claim = caller.claim_options(options, pool.pool.claim())?;
        let core = pool.pool.core().clone();
        let sandbox = core.wait(cancel, async { claim.await })?;
        out.give(blink_sandbox::new(&core, Arc::new(sandbox)));
        Ok(())
    })
}

/// Claims a sandbox and gives it a name: from then on it is a session, with the processes and the disk that it has. It costs no
/// boot.
///
/// @param pool     Borrowed. May be used from several threads at once.
/// @param name     The session's.
/// @param options  Borrowed. NULL is the defaults.
/// @param cancel   Borrowed. NULL: it cannot be cancelled. A session that is being made may be there afterwards.
/// @param out      Set on success; free with blink_session_free(). NULL on failure.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); ALREADY_EXISTS; otherwise as blink_pool_claim().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_pool_claim_as(
    pool: *const blink_pool,
    name: *const c_char,
    options: *const blink_claim_options,
    cancel: *const blink_cancel,
    out: *mut *mut blink_session,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let pool = handle::get(pool)?;
        let name = caller.text(name, "name")?.to_owned();
        let claim = caller.claim_options(options, pool.pool.claim())?;
        let core = pool.pool.core().clone();
        let session = core.wait(cancel, core.whole(claim.into_session(name)))?;
        out.give(blink_session::new(&core, session));
        Ok(())
    })
}

/// What has happened in a pool, and what it has now.
///
/// @param pool   Borrowed. May be used from several threads at once.
/// @param stats  Set up with blink_pool_stats_init(), and filled in.
/// @param err    May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT; NOT_FOUND if the process that kept it is gone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_pool_stats_get(
    pool: *const blink_pool,
    stats: *mut blink_pool_stats,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        caller.to_fill(stats, "stats")?;
        let pool = handle::get(pool)?;
        let now = pool.pool.core().wait(std::ptr::null(), pool.pool.stats())?;
        let filled = blink_pool_stats {
            size: 0,
            ready: now.size,
            max: now.max,
            idle: now.idle,
            booting: now.booting,
            claimed: now.claimed,
            waiting: now.waiting,
            hits: now.hits,
            misses: now.misses,
            failed_claims: now.failed_claims,
            boots: now.boots,
            failed_boots: now.failed_boots,
            refused: now.refused,
            deaths: now.deaths,
            retired: now.retired,
            resets: now.resets,
            claim: latency(now.claim_latency),
            boot: latency(now.boot_latency),
            removal: latency(now.removal_latency),
        };
        caller.fill(stats, &filled, "stats")
    })
}

fn latency(of: Latency) -> blink_latency {
    blink_latency {
        count: of.count,
        sum_us: of.sum_us,
        p50_us: of.p50_us,
        p95_us: of.p95_us,
        p99_us: of.p99_us,
        max_us: of.max_us,
    }
}

/// What blink_pool_stats_get() tells, as text in the format of OpenMetrics, which Prometheus reads.
///
/// @param pool  Borrowed. May be used from several threads at once.
/// @param out   Set on success; free with blink_bytes_free(). NULL on failure.
/// @param err   May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT; NOT_FOUND if the process that kept it is gone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_pool_openmetrics(
    pool: *const blink_pool,
    out: *mut *mut blink_bytes,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let pool = handle::get(pool)?;
        let now = pool.pool.core().wait(std::ptr::null(), pool.pool.stats())?;
        out.give(blink_bytes::new(now.to_openmetrics().into_bytes().into()));
        Ok(())
    })
}

/// Closes a pool, also one that another process keeps, and waits until the claimed sandboxes are gone. Claims that wait fail, as
/// do later ones.
///
/// @param pool        Borrowed. May be used from several threads at once.
/// @param timeout_ms  Milliseconds that they are waited for.
/// @param cancel      Borrowed. NULL: it cannot be cancelled.
/// @param err         May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); TIMEOUT if some are still in use: the pool is closed nevertheless; INVALID_ARGUMENT; NOT_FOUND if
///         its process is gone; CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_pool_drain(
    pool: *const blink_pool,
    timeout_ms: u64,
    cancel: *const blink_cancel,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |_caller| {
        let pool = handle::get(pool)?;
        let core = pool.pool.core().clone();
        let patience = Duration::from_millis(timeout_ms);
        core.wait(cancel, async {
            match &*pool.pool {
                Either::Own(pool) => pool.drain(patience).await,
                Either::Other(pool) => pool.drain(patience).await,
            }
        })
    })
}

/// Frees a pool, which closes it; one that another process keeps goes on. Claimed sandboxes stay with who has them.
///
/// @param pool  Taken. NULL does nothing. Calls that are under way on it end first.
#[unsafe(no_mangle)]
pub extern "C" fn blink_pool_free(pool: *mut blink_pool) {
    handle::free(pool);
}
