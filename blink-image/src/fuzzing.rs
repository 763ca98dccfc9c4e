//! What fuzz/ drives.

use std::path::Path;

use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};

use crate::error::ImageError;
use crate::import;
use crate::registry::fuzzing::{Challenge, find};
use crate::{ImageSource, ImageStore, RegistryOptions};

pub fn import(store: &ImageStore, source: &ImageSource) -> Result<String, ImageError> {
    Ok(import::import(store, source)?.to_string())
}

pub fn challenge(text: &[u8]) {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(text) {
        headers.append(WWW_AUTHENTICATE, value);
        let _ = Challenge::find(&headers);
    }
}

pub fn docker_config(config: &Path, registry: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let options = RegistryOptions::default().with_docker_config(config);
    let _ = runtime
        .expect("there is room for a runtime")
        .block_on(find(registry, "team/app", &options));
}
