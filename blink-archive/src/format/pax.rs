//! Pax extension records: `LENGTH KEY=VALUE\n`, the length counting itself.

use crate::error::ArchiveError;
use crate::format::sparse::Segment;

/// Seconds and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

/// What the records say that matters here. Extended attributes other than those
/// of users are dropped on purpose: `security.*` of a hostile archive would mean
/// something to the kernel.
#[derive(Debug, Clone, Default)]
pub(crate) struct Records {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<u64>,
    pub(crate) gid: Option<u64>,
    pub(crate) mtime: Option<Time>,
    /// Extended attributes, `user.` and all; used only where they are asked for.
    pub(crate) attributes: Attributes,
    pub(crate) sparse: SparseRecords,
}

/// The three ways in which pax archives of GNU tar tell of a sparse file.
#[derive(Debug, Clone, Default)]
pub(crate) struct SparseRecords {
    /// 1.0: the map is at the start of the content.
    pub(crate) map_in_content: bool,
    pub(crate) name: Option<Vec<u8>>,
    pub(crate) real_size: Option<u64>,
    /// 0.0 and 0.1: the map is here.
    pub(crate) map: Vec<Segment>,
    offset: Option<u64>,
}

/// Names and values of extended attributes.
pub(crate) type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// What the keys of extended attributes begin with, as all tar programs write them.
pub(crate) const ATTRIBUTE: &str = "SCHILY.xattr.";

const DAMAGED: ArchiveError = ArchiveError::Corrupt {
    why: "an extension record cannot be read",
};

impl Records {
    pub(crate) fn parse(mut data: &[u8]) -> Result<Self, ArchiveError> {
        let mut records = Self::default();
        // Some writers pad the records with zero bytes.
        while !data.is_empty() && data[0] != 0 {
            let space = data
                .iter()
                .take(20)
                .position(|byte| *byte == b' ')
                .ok_or(DAMAGED)?;
            let length = usize::try_from(decimal(&data[..space])?).map_err(|_| DAMAGED)?;
            let record = data.get(space + 1..length).ok_or(DAMAGED)?;
            let record = record.strip_suffix(b"\n").ok_or(DAMAGED)?;
            let equals = record
                .iter()
                .position(|byte| *byte == b'=')
                .ok_or(DAMAGED)?;
            records.set(&record[..equals], &record[equals + 1..])?;
            data = &data[length..];
        }
        Ok(records)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), ArchiveError> {
        if let Some(name) = key.strip_prefix(ATTRIBUTE.as_bytes()) {
            if name.starts_with(b"user.") {
                self.attributes.push((name.to_vec(), value.to_vec()));
            }
            return Ok(());
        }
        if value.is_empty() {
            return Ok(());
        }
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(decimal(value)?),
            b"uid" => self.uid = Some(decimal(value)?),
            b"gid" => self.gid = Some(decimal(value)?),
            b"mtime" => self.mtime = Some(Time::parse(value).ok_or(DAMAGED)?),
            b"GNU.sparse.major" => self.sparse.map_in_content = decimal(value)? == 1,
            b"GNU.sparse.name" => self.sparse.name = Some(value.to_vec()),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => {
                self.sparse.real_size = Some(decimal(value)?);
            }
            b"GNU.sparse.offset" => self.sparse.offset = Some(decimal(value)?),
            b"GNU.sparse.numbytes" => {
                let offset = self.sparse.offset.take().ok_or(DAMAGED)?;
                self.sparse.map.push(Segment {
                    offset,
                    length: decimal(value)?,
                });
            }
            b"GNU.sparse.map" => {
                let mut numbers = value.split(|byte| *byte == b',');
                while let Some(offset) = numbers.next() {
                    self.sparse.map.push(Segment {
                        offset: decimal(offset)?,
                        length: decimal(numbers.next().ok_or(DAMAGED)?)?,
                    });
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether these records say what only one entry's own may.
    pub(crate) fn names_an_entry(&self) -> bool {
        self.path.is_some()
            || self.link.is_some()
            || self.size.is_some()
            || self.sparse.real_size.is_some()
    }
}

/// A plain decimal number that a file offset can hold.
pub(crate) fn decimal(text: &[u8]) -> Result<u64, ArchiveError> {
    let mut value: i64 = 0;
    if text.is_empty() {
        return Err(DAMAGED);
    }
    for digit in text {
        if !digit.is_ascii_digit() {
            return Err(DAMAGED);
        }
        value = value
            .checked_mul(10)
            .and_then(|value| value.checked_add(i64::from(digit - b'0')))
            .ok_or(DAMAGED)?;
    }
    Ok(value.cast_unsigned())
}

impl Time {
    const SECOND: u32 = 1_000_000_000;

    /// Reads `[-]SECONDS[.FRACTION]`; more than nine digits are cut off.
    fn parse(text: &[u8]) -> Option<Self> {
        let (negative, text) = match text.strip_prefix(b"-") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let point = text
            .iter()
            .position(|byte| *byte == b'.')
            .unwrap_or(text.len());
        let seconds = decimal(&text[..point]).ok()?.cast_signed();
        let fraction = text.get(point + 1..).unwrap_or_default();
        if !fraction.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let mut nanoseconds = 0;
        for place in 0..9 {
            nanoseconds = nanoseconds * 10
                + fraction
                    .get(place)
                    .map_or(0, |digit| u32::from(digit - b'0'));
        }
        Some(match (negative, nanoseconds) {
            (false, _) => Self {
                seconds,
                nanoseconds,
            },
            (true, 0) => Self {
                seconds: -seconds,
                nanoseconds,
            },
            (true, _) => Self {
                seconds: -seconds - 1,
                nanoseconds: Self::SECOND - nanoseconds,
            },
        })
    }

    /// What [`Time::parse`] reads.
    pub(crate) fn to_text(self) -> String {
        let Self {
            seconds,
            nanoseconds,
        } = self;
        match (seconds < 0, nanoseconds) {
            (_, 0) => seconds.to_string(),
            (false, _) => format!("{seconds}.{nanoseconds:09}"),
            (true, _) => format!("-{}.{:09}", -(seconds + 1), Self::SECOND - nanoseconds),
        }
    }
}

/// Appends one record.
pub(crate) fn push_record(records: &mut Vec<u8>, key: impl AsRef<[u8]>, value: &[u8]) {
    let key = key.as_ref();
    let rest = 1 + key.len() + 1 + value.len() + 1;
    // The length counts its own digits, which may make it one digit longer.
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_record() {
        let mut records = Vec::new();
        push_record(&mut records, "path", b"a");
        assert_eq!(records, b"9 path=a\n");
        records.clear();
        push_record(&mut records, "path", &[b'x'; 91]);
        assert_eq!(records.len(), 101);
        assert!(records.starts_with(b"101 path="));
    }

    #[test]
    fn a_newline_in_a_value_is_part_of_it() {
        let mut data = Vec::new();
        push_record(&mut data, "SCHILY.xattr.user.x", b"1\n2 size=9\n");
        push_record(&mut data, "size", b"7");
        push_record(&mut data, "path", b"a\nb=c");
        let records = Records::parse(&data).unwrap();
        assert_eq!(records.size, Some(7));
        assert_eq!(records.path.as_deref(), Some(&b"a\nb=c"[..]));
    }

    #[test]
    fn damaged_records_are_refused() {
        for data in [
            &b"x"[..],
            b"5 a=b",
            b"99 a=b\n",
            b"0 a=b\n",
            b"2 a=b\n",
            b"6 a=b\n\n",
            b"8 path\n\n",
            b"8 size=x\n",
            b"-1 a=b\n",
            b"10 mtime=x\n",
            b"99999999999999999999999 a=b\n",
        ] {
            let result = Records::parse(data);
            assert!(result.is_err(), "{:?}", String::from_utf8_lossy(data));
        }
    }

    #[test]
    fn times() {
        for (text, seconds, nanoseconds) in [
            ("0", 0, 0),
            ("1.5", 1, 500_000_000),
            ("1.0000000019", 1, 1),
            ("-1", -1, 0),
            ("-0.25", -1, 750_000_000),
            ("-1.25", -2, 750_000_000),
        ] {
            assert_eq!(
                Time::parse(text.as_bytes()),
                Some(Time {
                    seconds,
                    nanoseconds
                }),
                "{text}"
            );
        }
        for text in ["", ".5", "-", "1.x", "1e3", "99999999999999999999"] {
            assert_eq!(Time::parse(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn time_round_trip(seconds in -1i64 << 40..1 << 40, nanoseconds in 0u32..1_000_000_000) {
            let time = Time { seconds, nanoseconds };
            prop_assert_eq!(Time::parse(time.to_text().as_bytes()), Some(time));
        }

        #[test]
        fn arbitrary_records_do_not_panic(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Records::parse(&data);
        }
    }
}
