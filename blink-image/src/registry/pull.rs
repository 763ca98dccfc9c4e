//! An image from a registry, or from one of its mirrors, into the store.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use oci_spec::image::ImageManifest;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::blobs::BlobFolder;
use crate::contents::{Blob, Contents};
use crate::digest::Digest;
use crate::error::{ImageError, ImageErrorKind};
use crate::layout::Found;
use crate::lease::Lease;
use crate::manifest::{self, DEEPEST_INDEX, Document};
use crate::options::{PullProgress, PullStep};
use crate::reference::Reference;
use crate::registry::client::Remote;
use crate::registry::download::Download;
use crate::registry::endpoint;
use crate::registry::failure::Failure;
use crate::registry::options::RegistryOptions;
use crate::store::blocking;

/// What docker and containerd do.
const LAYERS_AT_ONCE: usize = 3;

/// How often progress is told.
const TICK: Duration = Duration::from_millis(100);

/// One image to fetch.
pub(crate) struct Pull<'a> {
    pub(crate) store: &'a Path,
    pub(crate) blobs: &'a BlobFolder,
    pub(crate) reference: &'a Reference,
    pub(crate) options: &'a RegistryOptions,
    /// The most bytes of all layers together, as they are stored.
    pub(crate) largest: u64,
    pub(crate) progress: &'a (dyn Fn(PullProgress) + Send + Sync),
}

/// Why an image is not there, and what may be there of it.
pub(crate) struct Failed {
    pub(crate) error: ImageError,
    pub(crate) digests: Vec<Digest>,
}

impl Failed {
    fn before(error: ImageError) -> Failed {
        let digests = Vec::new();
        Failed { error, digests }
    }
}

impl Pull<'_> {
    /// Fetches whatever of the image is missing, and keeps it from being removed. Its manifest is not in the store yet:
    /// that is what completes it.
    pub(crate) async fn run(&self) -> Result<(Found, Lease), Failed> {
        let (remotes, blob, manifest) = self.find().await.map_err(Failed::before)?;
        let parsed = match Document::parse(&manifest, "the image's manifest") {
            Ok(Document::Manifest(parsed)) => parsed,
            Ok(Document::Index(_)) => {
                let error = ImageError::corrupt("the image's manifest is an index");
                return Err(Failed::before(error));
            }
            Err(error) => return Err(Failed::before(error)),
        };
        let digests = manifest::digests(&parsed).map_err(Failed::before)?;
        let lease = self.lease(&digests).await.map_err(Failed::before)?;
        let fetched = self.fetch(&remotes, blob, manifest, &parsed).await;
        fetched
            .map(|found| (found, lease))
            .map_err(|error| Failed { error, digests })
    }

    /// The registries that may have the image, from the first that has its manifest on.
    async fn find(&self) -> Result<(Arc<Vec<Remote>>, Blob, Vec<u8>), ImageError> {
        let mut remotes = Vec::new();
        for endpoint in endpoint::endpoints(self.reference, self.options)? {
            remotes.push(Remote::new(
                endpoint,
                self.reference.repository(),
                self.options,
            )?);
        }
        let (answered, blob, manifest) = self.resolve(&remotes).await?;
        // Whoever has the manifest probably has the rest; those before it have not.
        let remotes = Arc::new(remotes.split_off(answered));
        Ok((remotes, blob, manifest))
    }

    async fn fetch(
        &self,
        remotes: &Arc<Vec<Remote>>,
        blob: Blob,
        manifest: Vec<u8>,
        parsed: &ImageManifest,
    ) -> Result<Found, ImageError> {
        let what = "the configuration";
        let configuration = manifest::document(parsed.config(), "configuration")?;
        self.download(remotes, &[(configuration, what.to_owned())], None)
            .await?;
        let configuration = self.blobs.read(&configuration.digest, "configuration")?;
        let contents = manifest::contents(blob, parsed, &configuration)?;
        self.layers(remotes, &contents).await?;
        Ok(Found {
            contents,
            manifest,
            configuration,
        })
    }

    async fn lease(&self, digests: &[Digest]) -> Result<Lease, ImageError> {
        let (store, digests) = (self.store.to_path_buf(), digests.to_vec());
        blocking(move || Lease::new(&store, digests.into_iter())).await
    }

    /// Finds the manifest for this machine, in the first registry that has it.
    async fn resolve(&self, remotes: &[Remote]) -> Result<(usize, Blob, Vec<u8>), ImageError> {
        let mut failures = Vec::new();
        let mut index = 0;
        while let Some(remote) = remotes.get(index) {
            match self.resolve_at(remote).await {
                Ok((blob, manifest)) => return Ok((index, blob, manifest)),
                Err(Failure::NotEncrypted(_)) if remote.endpoint().may_be_plain => {}
                Err(failure) => {
                    tracing::debug!(?failure, "a registry did not give the manifest");
                    failures.push(failure);
                    // Plain HTTP is for a registry that speaks nothing else.
                    index += usize::from(remote.endpoint().may_be_plain);
                }
            }
            index += 1;
        }
        Err(self.failed(failures))
    }

    async fn resolve_at(&self, remote: &Remote) -> Result<(Blob, Vec<u8>), Failure> {
        let mut expected = self.reference.pinned();
        let mut size = None;
        for _ in 0..=DEEPEST_INDEX {
            let name = match expected {
                Some(digest) => digest.to_string(),
                None => self.reference.tag().unwrap_or("latest").to_owned(),
            };
            let content = remote.manifest(&name).await?;
            let digest = expected.unwrap_or_else(|| Digest::of(&content));
            let blob = Blob {
                digest,
                size: size.unwrap_or(content.len() as u64),
            };
            manifest::verify(&content, blob, "manifest").map_err(Failure::Unusable)?;
            let document = Document::parse(&content, &format!("the manifest {digest}"));
            match document.map_err(Failure::Unusable)? {
                Document::Manifest(_) => return Ok((blob, content)),
                Document::Index(index) => {
                    let whose = self.reference.to_string();
                    let chosen = manifest::choose_platform(&index, &whose)
                        .and_then(|descriptor| manifest::document(&descriptor, "manifest"))
                        .map_err(Failure::Unusable)?;
                    (expected, size) = (Some(chosen.digest), Some(chosen.size));
                }
            }
        }
        Err(Failure::Unusable(ImageError::corrupt(format!(
            "'{}' has indexes within indexes more than {DEEPEST_INDEX} deep",
            self.reference
        ))))
    }

    async fn layers(
        &self,
        remotes: &Arc<Vec<Remote>>,
        contents: &Contents,
    ) -> Result<(), ImageError> {
        let count = contents.layers.len();
        let total = contents
            .layers
            .iter()
            .fold(0, |sum: u64, layer| sum.saturating_add(layer.blob.size));
        self.blobs
            .require_room_for(contents, self.largest, &self.reference.to_string())?;
        let named: Vec<_> = contents
            .layers
            .iter()
            .enumerate()
            .map(|(index, layer)| {
                let digest = layer.blob.digest;
                (
                    layer.blob,
                    format!("layer {} of {count} ({digest})", index + 1),
                )
            })
            .collect();
        self.download(remotes, &named, Some(total)).await
    }

    /// Brings several blobs, some at once. Tells of the progress where `total` is their bytes.
    async fn download(
        &self,
        remotes: &Arc<Vec<Remote>>,
        wanted: &[(Blob, String)],
        total: Option<u64>,
    ) -> Result<(), ImageError> {
        let done: Vec<_> = wanted.iter().map(|_| Arc::new(AtomicU64::new(0))).collect();
        let turns = Arc::new(Semaphore::new(LAYERS_AT_ONCE));
        let given_up = CancellationToken::new();
        // Dropped with this future, it ends them all.
        let mut running = JoinSet::new();
        for ((blob, what), done) in wanted.iter().zip(&done) {
            let download = Download {
                blobs: self.blobs.clone(),
                remotes: remotes.clone(),
                blob: *blob,
                what: what.clone(),
                done: done.clone(),
                given_up: given_up.clone(),
            };
            let turns = turns.clone();
            running.spawn(async move {
                let _turn = turns.acquire().await;
                download.run().await
            });
        }
        let tell = |finished: usize| {
            if let Some(total) = total {
                (self.progress)(PullProgress {
                    step: PullStep::Download,
                    bytes_done: done.iter().map(|done| done.load(Ordering::Relaxed)).sum(),
                    bytes_total: total,
                    layer: finished,
                    layers: wanted.len(),
                });
            }
        };
        let mut finished = 0;
        tell(finished);
        let mut tick = tokio::time::interval(TICK);
        let failed = loop {
            tokio::select! {
                ended = running.join_next() => match ended {
                    None => return Ok(()),
                    Some(Ok(Ok(()))) => finished += 1,
                    Some(Ok(Err(Failure::Missing(message)))) => {
                        // The image is there, and not whole.
                        break unavailable(self.reference, &message.to_string());
                    }
                    Some(Ok(Err(failure))) => break self.failed(vec![failure]),
                    Some(Err(error)) => break ImageError::new(
                        ImageErrorKind::Internal,
                        format!("a download ended by itself: {error}"),
                    ),
                },
                _ = tick.tick() => {}
            }
            tell(finished);
        };
        // Nothing is written any more when it is told.
        given_up.cancel();
        while running.join_next().await.is_some() {}
        Err(failed)
    }

    /// What came of all registries, as one error.
    fn failed(&self, failures: Vec<Failure>) -> ImageError {
        let mut reasons = Vec::new();
        let all_miss = failures
            .iter()
            .all(|failure| matches!(failure, Failure::Missing(_)));
        let passes = failures.iter().any(Failure::passes);
        for failure in failures {
            match failure {
                Failure::Unusable(error) => return error,
                Failure::Missing(message)
                | Failure::Denied(message)
                | Failure::Unreachable(message)
                | Failure::NotEncrypted(message)
                | Failure::Broken(message)
                | Failure::Slow(message) => reasons.push(message),
            }
        }
        let said: Vec<_> = reasons.iter().map(ToString::to_string).collect();
        let said = said.join("; ");
        if all_miss {
            return ImageError::not_found(format!(
                "there is no image '{}': {said}; look for another name or tag",
                self.reference
            ));
        }
        let error = unavailable(self.reference, &said).retryable(passes);
        match reasons.into_iter().next() {
            Some(first) => error.caused_by(first),
            None => error,
        }
    }
}

/// The error for an image that is not stored and cannot be fetched.
pub(crate) fn unavailable(reference: &Reference, reason: &str) -> ImageError {
    let registry = reference.registry();
    ImageError::new(
        ImageErrorKind::ImageUnavailable,
        format!(
            "the image '{reference}' is not stored here and could not be fetched: {reason}. Ways without it: the image \
             'host' for this machine's own programs (--image host); the path of an OCI layout folder, or of a tar from \
             'docker save' or 'skopeo copy docker://{reference} oci-archive:image.tar'; a mirror (--mirror \
             {registry}=URL)"
        ),
    )
}
