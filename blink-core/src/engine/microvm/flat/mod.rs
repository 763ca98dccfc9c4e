//! A disk and what is beneath it as one disk that needs no other.
//!
//! BoxLite can make one too, but takes a cluster that a machine has emptied for one that it has never written, so that what
//! was deleted is there again; and it reads each of a disk's entries by itself.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;

use super::qcow2::{
    ALONE, CLUSTER, COMPRESSED, FirstTable, Header, OFFSET, SPAN_CLUSTERS, Tables, ZEROS, invalid,
    read_table,
};

/// Clusters whose reference counts fit into one.
const COUNTED: u64 = CLUSTER / 2;

/// Disks that may lie one over the other: far more than sessions have.
const DEEPEST: usize = 4096;

/// What shows the same as a disk and all that is beneath it.
pub(super) struct Flat {
    size_bytes: u64,
    /// The topmost first.
    layers: Vec<Layer>,
    /// Those with data, in order.
    spans: Vec<Span>,
}

struct Span {
    number: u64,
    /// In order, each by its number in the span.
    clusters: Vec<(u16, Place)>,
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
    bytes: u64,
    form: Form,
}

enum Form {
    /// Where the table of each span is.
    Qcow2(Vec<u64>),
    /// The disk itself, as BoxLite makes it of an image.
    Raw,
}

impl Flat {
    /// Opens a disk and all that it names beneath it, which must be in a folder: the hypervisor writes these names, and it is
    /// not believed.
    ///
    /// # Errors
    /// `InvalidData` for what is no such disk.
    pub(super) fn open(disk: &Path, within: &Path) -> io::Result<Flat> {
        let within = within.canonicalize()?;
        let (mut layers, mut size_bytes) = (Vec::new(), None);
        let mut next = Some(disk.to_owned());
        while let Some(path) = next {
            if layers.len() == DEEPEST {
                return Err(invalid("too many disks lie one over the other"));
            }
            let beneath = size_bytes.is_some();
            if beneath && !path.canonicalize()?.starts_with(&within) {
                return Err(invalid(
                    "it wants a file beneath it that is no disk of Blink's",
                ));
            }
            let (layer, size, backing) = Layer::open(&path, beneath)?;
            size_bytes.get_or_insert(size);
            layers.push(layer);
            next = backing;
        }
        let size_bytes = size_bytes.unwrap_or_default();
        let spans = spans(&layers, size_bytes)?;
        Ok(Flat {
            size_bytes,
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

    fn header(&self) -> Header {
        Header {
            size_bytes: self.size_bytes,
            backing: None,
        }
    }

    fn shape(&self) -> Shape {
        let tables = 1 + self.header().first_table_clusters();
        let data = tables + self.spans.len() as u64;
        let clusters: u64 = self
            .spans
            .iter()
            .map(|span| span.clusters.len() as u64)
            .sum();
        Shape::of(tables, data, data + clusters)
    }

    /// All that stands before the data.
    fn head(&self, shape: &Shape) -> io::Result<Vec<u8>> {
        let mut head = self.header().encode(&Tables {
            first_table: CLUSTER,
            counts: shape.counts * CLUSTER,
            counts_clusters: shape.blocks - shape.counts,
        })?;
        let length = |clusters: u64| usize::try_from(clusters * CLUSTER).map_err(io::Error::other);
        head.resize(length(shape.data)?, 0);
        let mut write = |at: u64, value: u64| {
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            head[at..at + 8].copy_from_slice(&(value | ALONE).to_be_bytes());
        };
        let mut data = shape.data * CLUSTER;
        for (table, span) in (shape.tables..).zip(&self.spans) {
            write(CLUSTER + span.number * 8, table * CLUSTER);
            for (number, _) in &span.clusters {
                write(table * CLUSTER + u64::from(*number) * 8, data);
                data += CLUSTER;
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
        let clusters = flat.spans.iter().flat_map(|span| &span.clusters);
        Clusters {
            layers: &flat.layers,
            places: Box::new(clusters.map(|(_, place)| *place)),
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
            self.buffer = self.layers[usize::from(place.layer)].cluster(place.offset)?;
            self.taken = 0;
        }
        let read = (&self.buffer[self.taken..]).read(buffer)?;
        self.taken += read;
        Ok(read)
    }
}

fn spans(layers: &[Layer], size_bytes: u64) -> io::Result<Vec<Span>> {
    let clusters = size_bytes.div_ceil(CLUSTER);
    // Tables that lead to the same cluster again and again would make an endless disk of a short file.
    let mut room: u64 = layers
        .iter()
        .map(|layer| layer.bytes.div_ceil(CLUSTER))
        .sum();
    let mut spans = Vec::new();
    // No layer knows more spans than it has room for.
    let known = layers.iter().map(Layer::spans).max().unwrap_or_default();
    for number in 0..clusters.div_ceil(SPAN_CLUSTERS).min(known) {
        let start = number * SPAN_CLUSTERS;
        let count = SPAN_CLUSTERS.min(clusters - start);
        let mut found = vec![Found::Nothing; usize::try_from(count).map_err(io::Error::other)?];
        for (index, layer) in (0..).zip(layers) {
            layer.look(index, number, &mut found)?;
        }
        let clusters: Vec<_> = (0..)
            .zip(found)
            .filter_map(|(cluster, found)| match found {
                Found::Data(place) => Some((cluster, place)),
                _ => None,
            })
            .collect();
        room = room
            .checked_sub(clusters.len() as u64)
            .ok_or_else(|| invalid("several of its clusters are the same"))?;
        if !clusters.is_empty() {
            spans.push(Span { number, clusters });
        }
    }
    Ok(spans)
}

impl Layer {
    /// With the size of the disk, and what is beneath it.
    fn open(path: &Path, may_be_raw: bool) -> io::Result<(Layer, u64, Option<PathBuf>)> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        if may_be_raw
            && path
                .extension()
                .is_none_or(|extension| extension != "qcow2")
        {
            let form = Form::Raw;
            return Ok((Layer { file, bytes, form }, bytes, None));
        }
        let (header, table): (Header, FirstTable) = Header::read_from(&file)?;
        let form = Form::Qcow2(table.read(&file)?);
        Ok((
            Layer { file, bytes, form },
            header.size_bytes,
            header.backing,
        ))
    }

    fn spans(&self) -> u64 {
        match &self.form {
            Form::Qcow2(tables) => tables.len() as u64,
            Form::Raw => self.bytes.div_ceil(SPAN_CLUSTERS * CLUSTER),
        }
    }

    /// Says what it knows of a span's clusters, of which nothing was found above it.
    fn look(&self, index: u16, span: u64, found: &mut [Found]) -> io::Result<()> {
        let place = |offset| Place {
            layer: index,
            offset,
        };
        match &self.form {
            Form::Raw => self.look_for_data(span, found, place),
            Form::Qcow2(tables) => {
                let table = usize::try_from(span).ok().and_then(|span| tables.get(span));
                let Some(&table @ 1..) = table else {
                    return Ok(());
                };
                let entries = read_table(&self.file, table, found.len() as u64 * 8)?;
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
                Ok(())
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
    fn cluster(&self, offset: u64) -> io::Result<Vec<u8>> {
        let mut cluster = vec![0; usize::try_from(CLUSTER).map_err(io::Error::other)?];
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
        Ok(cluster)
    }
}

#[cfg(test)]
mod tests;
