//! `blink-guest link`: joins standard input and output to the agent's socket, for engines whose only channel into a
//! sandbox is a program's standard streams. With `--armor` what goes out is ASCII text.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

const CHUNK: usize = 64 << 10;

pub(crate) fn run(socket: &Path, armor: bool) -> io::Result<()> {
    let mut incoming = UnixStream::connect(socket)?;
    let outgoing = incoming.try_clone()?;
    // Ends with the process: when the agent has no more to say, there is nobody to send to either.
    std::thread::Builder::new()
        .stack_size(256 << 10)
        .spawn(move || {
            let copied = copy(&mut io::stdin().lock(), &mut &outgoing, |bytes, out| {
                out.extend_from_slice(bytes)
            });
            // However the input ended, the agent hears of it.
            let _ = outgoing.shutdown(Shutdown::Write);
            copied
        })?;
    let mut stdout = io::stdout().lock();
    match armor {
        true => copy(&mut incoming, &mut stdout, blink_wire::armor_encode),
        false => copy(&mut incoming, &mut stdout, |bytes, out| {
            out.extend_from_slice(bytes)
        }),
    }
}

fn copy(
    from: &mut impl Read,
    to: &mut impl Write,
    transform: impl Fn(&[u8], &mut Vec<u8>),
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut out = Vec::with_capacity(2 * CHUNK);
    loop {
        let count = match from.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        out.clear();
        transform(&chunk[..count], &mut out);
        to.write_all(&out)?;
        to.flush()?;
    }
}
