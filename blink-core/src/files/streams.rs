//! Files of a sandbox as streams: each is compared with its length and checksum at the other end before it is believed.

use std::path::{Path, PathBuf};

use blink_wire::{Counted, FrameType, Message, Request};
use bytes::Bytes;

use super::path_of;
use crate::error::{Error, ErrorKind, Result};
use crate::link::{Channel, Link, Stream};

/// A file that is read bit by bit, from [`Files::reader`](crate::Files::reader). Dropping it gives up the rest.
pub struct FileReader {
    incoming: Incoming,
    /// What has come already, to see whether there is anything to read.
    first: Option<Bytes>,
}

impl FileReader {
    pub(crate) async fn open(mut incoming: Incoming) -> Result<FileReader> {
        let first = incoming.chunk().await?;
        Ok(FileReader { incoming, first })
    }

    /// The next bytes; `None` at the end, by which everything before is known to be right. What is cancelled takes nothing
    /// away.
    ///
    /// # Errors
    /// `Corrupt` if it did not arrive as it was sent; `SandboxDied` if the sandbox ends first.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        match self.first.take() {
            Some(first) => Ok(Some(first)),
            None => self.incoming.chunk().await,
        }
    }
}

/// A file that is written bit by bit, from [`Files::writer`](crate::Files::writer). Dropping it before it is finished gives
/// it up: the file stays as it was, and what was appended is taken away again as soon as the sandbox hears of it.
pub struct FileWriter {
    outgoing: Outgoing,
}

impl FileWriter {
    pub(crate) fn new(outgoing: Outgoing) -> FileWriter {
        FileWriter { outgoing }
    }

    /// Sends bytes; waits while the sandbox does not take them. After one that was cancelled, the file can only be given up.
    ///
    /// # Errors
    /// As for [`Files::write`](crate::Files::write); `InvalidArgument` after a cancelled write; `SandboxDied`.
    pub async fn write(&mut self, bytes: impl Into<Bytes>) -> Result<()> {
        self.outgoing.send(bytes.into()).await
    }

    /// Makes what was written the file's content; returns its length.
    ///
    /// # Errors
    /// As for [`write`](FileWriter::write). The file is as it was then.
    pub async fn finish(self) -> Result<u64> {
        self.outgoing.finish().await
    }
}

/// A stream from the guest.
pub(crate) struct Incoming {
    stream: Stream,
    counted: Counted,
    /// Everything has come, and was compared.
    whole: bool,
    /// What the request was about.
    path: PathBuf,
}

impl Incoming {
    pub(crate) async fn open(link: &Link, request: &Request) -> Result<Incoming> {
        Ok(Incoming {
            stream: link.open(request).await?,
            counted: Counted::default(),
            whole: false,
            path: path_of(request).unwrap_or(Path::new("")).to_owned(),
        })
    }

    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>> {
        if self.whole {
            return Ok(None);
        }
        let chunk = self.stream.chunk(Channel::Data).await;
        if let Some(chunk) = chunk.map_err(|error| error.at(&self.path))? {
            self.counted.add(&chunk);
            return Ok(Some(chunk));
        }
        let response = self.stream.response().await;
        response.map_err(|error| error.at(&self.path))?;
        if self.stream.trailer()? != self.counted.trailer() {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "the data that arrived is not what the sandbox says it sent",
            ));
        }
        self.whole = true;
        Ok(None)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.counted.bytes()
    }
}

/// A stream to the guest. The agent hears of it with the first bytes, or with the end.
pub(crate) struct Outgoing {
    link: Link,
    request: Request,
    stream: Option<Stream>,
    counted: Counted,
    /// Everything that was counted was sent.
    whole: bool,
    /// What the request is about.
    path: PathBuf,
}

impl Outgoing {
    pub(crate) fn new(link: &Link, request: Request) -> Outgoing {
        Outgoing {
            path: path_of(&request).unwrap_or(Path::new("")).to_owned(),
            link: link.clone(),
            request,
            stream: None,
            counted: Counted::default(),
            whole: true,
        }
    }

    async fn stream(&mut self) -> Result<Stream> {
        if let Some(stream) = &self.stream {
            return Ok(stream.clone());
        }
        let stream = self.link.open(&self.request).await?;
        Ok(self.stream.insert(stream).clone())
    }

    pub(crate) async fn send(&mut self, bytes: Bytes) -> Result<()> {
        self.check()?;
        let stream = self.stream().await?;
        self.whole = false;
        self.counted.add(&bytes);
        let sending = stream.send(FrameType::STREAM_DATA, bytes);
        self.unless_answered(sending).await?;
        self.whole = true;
        Ok(())
    }

    pub(crate) async fn finish(mut self) -> Result<u64> {
        self.check()?;
        let stream = self.stream().await?;
        let trailer = self.counted.trailer().to_body();
        let ending = async {
            stream.send_end(FrameType::STREAM_DATA, trailer).await;
            std::future::pending::<std::convert::Infallible>().await
        };
        tokio::select! {
            biased;
            response = stream.response() => match response {
                Ok(_) => Ok(self.counted.bytes()),
                Err(error) => Err(error.at(&self.path)),
            },
            never = ending => match never {},
        }
    }

    /// Does something, unless the agent answers before it has everything: then it has failed.
    pub(crate) async fn unless_answered<T>(
        &mut self,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let stream = self.stream().await?;
        tokio::select! {
            biased;
            response = stream.response() => Err(match response {
                Err(error) => error.at(&self.path),
                Ok(_) => Error::new(
                    ErrorKind::Protocol,
                    "the sandbox has answered before it had everything",
                ),
            }),
            result = work => result,
        }
    }

    fn check(&self) -> Result<()> {
        match self.whole {
            true => Ok(()),
            false => Err(Error::invalid(
                "a write to this file was given up half-way; begin the file anew",
            )),
        }
    }
}
