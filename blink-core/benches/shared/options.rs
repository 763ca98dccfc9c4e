//! What a benchmark is told.

use std::path::PathBuf;

use crate::measure::Result;

/// How long to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    Quick,
    Full,
}

impl Size {
    /// So many of something, depending on how long to measure.
    pub(crate) fn pick<T>(self, full: T, quick: T) -> T {
        match self {
            Size::Full => full,
            Size::Quick => quick,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) out: Option<PathBuf>,
    pub(crate) size: Size,
    /// Where homes and files of the run go. Without it in the target folder: on a disk, as a home is; many machines have
    /// /tmp in memory.
    pub(crate) folder: PathBuf,
    only: Vec<String>,
}

impl Options {
    /// # Errors
    /// The usage, where a word is not known.
    pub(crate) fn parse(words: &[&str], parts: &[&str], usage: &str) -> Result<Options> {
        let mut options = Options {
            out: None,
            size: Size::Full,
            folder: env!("CARGO_TARGET_TMPDIR").into(),
            only: Vec::new(),
        };
        let mut quick = false;
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(usage);
            match *word {
                "--out" => options.out = Some(value()?.into()),
                "--folder" => options.folder = value()?.into(),
                "--quick" => quick = true,
                "--only" => {
                    let part = *value()?;
                    if !parts.contains(&part) {
                        return Err(usage.into());
                    }
                    options.only.push(part.to_owned());
                }
                // What cargo says to every benchmark.
                "--bench" => {}
                _ => return Err(usage.into()),
            }
        }
        if quick || options.out.is_none() {
            options.size = Size::Quick;
        }
        Ok(options)
    }

    /// Whether a part is wanted.
    pub(crate) fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|wanted| wanted == part)
    }
}
