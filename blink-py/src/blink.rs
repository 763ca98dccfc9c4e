//! The way in.

use std::sync::Arc;

use blink_core::{
    Blink as CoreBlink, BlinkBuilder, Command, DEFAULT_PATIENCE, SandboxBuilder, SessionBuilder,
};
use blink_core::{PullProgress, RegistryOptions};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokio::sync::OnceCell;

use crate::arguments;
use crate::call::Call;
use crate::failure::Failure;
use crate::given::Latest;
use crate::pool::Pool;
use crate::runtime::{Boxed, to_its_end};
use crate::sandbox::Sandbox;
use crate::session::{Session, transferred};
use crate::session_processes::SessionProcesses;
use crate::slot::Slot;
use crate::values;

/// The library with its home, opened by the first call.
#[pyclass(frozen, module = "blink._blink")]
pub(crate) struct Blink {
    slot: Slot<Home>,
}

struct Home {
    builder: BlinkBuilder,
    blink: OnceCell<CoreBlink>,
}

async fn library(slot: &Slot<Home>) -> Result<CoreBlink, Failure> {
    slot.with(|home| async move {
        let build = || home.builder.clone().build();
        Ok(home.blink.get_or_try_init(build).await?.clone())
    })
    .await
}

impl Blink {
    fn with<R: Send + 'static, F: Future<Output = Result<R, Failure>> + Send + 'static>(
        &self,
        call: impl FnOnce(CoreBlink) -> F + Send + 'static,
    ) -> PyResult<Boxed<Result<R, Failure>>> {
        self.slot.check()?;
        let slot = self.slot.clone();
        let call: Box<dyn FnOnce(CoreBlink) -> F + Send> = Box::new(call);
        Ok(Box::pin(async move { call(library(&slot).await?).await }))
    }

    /// Runs a command in a sandbox of its own, which is gone afterwards.
    fn one_shot(
        &self,
        function: &str,
        command: Command,
        options: &Bound<'_, PyDict>,
    ) -> PyResult<Call> {
        let (progress, latest) = reported(options)?;
        let (change, detached) = arguments::sandbox(function, options)?;
        let news = latest.clone();
        let running = self.with(move |blink| async move {
            let sandbox = made(change(blink.sandbox()), detached, news).await?;
            sandbox.run_once(command).await
        })?;
        let call = Call::giving(running, |py, output| values::output(py, &output));
        Ok(call.reporting(progress, latest))
    }

    fn describe_session(
        &self,
        function: &str,
        name: String,
        options: &Bound<'_, PyDict>,
        open: impl AsyncOpen,
    ) -> PyResult<Call> {
        let (progress, latest) = reported(options)?;
        let change = arguments::session(function, options)?;
        let (image, archive) = (latest.clone(), latest.clone());
        let opening = self.with(move |blink| {
            let builder = change(blink.session(name))
                .image_progress(telling(image))
                .import_progress(transferred(archive));
            to_its_end(async move { Ok(Session::new(open.open(builder).await?)) })
        })?;
        Ok(Call::making(opening).reporting(progress, latest))
    }
}

/// How a session that was described comes to be.
trait AsyncOpen: Send + 'static {
    fn open(
        self,
        builder: SessionBuilder,
    ) -> impl Future<Output = blink_core::Result<blink_core::Session>> + Send;
}

/// Opens it, or makes it.
struct Open;

impl AsyncOpen for Open {
    async fn open(self, builder: SessionBuilder) -> blink_core::Result<blink_core::Session> {
        builder.open().await
    }
}

/// Makes it of an archive.
struct Import(std::path::PathBuf);

impl AsyncOpen for Import {
    async fn open(self, builder: SessionBuilder) -> blink_core::Result<blink_core::Session> {
        builder.import(self.0).await
    }
}

/// Makes a sandbox. Given up half-way, nothing of it stays.
async fn made(
    builder: SandboxBuilder,
    detached: bool,
    news: Arc<Latest>,
) -> Result<Sandbox, Failure> {
    let builder = builder.image_progress(telling(news));
    Ok(Sandbox::new(builder.create().await?, detached))
}

fn telling(latest: Arc<Latest>) -> impl Fn(PullProgress) + Send + Sync + 'static {
    move |progress| latest.tell(Box::new(move |py| values::progress(py, progress)))
}

/// The function that wants to hear of progress, taken out of the options.
fn reported(options: &Bound<'_, PyDict>) -> PyResult<(Option<Py<PyAny>>, Arc<Latest>)> {
    let function = options.get_item("progress")?;
    if function.is_some() {
        options.del_item("progress")?;
    }
    let function = function.filter(|function| !function.is_none());
    Ok((function.map(Bound::unbind), Arc::default()))
}

#[pymethods]
impl Blink {
    #[new]
    #[pyo3(signature = (
        home, isolation, offline, mirrors, insecure_registries, registry_ca, credentials, docker_config,
        image_limit_bytes, budget_memory_mib, budget_sandboxes
    ))]
    #[expect(
        clippy::too_many_arguments,
        reason = "they are keywords in Python, of which there is one more for each thing that can be said"
    )]
    fn new(
        home: Option<&Bound<'_, PyAny>>,
        isolation: Option<&Bound<'_, PyAny>>,
        offline: bool,
        mirrors: Vec<(String, String)>,
        insecure_registries: Vec<String>,
        registry_ca: Option<&Bound<'_, PyAny>>,
        credentials: Vec<(String, String, String)>,
        docker_config: Option<&Bound<'_, PyAny>>,
        image_limit_bytes: Option<u64>,
        budget_memory_mib: Option<u64>,
        budget_sandboxes: Option<usize>,
    ) -> PyResult<Blink> {
        let mut registry = RegistryOptions::default();
        for (name, url) in mirrors {
            registry = registry.with_mirror(name, url);
        }
        for name in insecure_registries {
            registry = registry.with_insecure(name);
        }
        if let Some(file) = registry_ca {
            registry = registry.with_ca_file(arguments::path(file)?);
        }
        for (name, user, password) in credentials {
            registry = registry.with_credentials(name, user, password);
        }
        if let Some(file) = docker_config {
            registry = registry.with_docker_config(arguments::path(file)?);
        }
        let mut builder = CoreBlink::builder()
            .with_registry(registry)
            .budget(budget_memory_mib, budget_sandboxes);
        if offline {
            builder = builder.with_offline(true);
        }
        if let Some(bytes) = image_limit_bytes {
            builder = builder.image_limit_bytes(bytes);
        }
        if let Some(home) = home {
            builder = builder.home(arguments::path(home)?);
        }
        if let Some(isolation) = isolation {
            builder = builder.isolation(arguments::isolation(isolation)?);
        }
        let home = Home {
            builder,
            blink: OnceCell::new(),
        };
        Ok(Blink {
            slot: Slot::new("Blink", home, |home| {
                Box::pin(async move {
                    if let Some(blink) = home.blink.get() {
                        blink.settled().await;
                    }
                    Ok(())
                })
            }),
        })
    }

    #[getter]
    fn closed(&self) -> bool {
        self.slot.is_closed()
    }

    /// Opens the home now.
    fn open(&self) -> PyResult<Call> {
        Ok(Call::of_nothing(self.with(|_| std::future::ready(Ok(())))?))
    }

    fn run(&self, argv: &Bound<'_, PyAny>, options: &Bound<'_, PyDict>) -> PyResult<Call> {
        let command = arguments::command(argv, options)?;
        self.one_shot("run", command, options)
    }

    fn run_code(&self, code: &str, language: &str, options: &Bound<'_, PyDict>) -> PyResult<Call> {
        let command = arguments::code(code, language, options)?;
        self.one_shot("run_code", command, options)
    }

    fn sandbox(&self, options: &Bound<'_, PyDict>) -> PyResult<Call> {
        let (progress, latest) = reported(options)?;
        let (change, detached) = arguments::sandbox("sandbox", options)?;
        let news = latest.clone();
        let call =
            Call::making(self.with(move |blink| made(change(blink.sandbox()), detached, news))?);
        Ok(call.reporting(progress, latest))
    }

    /// Fetches a sandbox's image where it is not stored.
    fn fetch_image(&self, options: &Bound<'_, PyDict>) -> PyResult<Call> {
        let (progress, latest) = reported(options)?;
        let (change, _) = arguments::sandbox("fetch_image", options)?;
        let news = latest.clone();
        let fetching = self.with(move |blink| async move {
            let builder = change(blink.sandbox()).image_progress(telling(news));
            Ok(builder.fetch_image().await?)
        })?;
        Ok(Call::of_nothing(fetching).reporting(progress, latest))
    }

    fn pool(&self, options: &Bound<'_, PyDict>) -> PyResult<Call> {
        let (progress, latest) = reported(options)?;
        let (spec, change) = arguments::pool("pool", options)?;
        let news = latest.clone();
        let making = self.with(move |blink| async move {
            let described = blink
                .sandbox()
                .spec(spec.clone())
                .image_progress(telling(news));
            // With its progress, which a pool does not tell.
            described.fetch_image().await?;
            Ok(Pool::own(change(blink.pool(spec)).build().await?))
        })?;
        Ok(Call::making(making).reporting(progress, latest))
    }

    fn open_pool(&self, name: String) -> PyResult<Call> {
        let opening =
            self.with(move |blink| async move { Ok(Pool::other(blink.open_pool(name).await?)) })?;
        Ok(Call::making(opening))
    }

    fn pools(&self) -> PyResult<Call> {
        let listing = self.with(|blink| async move { Ok(blink.pools().await) })?;
        Ok(Call::giving(listing, |py, pools| {
            values::list(py, pools, values::pool_stats)
        }))
    }

    /// The ids of the detached sandboxes.
    fn sandboxes(&self) -> PyResult<Call> {
        let listing = self.with(|blink| async move { Ok(blink.sandboxes()) })?;
        Ok(Call::giving(listing, values::texts))
    }

    /// Takes up a detached sandbox.
    fn take_sandbox(&self, id: String) -> PyResult<Call> {
        let taking = self.with(move |blink| {
            to_its_end(async move { Ok(Sandbox::new(blink.open(&id).await?, true)) })
        })?;
        Ok(Call::making(taking))
    }

    fn session(&self, name: String, options: &Bound<'_, PyDict>) -> PyResult<Call> {
        self.describe_session("session", name, options, Open)
    }

    fn import_session(
        &self,
        name: String,
        archive: &Bound<'_, PyAny>,
        options: &Bound<'_, PyDict>,
    ) -> PyResult<Call> {
        let import = Import(arguments::path(archive)?);
        self.describe_session("import_session", name, options, import)
    }

    #[pyo3(signature = (name, patience=None))]
    fn take_session(&self, name: String, patience: Option<&Bound<'_, PyAny>>) -> PyResult<Call> {
        let patience = match patience {
            Some(patience) => arguments::seconds("a patience", patience)?,
            None => DEFAULT_PATIENCE,
        };
        let taking = self.with(move |blink| async move {
            Ok(Session::new(blink.take_session(&name, patience).await?))
        })?;
        Ok(Call::making(taking))
    }

    fn sessions(&self) -> PyResult<Call> {
        let listing = self.with(|blink| async move { Ok(blink.sessions().await?) })?;
        Ok(Call::giving(listing, |py, sessions| {
            values::list(py, sessions, values::session_info)
        }))
    }

    fn session_info(&self, name: String) -> PyResult<Call> {
        let looking =
            self.with(move |blink| async move { Ok(blink.session_info(&name).await?) })?;
        Ok(Call::giving(looking, values::session_info))
    }

    fn session_lineage(&self, name: String) -> PyResult<Call> {
        let looking =
            self.with(move |blink| async move { Ok(blink.session_lineage(&name).await?) })?;
        Ok(Call::giving(looking, values::lineage))
    }

    /// The processes of a session, whoever has it.
    fn session_processes(&self, name: String) -> PyResult<Call> {
        let reaching = self.with(move |blink| async move {
            let processes = blink.session_processes(&name).await?;
            Ok(SessionProcesses::new(processes))
        })?;
        Ok(Call::making(reaching))
    }

    /// Gives how many bytes are free again.
    fn prune_sessions(&self) -> PyResult<Call> {
        let pruning =
            self.with(|blink| to_its_end(async move { Ok(blink.prune_sessions().await?) }))?;
        Ok(Call::giving(pruning, values::number))
    }

    #[pyo3(signature = (image, progress=None))]
    fn pull(&self, image: &Bound<'_, PyAny>, progress: Option<Py<PyAny>>) -> PyResult<Call> {
        let image = arguments::image(image)?;
        let latest = Arc::<Latest>::default();
        let news = latest.clone();
        let pulling = self.with(move |blink| async move {
            Ok(blink.pull(image).progress(telling(news)).run().await?)
        })?;
        let call = Call::giving(pulling, values::image);
        Ok(call.reporting(progress, latest))
    }

    fn images(&self) -> PyResult<Call> {
        let listing = self.with(|blink| async move { Ok(blink.images().await?) })?;
        Ok(Call::giving(listing, |py, images| {
            values::list(py, images, values::image)
        }))
    }

    fn remove_image(&self, name: String) -> PyResult<Call> {
        let removing =
            self.with(move |blink| async move { Ok(blink.remove_image(name).await?) })?;
        Ok(Call::giving(removing, values::removed))
    }

    fn prune_images(&self) -> PyResult<Call> {
        let pruning = self.with(|blink| async move { Ok(blink.prune_images().await?) })?;
        Ok(Call::giving(pruning, values::removed))
    }

    fn doctor(&self) -> PyResult<Call> {
        let trying = self.with(|blink| async move { Ok(blink_core::doctor(&blink).await) })?;
        Ok(Call::giving(trying, values::report))
    }

    fn close(&self) -> Call {
        Call::of_nothing(self.slot.clone().close())
    }
}
