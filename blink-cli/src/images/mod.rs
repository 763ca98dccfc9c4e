//! `blink pull`, `blink images`, `blink rmi` and `blink image prune`.

mod list;

use std::path::PathBuf;

use blink_core::Blink;
use blink_core::RemovedImages;
use indicatif::HumanBytes;

use crate::failure::{Failure, print_event, print_json, print_text, to_json};
use crate::options::RegistryArguments;
use crate::progress::{self, Sign};

/// Fetches an image.
pub(crate) async fn pull(
    image: String,
    registry: RegistryArguments,
    json: bool,
    home: Option<PathBuf>,
) -> Result<i32, Failure> {
    let blink = registry.open(home).await?;
    let sign = Sign::new(format!("fetching {image}"));
    let pull = blink.pull(image).progress(sign.image()).run();
    let image = sign.shown(pull).await?;
    if json {
        return print_event("image_pulled", &image);
    }
    let name = image.reference.as_deref().unwrap_or("(without a name)");
    let size = HumanBytes(image.size_bytes);
    print_text(&format!("{name}\n{} ({size})\n", image.digest))
}

/// Lists the stored images.
pub(crate) async fn list(json: bool, home: Option<PathBuf>) -> Result<i32, Failure> {
    let images = open(home).await?.images().await?;
    if json {
        return print_json(&to_json(&images)?);
    }
    print_text(&list::table(&images, std::time::SystemTime::now()))
}

/// Removes stored images. What can be removed is, whatever becomes of the rest.
pub(crate) async fn remove(
    names: Vec<String>,
    json: bool,
    home: Option<PathBuf>,
) -> Result<i32, Failure> {
    let blink = open(home).await?;
    let mut failure = None;
    for name in names {
        match blink.remove_image(name).await {
            Ok(removed) => {
                let code = print_removed("image_removed", &removed, json)?;
                if code != 0 {
                    return Ok(code);
                }
            }
            Err(error) => {
                let error = Failure::from(error);
                match failure {
                    None => failure = Some(error),
                    Some(_) => drop(error.report(json)),
                }
            }
        }
    }
    failure.map_or(Ok(0), Err)
}

/// Removes what nothing refers to.
pub(crate) async fn prune(json: bool, home: Option<PathBuf>) -> Result<i32, Failure> {
    let blink = open(home).await?;
    let removed = progress::shown("removing what is not used", blink.prune_images()).await?;
    print_removed("images_pruned", &removed, json)
}

async fn open(home: Option<PathBuf>) -> Result<Blink, Failure> {
    Ok(RegistryArguments::default().open(home).await?)
}

fn print_removed(event: &str, removed: &RemovedImages, json: bool) -> Result<i32, Failure> {
    if json {
        return print_event(event, removed);
    }
    let mut text = String::new();
    for reference in &removed.references {
        text += &format!("removed the name {reference}\n");
    }
    for digest in &removed.digests {
        text += &format!("removed {digest}\n");
    }
    text += &format!("{} are free again\n", HumanBytes(removed.freed_bytes));
    print_text(&text)
}
