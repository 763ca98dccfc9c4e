//! A disk and others beneath it as one disk, that needs no other or lies over what is beneath them all.
//!
//! BoxLite can make one too, but takes a cluster that a machine has emptied for one that it has never written, so that what
//! was deleted is there again; and it reads each of a disk's entries by itself.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;

use super::qcow2::{
    ALONE, CLUSTER, COMPRESSED, Header, OFFSET, SPAN_CLUSTERS, Tables, ZEROS, invalid, read_table,
};

/// Clusters whose reference counts fit into one.
const COUNTED: u64 = CLUSTER / 2;

/// What shows the same as several disks, and all that is beneath them.
pub(super) struct Flat {
    header: Header,
    /// The topmost first.
    layers: Vec<Layer>,
    /// Those with something to say, in order.
    spans: Vec<Span>,
}

struct Span {
    number: u64,
    /// In order, each by its number in the span, with its place; those without one are zeros.
    clusters: Vec<(u16, Option<Place>)>,
}

impl Span {
    fn places(&self) -> impl Iterator<Item = Place> {
        self.clusters.iter().filter_map(|(_, place)| *place)
    }
}

/// What is beneath the lowest of several disks, if it says that there is something.
pub(super) enum Beneath<'a> {
    /// The disk of an image in a folder, which becomes part of the one.
    ImageIn(&'a Path),
    /// A disk that stays beneath the one.
    Disk(PathBuf),
}

/// Where a cluster's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    layer: u16,
    offset: u64,
}

/// What a layer says of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    Zeros,
    Data(Place),
}

struct Layer {
    file: File,
    /// Of the file.
    bytes: u64,
    /// Of the disk.
    clusters: u64,
    form: Form,
}

enum Form {
    /// Where the table of each span is.
    Qcow2(Vec<u64>),
    /// The disk itself, as BoxLite makes it of an image.
    Raw,
}

impl Flat {
    /// Opens several disks, the topmost first. The hypervisor writes what a disk says to be beneath it, and is not believed.
    ///
    /// # Errors
    /// `InvalidData` for what are no such disks.
    pub(super) fn open(disks: &[PathBuf], beneath: Beneath<'_>) -> io::Result<Flat> {
        let (mut layers, mut size_bytes) = (Vec::new(), None);
        for (index, disk) in disks.iter().enumerate() {
            let (layer, size, named) = Layer::open(disk)?;
            size_bytes.get_or_insert(size);
            layers.push(layer);
            match (named, disks.get(index + 1), &beneath) {
                (None, None, Beneath::ImageIn(_)) => {}
                (Some(named), Some(next), _) if are_same(&named, next) => {}
                (Some(named), None, Beneath::Disk(disk)) if are_same(&named, disk) => {}
                (Some(image), None, Beneath::ImageIn(images)) => {
                    layers.push(Layer::open_image(&image, images)?);
                }
                _ => return Err(other_beneath()),
            }
        }
        let header = Header {
            size_bytes: size_bytes.unwrap_or_default(),
            backing: match beneath {
                Beneath::Disk(disk) => Some(disk),
                Beneath::ImageIn(_) => None,
            },
        };
        let spans = spans(&layers, &header)?;
        Ok(Flat {
            header,
            layers,
            spans,
        })
    }

    /// How long [`read`](Flat::read) is.
    pub(super) fn bytes(&self) -> u64 {
        self.shape().clusters * CLUSTER
    }

    /// The disk, in the format qcow2, from its first byte to its last.
    pub(super) fn read(&self) -> io::Result<impl Read> {
        let shape = self.shape();
        Ok(Cursor::new(self.head(&shape)?)
            .chain(Clusters::of(self))
            .chain(Cursor::new(shape.counts())))
    }

    fn shape(&self) -> Shape {
        let tables = 1 + self.header.first_table_clusters();
        let data = tables + self.spans.len() as u64;
        let clusters: u64 = self
            .spans
            .iter()
            .map(|span| span.places().count() as u64)
            .sum();
        Shape::of(tables, data, data + clusters)
    }

    /// All that stands before the data.
    fn head(&self, shape: &Shape) -> io::Result<Vec<u8>> {
        let mut head = self.header.encode(&Tables {
            first_table: CLUSTER,
            counts: shape.counts * CLUSTER,
            counts_clusters: shape.blocks - shape.counts,
        })?;
        let length = |clusters: u64| usize::try_from(clusters * CLUSTER).map_err(io::Error::other);
        head.resize(length(shape.data)?, 0);
        let mut write = |at: u64, value: u64| {
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            head[at..at + 8].copy_from_slice(&value.to_be_bytes());
        };
        let mut data = shape.data * CLUSTER;
        for (table, span) in (shape.tables..).zip(&self.spans) {
            write(CLUSTER + span.number * 8, (table * CLUSTER) | ALONE);
            for (number, place) in &span.clusters {
                let entry = table * CLUSTER + u64::from(*number) * 8;
                match place {
                    None => write(entry, ZEROS),
                    Some(_) => {
                        write(entry, data | ALONE);
                        data += CLUSTER;
                    }
                }
            }
        }
        Ok(head)
    }
}

/// Where everything is in the disk that is written, in clusters: header, first table, tables of spans, data, table of the
/// reference counts, reference counts.
struct Shape {
    tables: u64,
    data: u64,
    counts: u64,
    blocks: u64,
    clusters: u64,
}

impl Shape {
    fn of(tables: u64, data: u64, counts: u64) -> Shape {
        let (mut blocks, mut clusters) = (counts, counts);
        // They count themselves too.
        loop {
            let needed = clusters.div_ceil(COUNTED);
            let table = (needed * 8).div_ceil(CLUSTER);
            if (blocks, clusters) == (counts + table, counts + table + needed) {
                break;
            }
            (blocks, clusters) = (counts + table, counts + table + needed);
        }
        Shape {
            tables,
            data,
            counts,
            blocks,
            clusters,
        }
    }

    /// Each cluster is referred to once.
    fn counts(&self) -> Vec<u8> {
        let mut counts = Vec::new();
        for block in self.blocks..self.clusters {
            counts.extend((block * CLUSTER).to_be_bytes());
        }
        let end = |clusters: u64| usize::try_from(clusters * CLUSTER).unwrap_or(usize::MAX);
        counts.resize(end(self.blocks - self.counts), 0);
        for _ in 0..self.clusters {
            counts.extend(1_u16.to_be_bytes());
        }
        counts.resize(end(self.clusters - self.counts), 0);
        counts
    }
}

/// The data, one cluster after the other.
struct Clusters<'a> {
    layers: &'a [Layer],
    places: Box<dyn Iterator<Item = Place> + Send + 'a>,
    buffer: Vec<u8>,
    taken: usize,
}

impl<'a> Clusters<'a> {
    fn of(flat: &'a Flat) -> Clusters<'a> {
        let places = flat.spans.iter().flat_map(Span::places);
        Clusters {
            layers: &flat.layers,
            places: Box::new(places),
            buffer: Vec::new(),
            taken: 0,
        }
    }
}

impl Read for Clusters<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.buffer.len() {
            let Some(place) = self.places.next() else {
                return Ok(0);
            };
            self.buffer
                .resize(usize::try_from(CLUSTER).map_err(io::Error::other)?, 0);
            self.layers[usize::from(place.layer)].read_cluster(place.offset, &mut self.buffer)?;
            self.taken = 0;
        }
        let read = (&self.buffer[self.taken..]).read(buffer)?;
        self.taken += read;
        Ok(read)
    }
}

fn other_beneath() -> io::Error {
    invalid("it wants another file beneath it than it lies over")
}

/// The way to a home may have several names.
fn are_same(one: &Path, other: &Path) -> bool {
    one == other
        || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// A name that was changed meanwhile leads nowhere else, and a pipe is not waited for.
fn open_file(path: &Path) -> io::Result<(File, u64)> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let metadata = file.metadata()?;
    match metadata.is_file() {
        true => Ok((file, metadata.len())),
        false => Err(invalid("it is no file")),
    }
}

fn spans(layers: &[Layer], header: &Header) -> io::Result<Vec<Span>> {
    let clusters = header.size_bytes.div_ceil(CLUSTER);
    // Entries that lead to the same place again and again would make an endless disk of a short file.
    let mut room: u64 = layers
        .iter()
        .map(|layer| layer.bytes.div_ceil(CLUSTER))
        .sum();
    let mut spans = Vec::new();
    // No layer knows more spans than it has room for.
    let known = layers.iter().map(Layer::spans).max().unwrap_or_default();
    for number in 0..clusters.div_ceil(SPAN_CLUSTERS).min(known) {
        // Of millions of spans, which a disk may have for the asking, few are looked at.
        if !layers.iter().any(|layer| layer.may_know(number)) {
            continue;
        }
        let start = number * SPAN_CLUSTERS;
        let count = SPAN_CLUSTERS.min(clusters - start);
        let mut found = vec![Found::Nothing; usize::try_from(count).map_err(io::Error::other)?];
        let mut used = 0;
        for (index, layer) in (0..).zip(layers) {
            used += u64::from(layer.look(index, number, &mut found)?);
        }
        let clusters: Vec<_> = (0..)
            .zip(found)
            .filter_map(|(cluster, found)| match found {
                Found::Data(place) => Some((cluster, Some(place))),
                // Of what is beneath, nothing is to show there.
                Found::Zeros if header.backing.is_some() => Some((cluster, None)),
                _ => None,
            })
            .collect();
        let span = Span { number, clusters };
        room = room
            .checked_sub(used + span.places().count() as u64)
            .ok_or_else(|| invalid("several of its entries lead to the same place"))?;
        if !span.clusters.is_empty() {
            spans.push(span);
        }
    }
    Ok(spans)
}

impl Layer {
    /// With the size of the disk, and what it says to be beneath it.
    fn open(path: &Path) -> io::Result<(Layer, u64, Option<PathBuf>)> {
        let (file, bytes) = open_file(path)?;
        let (header, table) = Header::read_from(&file)?;
        let layer = Layer {
            form: Form::Qcow2(table.read(&file)?),
            file,
            bytes,
            clusters: header.size_bytes.div_ceil(CLUSTER),
        };
        Ok((layer, header.size_bytes, header.backing))
    }

    fn open_image(path: &Path, images: &Path) -> io::Result<Layer> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(other_beneath());
        };
        if !are_same(folder, images) {
            return Err(other_beneath());
        }
        let (file, bytes) = open_file(&images.join(name))?;
        Ok(Layer {
            file,
            bytes,
            clusters: bytes.div_ceil(CLUSTER),
            form: Form::Raw,
        })
    }

    fn spans(&self) -> u64 {
        match &self.form {
            Form::Qcow2(tables) => tables.len() as u64,
            Form::Raw => self.clusters.div_ceil(SPAN_CLUSTERS),
        }
    }

    /// Whether it may say something of a span.
    fn may_know(&self, span: u64) -> bool {
        match &self.form {
            Form::Qcow2(tables) => {
                let table = usize::try_from(span).ok().and_then(|span| tables.get(span));
                table.is_some_and(|table| *table > 0)
            }
            Form::Raw => span < self.spans(),
        }
    }

    /// Finds what it knows of a span's clusters, of which nothing was found above it; says whether it has a table for them.
    fn look(&self, index: u16, span: u64, found: &mut [Found]) -> io::Result<bool> {
        let place = |offset| Place {
            layer: index,
            offset,
        };
        match &self.form {
            Form::Raw => self.look_for_data(span, found, place).map(|()| false),
            Form::Qcow2(tables) => {
                let table = usize::try_from(span).ok().and_then(|span| tables.get(span));
                let Some(&table @ 1..) = table else {
                    return Ok(false);
                };
                // Beyond its own end, what is beneath it does not show either; ours all end alike.
                let known = self.clusters.saturating_sub(span * SPAN_CLUSTERS);
                let entries = read_table(&self.file, table, known.min(found.len() as u64) * 8)?;
                for (found, entry) in found.iter_mut().zip(entries) {
                    if *found != Found::Nothing {
                        continue;
                    }
                    *found = match entry {
                        _ if entry & COMPRESSED != 0 => {
                            return Err(invalid("some of its clusters are compressed"));
                        }
                        _ if entry & ZEROS != 0 => Found::Zeros,
                        _ if entry & OFFSET == 0 => Found::Nothing,
                        _ => Found::Data(place(entry & OFFSET)),
                    };
                }
                Ok(true)
            }
        }
    }

    /// Of what has no table, the file system knows where it has data.
    fn look_for_data(
        &self,
        span: u64,
        found: &mut [Found],
        place: impl Fn(u64) -> Place,
    ) -> io::Result<()> {
        let start = span * SPAN_CLUSTERS * CLUSTER;
        let end = self.bytes.min(start + found.len() as u64 * CLUSTER);
        let mut at = start;
        while at < end {
            let data = match rustix::fs::seek(&self.file, SeekFrom::Data(at)) {
                Err(rustix::io::Errno::NXIO) => break,
                data => data?,
            };
            let hole = rustix::fs::seek(&self.file, SeekFrom::Hole(data))?.min(end);
            for cluster in data / CLUSTER..hole.div_ceil(CLUSTER) {
                let number =
                    usize::try_from(cluster - start / CLUSTER).map_err(io::Error::other)?;
                if let Some(found @ Found::Nothing) = found.get_mut(number) {
                    *found = Found::Data(place(cluster * CLUSTER));
                }
            }
            at = hole.max(data + 1);
        }
        Ok(())
    }

    /// Beyond its end are zeros.
    fn read_cluster(&self, offset: u64, cluster: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < cluster.len() {
            match self
                .file
                .read_at(&mut cluster[filled..], offset + filled as u64)
            {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        cluster[filled..].fill(0);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
