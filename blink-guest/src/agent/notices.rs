//! What goes out over a link: the news of processes, jobs and connections.

use blink_wire::{ErrorBody, ErrorKind, FrameType, Message, Response, WindowUpdate};

use super::Agent;
use crate::stream::Caller;
use crate::{connect, job, process};

impl Agent {
    pub(super) fn deliver_notices(&mut self) {
        for notice in std::mem::take(&mut self.sources.processes.notices) {
            match notice {
                process::Notice::Ready(caller) => self.mark_ready(caller),
                process::Notice::Credit(caller, credit) => {
                    self.give_credit(caller, FrameType::STDIN, credit)
                }
                process::Notice::Exited(caller, report) => {
                    self.end(caller, FrameType::EXIT, &report.to_body())
                }
                process::Notice::Ended(caller, report) => {
                    let response = Response::Ended(report);
                    self.end(caller, FrameType::RPC_RESPONSE, &response.to_body());
                }
                process::Notice::Taken(caller) => {
                    let error = ErrorBody::new(
                        ErrorKind::Busy,
                        "another program has attached to this process",
                    );
                    self.end(caller, FrameType::ERROR, &error.to_body());
                }
            }
        }
        for notice in std::mem::take(&mut self.sources.jobs.notices) {
            match notice {
                job::Notice::Ready(caller) => self.mark_ready(caller),
                job::Notice::Credit(caller, credit) => {
                    self.give_credit(caller, FrameType::STREAM_DATA, credit)
                }
                job::Notice::Finished(caller, Ok(response)) => {
                    self.end(caller, FrameType::RPC_RESPONSE, &response.to_body());
                }
                job::Notice::Finished(caller, Err(error)) => {
                    self.end(caller, FrameType::RPC_ERROR, &error.to_body())
                }
            }
        }
        for notice in std::mem::take(&mut self.sources.connections.notices) {
            match notice {
                connect::Notice::Ready(caller) => self.mark_ready(caller),
                connect::Notice::Credit(caller, credit) => {
                    self.give_credit(caller, FrameType::STREAM_DATA, credit)
                }
                connect::Notice::Connected(caller) => {
                    if let Some(link) = self.links.get_mut(&caller.link) {
                        link.respond(caller.request, &Response::Done);
                    }
                }
                connect::Notice::Refused(caller, error) => {
                    self.end(caller, FrameType::RPC_ERROR, &error.to_body())
                }
                connect::Notice::Closed(caller) => {
                    if let Some(link) = self.links.get_mut(&caller.link) {
                        link.streams.remove(&caller.request);
                    }
                }
                connect::Notice::Broken(caller, error) => {
                    self.end(caller, FrameType::ERROR, &error.to_body())
                }
            }
        }
    }

    fn mark_ready(&mut self, caller: Caller) {
        if let Some(link) = self.links.get_mut(&caller.link) {
            link.mark_ready(caller.request);
        }
    }

    fn give_credit(&mut self, caller: Caller, channel: FrameType, credit: u32) {
        if let Some(link) = self.links.get_mut(&caller.link) {
            link.send(
                FrameType::WINDOW_UPDATE,
                caller.request,
                false,
                &WindowUpdate { channel, credit }.encode(),
            );
        }
    }

    /// Sends the last frame of a stream.
    fn end(&mut self, caller: Caller, frame_type: FrameType, body: &[u8]) {
        if let Some(link) = self.links.get_mut(&caller.link) {
            link.streams.remove(&caller.request);
            link.send(frame_type, caller.request, true, body);
        }
    }
}
