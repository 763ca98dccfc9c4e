//! Programs that run, and stream.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use blink_core::{ExitStatus, Process, ProcessOutput, ProcessStdin};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::sync::Mutex;
use tokio::task::AbortHandle;

use crate::call::call;
use crate::cancel::blink_cancel;
use crate::core::{Core, Held};
use crate::error::blink_error;
use crate::exit::{Exit, blink_exit};
use crate::failure::{Failure, quietly};
use crate::handle;
use crate::readiness::Readiness;
use crate::status::blink_status;

/// An output stream of a program.
#[repr(i32)]
#[derive(Clone, Copy)]
pub enum blink_stream {
    /// Standard output; of a program with a terminal, everything.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
}

/// A program that runs in a sandbox. Its output holds it back when nobody takes it: read both streams, or discard them.
pub struct blink_process {
    process: Held<Process>,
    stdin: Held<Mutex<Option<ProcessStdin>>>,
    outputs: [Output; 2],
    exit: OnceLock<Exit>,
    /// Says that it has ended, to whoever polls.
    ended: Arc<Readiness>,
    /// What waits for that, once somebody polls.
    watch: OnceLock<AbortHandle>,
}

struct Output {
    /// Where its next byte is in the program's stream.
    offset: AtomicU64,
    /// `None` if it is discarded.
    reading: Held<Mutex<Option<ProcessOutput>>>,
    readiness: Arc<Readiness>,
}

impl blink_process {
    pub(crate) fn new(core: &Arc<Core>, mut process: Process) -> blink_process {
        let output = |output: Option<ProcessOutput>| Output {
            offset: AtomicU64::new(output.as_ref().map_or(0, ProcessOutput::offset)),
            reading: Held::new(core, Mutex::new(output)),
            readiness: Arc::default(),
        };
        blink_process {
            stdin: Held::new(core, Mutex::new(process.take_stdin())),
            outputs: [output(process.take_stdout()), output(process.take_stderr())],
            process: Held::new(core, process),
            exit: OnceLock::new(),
            ended: Arc::default(),
            watch: OnceLock::new(),
        }
    }

    fn core(&self) -> &Arc<Core> {
        self.process.core()
    }

    fn output(&self, stream: i32) -> Result<&Output, Failure> {
        const STDOUT: i32 = blink_stream::Stdout as i32;
        const STDERR: i32 = blink_stream::Stderr as i32;
        match stream {
            STDOUT => Ok(&self.outputs[0]),
            STDERR => Ok(&self.outputs[1]),
            _ => Err(Failure::invalid(format!(
                "{stream} is not an output stream; it can be {STDOUT} or {STDERR}"
            ))),
        }
    }
}

impl Drop for blink_process {
    /// The program goes on, and whoever attaches next can write to it.
    fn drop(&mut self) {
        if let Some(watch) = self.watch.get() {
            watch.abort();
        }
        if let Ok(mut stdin) = self.stdin.try_lock()
            && let Some(stdin) = stdin.take()
        {
            stdin.leave();
        }
    }
}

impl Output {
    /// Says where it is, after it was read.
    fn moved(&self, output: &ProcessOutput) {
        self.offset.store(output.offset(), Ordering::Relaxed);
    }

    fn try_read(&self, room: &mut [u8]) -> Result<usize, Failure> {
        let mut reading = self.reading.try_lock().map_err(|_| {
            Failure::new(blink_status::Busy, "another thread reads this stream now")
        })?;
        let Some(output) = reading.as_mut() else {
            return Ok(0);
        };
        // Before it is looked at: what comes afterwards makes it ready again.
        self.readiness.clear();
        let waker = Waker::from(self.readiness.clone());
        let mut buffer = ReadBuf::new(room);
        let polled =
            Pin::new(&mut *output).poll_read(&mut Context::from_waker(&waker), &mut buffer);
        self.moved(output);
        match polled {
            Poll::Ready(result) => {
                // There may be more, and the end stays.
                self.readiness.set();
                result?;
                Ok(buffer.filled().len())
            }
            Poll::Pending => Err(Failure::would_block()),
        }
    }
}

/// Names a process for as long as its sandbox runs: blink_sandbox_attach() takes it.
///
/// @param process  Borrowed. May be used from several threads at once.
/// @return 0 for NULL or an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_process_id(process: *const blink_process) -> u64 {
    quietly(0, || {
        handle::get(process).map_or(0, |process| process.process.id())
    })
}

/// Its number among the sandbox's processes.
///
/// @param process  Borrowed. May be used from several threads at once.
/// @return 0 if it could not be started, and for NULL or an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_process_pid(process: *const blink_process) -> u32 {
    quietly(0, || {
        handle::get(process).map_or(0, |process| process.process.pid())
    })
}

/// Reads what a program has written; waits while there is nothing. Several threads take turns.
///
/// @param process  Borrowed. May be used from several threads at once.
/// @param stream   A blink_stream.
/// @param buffer   Room for what is read.
/// @param length   How many bytes fit; at least 1.
/// @param count    Set to the number of bytes that were read; 0 is the stream's end.
/// @param cancel   Borrowed. NULL: it cannot be cancelled. Nothing is lost by it.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); BUSY if someone else has attached to the process; SANDBOX_DIED; CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_process_read(
    process: *const blink_process,
    stream: i32,
    buffer: *mut u8,
    length: usize,
    count: *mut usize,
    cancel: *const blink_cancel,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let count = caller.place(count, 0)?;
        let room = caller.room(buffer, length, "the buffer")?;
        let process = handle::get(process)?;
        let output = process.output(stream)?;
        let read = process.core().wait(cancel, async {
            let mut reading = output.reading.lock().await;
            match reading.as_mut() {
                Some(reading) => {
                    let count = reading.read(room).await;
                    output.moved(reading);
                    count
                }
                None => Ok(0),
            }
        });
        // The descriptor is not told any more of what this reader has waited for.
        output.readiness.set();
        caller.set(count, read?);
        Ok(())
    })
}

/// Reads what a program has written; never waits.
///
/// @param process  Borrowed. May be used from several threads at once.
/// @param stream   A blink_stream.
/// @param buffer   Room for what is read.
/// @param length   How many bytes fit; at least 1.
/// @param count    Set to the number of bytes that were read; 0 is the stream's end.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); WOULD_BLOCK if there is nothing now; BUSY while another thread reads the stream, or if
///         someone else has attached to the process; SANDBOX_DIED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_process_try_read(
    process: *const blink_process,
    stream: i32,
    buffer: *mut u8,
    length: usize,
    count: *mut usize,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let count = caller.place(count, 0)?;
        let room = caller.room(buffer, length, "the buffer")?;
        let process = handle::get(process)?;
        process.core().check()?;
        let read = process.output(stream)?.try_read(room)?;
        caller.set(count, read);
        Ok(())
    })
}

/// How many bytes of a program's stream were before the next one that is read: where to attach again later. After an attach, it
/// says where the oldest byte is that is still there.
///
/// @param process  Borrowed. May be used from several threads at once.
/// @param stream   A blink_stream.
/// @param offset   Set to the number of bytes; 0 on failure.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0), or INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_process_offset(
    process: *const blink_process,
    stream: i32,
    offset: *mut u64,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let offset = caller.place(offset, 0)?;
        let process = handle::get(process)?;
        let output = process.output(stream)?;
        caller.set(offset, output.offset.load(Ordering::Relaxed));
        Ok(())
    })
}

/// A file descriptor to poll for a stream: POLLIN says that blink_process_try_read() is worth a try. It is ready until that
/// has answered BLINK_STATUS_WOULD_BLOCK, and stays ready at the stream's end. Nothing else is to be done with it: do not
/// read from it, and do not close it.
///
/// @param process  Borrowed. May be used from several threads at once.
/// @param stream   A blink_stream.
/// @param fd       Set to the descriptor, which is there until the process is freed. -1 on failure.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); RESOURCE_EXHAUSTED if there are no more descriptors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_process_fd(
    process: *const blink_process,
    stream: i32,
    fd: *mut i32,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let fd = caller.place(fd, -1)?;
        let process = handle::get(process)?;
        process.core().check()?;
        caller.set(fd, process.output(stream)?.readiness.fd()?);
        Ok(())
    })
}

/// A file descriptor to poll for a program's end: POLLIN says that blink_process_wait() returns without waiting, since the program has
/// ended and its output was taken or discarded, or since its sandbox has ended. It stays ready. Do not read from it, and do not close
/// it.
///
/// @param process  Borrowed. May be used from several threads at once.
/// @param fd       Set to the descriptor, which is there until the process is freed. -1 on failure.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); RESOURCE_EXHAUSTED if there are no more descriptors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_process_exit_fd(
    process: *const blink_process,
    fd: *mut i32,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let fd = caller.place(fd, -1)?;
        let process = handle::get(process)?;
        process.core().check()?;
        caller.set(fd, process.ended.unready_fd()?);
        process.watch.get_or_init(|| {
            let (exit, ended) = (process.process.exit(), process.ended.clone());
            process.core().spawn(async move {
                // That nobody can tell how it ended is an end, too: whoever waits is told.
                let _ = exit.await;
                ended.set();
            })
        });
        Ok(())
    })
}

/// Throws away what a stream still holds, and all that is to come: the program is not held back by it. Reading it then finds
/// its end. Waits for a thread that reads it now.
///
/// @param process  Borrowed. May be used from several threads at once.
/// @param stream   A blink_stream.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0), or INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_process_discard(
    process: *const blink_process,
    stream: i32,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |_caller| {
        let process = handle::get(process)?;
        let output = process.output(stream)?;
        process.core().wait(std::ptr::null(), async {
            drop(output.reading.lock().await.take());
            Ok::<_, Failure>(())
        })?;
        output.readiness.set();
        Ok(())
    })
}

/// Writes to a program's standard input; waits while the program does not take it. That the program reads no more is no
/// failure: its exit tells.
///
/// @param process  Borrowed. May be used from several threads at once, which take turns.
/// @param data     Bytes. NULL with a length of 0.
/// @param length   How many they are.
/// @param cancel   Borrowed. NULL: it cannot be cancelled. A part may have been written then.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT if the command asked for no stdin_piped, or the input was closed;
///         SANDBOX_DIED; CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_process_write(
    process: *const blink_process,
    data: *const u8,
    length: usize,
    cancel: *const blink_cancel,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let data = caller.bytes(data, length, "data")?;
        let process = handle::get(process)?;
        process.core().wait(cancel, async {
            match process.stdin.lock().await.as_mut() {
                Some(stdin) => Ok(stdin.write(Bytes::copy_from_slice(data)).await?),
                None => Err(Failure::invalid(
                    "the program has no standard input to write to: stdin_piped was not set, or it was closed",
                )),
            }
        })
    })
}

/// Ends a program's standard input, behind everything that was written. Does nothing if there is none.
///
/// @param process  Borrowed. May be used from several threads at once.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0), or INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_process_close_stdin(
    process: *const blink_process,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |_caller| {
        let process = handle::get(process)?;
        process.core().wait(std::ptr::null(), async {
            let stdin = process.stdin.lock().await.take();
            if let Some(stdin) = stdin {
                stdin.close().await;
            }
            Ok::<_, Failure>(())
        })
    })
}

/// Tells a program's terminal a new size. Without a terminal nothing happens.
///
/// @param process  Borrowed. May be used from several threads at once.
/// @param rows     At least 1.
/// @param cols     At least 1.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0), or INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_process_resize(
    process: *const blink_process,
    rows: u16,
    cols: u16,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |_caller| {
        let process = handle::get(process)?;
        if rows == 0 || cols == 0 {
            return Err(Failure::invalid(format!(
                "a terminal cannot have {rows} rows and {cols} columns"
            )));
        }
        process.core().check()?;
        process.process.resize(rows, cols);
        Ok(())
    })
}

/// Sends a signal.
///
/// @param process  Borrowed. May be used from several threads at once.
/// @param signal   Linux's number, such as 15 for SIGTERM.
/// @param tree     false: to its process group. true: to everything that it has started, also what has left that.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT if it is not a signal; NOT_FOUND once it was released; SANDBOX_DIED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_process_signal(
    process: *const blink_process,
    signal: i32,
    tree: bool,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |_caller| {
        let process = handle::get(process)?;
        let signal = signal_number(signal)?;
        process.core().wait(std::ptr::null(), async {
            match tree {
                false => process.process.signal(signal).await,
                true => process.process.signal_tree(signal).await,
            }
        })
    })
}

/// Waits until a program has ended and all of its output was read or discarded. May be called again, also after it has
/// failed.
///
/// @param process     Borrowed. May be used from several threads at once.
/// @param timeout_ms  Milliseconds to wait; 0 means no limit.
/// @param exit        Set up with blink_exit_init(), and filled in; its text belongs to the process. May be NULL.
/// @param cancel      Borrowed. NULL: it cannot be cancelled. The program goes on.
/// @param err         May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); TIMEOUT if it has not ended by then, and goes on; SANDBOX_DIED; BUSY if someone else
///         has attached to the process; CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_process_wait(
    process: *const blink_process,
    timeout_ms: u64,
    exit: *mut blink_exit,
    cancel: *const blink_cancel,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let process = handle::get(process)?;
        let limit = caller.milliseconds(timeout_ms);
        if process.exit.get().is_none() {
            let status = process.core().wait(cancel, async {
                within(limit, process.process.exited()).await
            })?;
            process.exit.get_or_init(|| Exit::new(status));
        }
        match (process.exit.get(), exit.is_null()) {
            (Some(ended), false) => caller.fill(exit, &ended.shown(), "exit"),
            _ => Ok(()),
        }
    })
}

/// Kills a program and everything that it has started.
///
/// @param process  Borrowed. May be used from several threads at once.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); NOT_FOUND once it was released; SANDBOX_DIED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_process_kill(
    process: *const blink_process,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |_caller| {
        let process = handle::get(process)?;
        process
            .core()
            .wait(std::ptr::null(), process.process.kill())
    })
}

/// Forgets a program in its sandbox: it is killed if it runs, and its output and exit can no longer be asked for. The handle
/// still wants to be freed.
///
/// @param process  Borrowed. May be used from several threads at once.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); NOT_FOUND once it was released; SANDBOX_DIED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_process_release(
    process: *const blink_process,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |_caller| {
        let process = handle::get(process)?;
        process
            .core()
            .wait(std::ptr::null(), process.process.release())
    })
}

/// Frees a process's handle, and closes its file descriptors. The program goes on, and its standard input does not end:
/// attach to it again with its id.
///
/// @param process  Taken. NULL does nothing. Calls that are under way on it end first.
#[unsafe(no_mangle)]
pub extern "C" fn blink_process_free(process: *mut blink_process) {
    handle::free(process);
}

pub(crate) fn signal_number(signal: i32) -> Result<u8, Failure> {
    u8::try_from(signal)
        .map_err(|_| Failure::invalid(format!("{signal} is not the number of a signal")))
}

/// Waits for a program's end, for so long at most.
pub(crate) async fn within(
    limit: Option<Duration>,
    ended: impl Future<Output = blink_core::Result<ExitStatus>>,
) -> Result<ExitStatus, Failure> {
    let Some(limit) = limit else {
        return Ok(ended.await?);
    };
    let waited = tokio::time::timeout(limit, ended).await;
    let message = format!("the program has not ended within {limit:?}; it goes on");
    Ok(waited.map_err(|_| Failure::new(blink_status::Timeout, message))??)
}
