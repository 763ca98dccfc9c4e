//! The images of a [`Blink`]: fetched, listed, removed.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use blink_image::{
    Helpers, ImageSource, ImageStore, PullPolicy, PullProgress, Reference, RemovedImages,
    StoredImage,
};

use crate::blink::Blink;
use crate::blocking::on_thread;
use crate::child::{Launcher, Program};
use crate::engine::{RootForm, engines};
use crate::error::{Error, ErrorKind, Result, during};
use crate::home::SandboxFolder;

/// An image to fetch, from [`Blink::pull`].
#[must_use = "nothing is fetched before `run`"]
pub struct Pull {
    blink: Blink,
    image: String,
    progress: Box<dyn Fn(PullProgress) + Send + Sync>,
}

impl std::fmt::Debug for Pull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pull({})", self.image)
    }
}

impl Pull {
    /// Calls `progress` as the image comes in, some ten times a second.
    pub fn progress(mut self, progress: impl Fn(PullProgress) + Send + Sync + 'static) -> Pull {
        self.progress = Box::new(progress);
        self
    }

    /// Fetches it. Given up half-way, what came so far is kept for the next time.
    ///
    /// # Errors
    /// `ImageUnavailable`, with the ways that are left; `NotFound`; `Corrupt`, `Unsupported` and `ResourceExhausted` as
    /// the image deserves; `InvalidArgument` for what names no image, and for `host`, which is always there.
    pub async fn run(self) -> Result<StoredImage> {
        let subject = format!("image {:?}", self.image);
        during("pull", &*subject, async move {
            let source = ImageSource::parse(&self.image)?;
            let mut options = self.blink.pull_options().clone();
            if options.policy == PullPolicy::Missing {
                options = options.with_policy(PullPolicy::Always);
            }
            let store = self.blink.image_store().await?;
            Ok(store.obtain(&source, &options, &*self.progress).await?)
        })
        .await
    }
}

impl Helpers for Launcher {
    fn get(&self, program: &str, account: &str, patience: Duration) -> io::Result<(i32, Vec<u8>)> {
        let program = Program::new(program).args(["get"]).stdin(account);
        let finished = self.run(&program, patience).map_err(io::Error::other)?;
        Ok((finished.code, finished.stdout))
    }
}

impl Blink {
    /// Fetches an image into the home, so that sandboxes can have it at once and without a network: a registry's
    /// reference, a folder in OCI layout, or a tar of one or of `docker save`.
    ///
    /// Unlike a sandbox, which takes what is stored under a reference, this asks the registry each time: a tag that
    /// has moved is followed. What it meant before stays until [`Blink::prune_images`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(blink: blink_core::Blink) -> blink_core::Result<()> {
    /// let image = blink
    ///     .pull("alpine:3.20")
    ///     .progress(|progress| eprintln!("{} of {}", progress.bytes_done, progress.bytes_total))
    ///     .run()
    ///     .await?;
    /// println!("{}", image.digest);
    /// # Ok(())
    /// # }
    /// ```
    pub fn pull(&self, image: impl Into<String>) -> Pull {
        Pull {
            blink: self.clone(),
            image: image.into(),
            progress: Box::new(|_| {}),
        }
    }

    /// The stored images, each once for every name that it has, the one that was fetched last first.
    ///
    /// # Errors
    /// `Corrupt` if the list of images is damaged.
    pub async fn images(&self) -> Result<Vec<StoredImage>> {
        during("images", self, async {
            let store = self.image_store().await?;
            on_thread(move || Ok(store.list()?)).await
        })
        .await
    }

    /// Removes a stored image, by a reference or by a digest, of which 12 digits are enough. Of an image with several
    /// names, a reference removes just that name.
    ///
    /// # Errors
    /// `NotFound`; `Busy` if a sandbox uses it, which the message names.
    pub async fn remove_image(&self, name: impl Into<String>) -> Result<RemovedImages> {
        let name = name.into();
        during("remove_image", &*format!("image {name:?}"), async {
            let (store, name) = (self.image_store().await?, name.clone());
            on_thread(move || Ok(store.remove(&name)?)).await
        })
        .await
    }

    /// Removes what no name and no sandbox refers to: images whose name has moved on, images from folders and files,
    /// what was unpacked from them or made of them for micro-VMs, and downloads that were given up.
    ///
    /// # Errors
    /// `Busy` while another process unpacks an image.
    pub async fn prune_images(&self) -> Result<RemovedImages> {
        during("prune_images", self, async {
            let (store, home) = (self.image_store().await?, self.home().path().to_owned());
            on_thread(move || {
                let mut removed = store.prune()?;
                match engines::prune(&home) {
                    Ok(freed_bytes) => removed.freed_bytes += freed_bytes,
                    Err(error) => tracing::warn!(%error, "disks that were made of images go later"),
                }
                Ok(removed)
            })
            .await
        })
        .await
    }

    /// The image for a sandbox; `None` for the host's own programs.
    pub(crate) async fn image(
        &self,
        source: &ImageSource,
        progress: &(dyn Fn(PullProgress) + Send + Sync),
    ) -> Result<Option<StoredImage>> {
        if *source == ImageSource::Host {
            return Ok(None);
        }
        let store = self.image_store().await?;
        let image = store.obtain(source, self.pull_options(), progress).await?;
        Ok(Some(image))
    }

    /// The stored image with this digest. `name` is what others have called it: nothing is fetched because they did.
    pub(crate) async fn image_by_digest(&self, name: &str, digest: &str) -> Result<StoredImage> {
        let (store, wanted) = (self.image_store().await?, digest.to_owned());
        if let Some(image) = on_thread(move || Ok(store.get(&wanted)?)).await? {
            return Ok(image);
        }
        let pinned = name
            .parse::<Reference>()
            .and_then(|reference| reference.with_digest(digest));
        let way = match pinned {
            Ok(pinned) => {
                format!("'blink pull {pinned}' fetches it, if you trust where it is from")
            }
            // A path is one of another machine.
            Err(_) => {
                "no registry has it: 'blink pull PATH' reads it from a folder or tar".to_owned()
            }
        };
        Err(Error::new(
            ErrorKind::ImageUnavailable,
            format!(
                "the session's image {name:?} ({digest}) is not stored here, and is not fetched because an archive says \
                 so: {way}; or name the image to use instead (--image)"
            ),
        ))
    }

    /// A sandbox's image in the engine's form, which nobody removes while the sandbox is there.
    pub(crate) async fn rootfs(
        &self,
        image: &StoredImage,
        form: RootForm,
        folder: &SandboxFolder,
        progress: Arc<dyn Fn(PullProgress) + Send + Sync>,
    ) -> Result<PathBuf> {
        let store = self.image_store().await?;
        let (image, folder) = (image.clone(), folder.path().to_owned());
        on_thread(move || {
            store.claim(&image, &folder)?;
            Ok(match form {
                RootForm::Folder => store.rootfs(&image, &*progress)?.path,
                RootForm::Layout => store.layout(&image)?,
            })
        })
        .await
    }

    /// The image that a session was made of, which must still be there.
    pub(crate) async fn stored_image(
        &self,
        name: &str,
        digest: Option<&str>,
    ) -> Result<Option<StoredImage>> {
        let Some(digest) = digest.map(str::to_owned) else {
            return Ok(None);
        };
        let (blink, name) = (self.clone(), name.to_owned());
        on_thread(move || still_stored(&*blink.open_image_store()?, &name, &digest).map(Some)).await
    }

    /// Says that a sandbox uses an image, which nobody removes then.
    pub(crate) async fn claim_image(
        &self,
        image: Option<&StoredImage>,
        folder: &SandboxFolder,
    ) -> Result<()> {
        let Some(image) = image.cloned() else {
            return Ok(());
        };
        let (blink, folder) = (self.clone(), folder.path().to_owned());
        on_thread(move || Ok(blink.open_image_store()?.claim(&image, &folder)?)).await
    }

    /// As both, for several that are made of the same.
    pub(crate) async fn claim_stored_image(
        &self,
        name: &str,
        digest: Option<&str>,
        folders: &[SandboxFolder],
    ) -> Result<()> {
        let Some(digest) = digest.map(str::to_owned) else {
            return Ok(());
        };
        let (blink, name, folders) = (self.clone(), name.to_owned(), folders.to_owned());
        on_thread(move || {
            let store = blink.open_image_store()?;
            let image = still_stored(&store, &name, &digest)?;
            for folder in &folders {
                store.claim(&image, folder.path())?;
            }
            Ok(())
        })
        .await
    }

    pub(crate) async fn image_store(&self) -> Result<Arc<ImageStore>> {
        let blink = self.clone();
        on_thread(move || blink.open_image_store()).await
    }
}

fn still_stored(store: &ImageStore, name: &str, digest: &str) -> Result<StoredImage> {
    store.get(digest)?.ok_or_else(|| {
        let message = format!(
            "the image {name:?} ({digest}) is not stored any more; pull it again, in this version"
        );
        Error::new(ErrorKind::ImageUnavailable, message)
    })
}
