//! An image, wherever it comes from, into the store.

use crate::error::ImageError;
use crate::import;
use crate::options::{PullOptions, PullPolicy, PullProgress, StoredImage};
use crate::reference::Reference;
use crate::registry::{Failed, Pull, unavailable};
use crate::source::ImageSource;
use crate::store::{ImageStore, blocking};

impl ImageStore {
    /// The image that `source` names, fetched or read now where it is not in the store. The network is used for
    /// registry references alone, as `options` allow.
    ///
    /// Two processes that want the same image share the work. When this future is dropped, what was downloaded so far
    /// is kept, and taken up the next time.
    ///
    /// # Errors
    /// `ImageUnavailable` if a registry cannot be reached, wants other credentials, or may not be asked;
    /// `NotFound` if it has no such image; `Corrupt`, `Unsupported` and `ResourceExhausted` if the image cannot be used;
    /// `InvalidArgument` for [`ImageSource::Host`], which needs no store.
    pub async fn obtain(
        &self,
        source: &ImageSource,
        options: &PullOptions,
        progress: &(dyn Fn(PullProgress) + Send + Sync),
    ) -> Result<StoredImage, ImageError> {
        match source {
            ImageSource::Host => Err(ImageError::invalid(
                "the image 'host' is this machine's own programs and is not kept in the image store",
            )),
            ImageSource::Reference(reference) => {
                self.obtain_reference(reference, options, progress).await
            }
            ImageSource::Layout { .. } | ImageSource::Archive { .. } => {
                let (store, source) = (self.clone(), source.clone());
                blocking(move || {
                    let digest = import::import(&store, &source)?;
                    store.image(&digest, None)
                })
                .await
            }
        }
    }

    async fn obtain_reference(
        &self,
        reference: &Reference,
        options: &PullOptions,
        progress: &(dyn Fn(PullProgress) + Send + Sync),
    ) -> Result<StoredImage, ImageError> {
        if options.policy != PullPolicy::Always {
            let (store, wanted) = (self.clone(), reference.clone());
            if let Some(image) = blocking(move || store.find(&wanted)).await? {
                return Ok(image);
            }
        }
        if options.policy == PullPolicy::Never {
            return Err(unavailable(
                reference,
                "the network may not be used (--offline); 'blink pull' fetches it when it may",
            ));
        }
        let pull = Pull {
            store: &self.shared.folder,
            blobs: &self.shared.blobs,
            reference,
            options: &options.registry,
            largest: self.shared.limits.total_bytes,
            progress,
        };
        let (found, lease) = match pull.run().await {
            Ok(fetched) => fetched,
            Err(failed) => return Err(self.failed_pull(failed).await),
        };
        let (store, name) = (self.clone(), reference.to_string());
        let digest = found.contents.manifest.digest;
        tracing::info!(%reference, %digest, "pulled an image");
        blocking(move || {
            store.complete(&found, &lease, Some(&name))?;
            store.image(&digest, Some(&name))
        })
        .await
    }

    /// Nothing stays of what was refused. What a broken connection has left is taken up the next time.
    async fn failed_pull(&self, failed: Failed) -> ImageError {
        let Failed { error, digests } = failed;
        if error.is_refusal() {
            let store = self.clone();
            let forgotten = blocking(move || {
                store.forget(&digests);
                Ok(())
            });
            // Where it cannot be removed, that is logged.
            let _ = forgotten.await;
        }
        error
    }
}
