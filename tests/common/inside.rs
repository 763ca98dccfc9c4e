//! What tests do in the sandbox of a session, in a word.

#![allow(dead_code, reason = "not all who share it use all of it")]

use blink_core::{Command, Files, Output, Process, ProcessInfo, Result, Session};

pub(crate) trait Inside {
    async fn exec(&self, command: Command) -> Result<Output>;
    async fn spawn(&self, command: Command) -> Result<Process>;
    async fn process(&self, id: u64, stdout_offset: u64, stderr_offset: u64) -> Result<Process>;
    async fn processes(&self) -> Result<Vec<ProcessInfo>>;
    async fn files(&self) -> Result<Files>;
}

impl Inside for Session {
    async fn exec(&self, command: Command) -> Result<Output> {
        self.sandbox().await?.exec(command).await
    }

    async fn spawn(&self, command: Command) -> Result<Process> {
        self.sandbox().await?.spawn(command).await
    }

    async fn process(&self, id: u64, stdout_offset: u64, stderr_offset: u64) -> Result<Process> {
        let sandbox = self.sandbox().await?;
        sandbox.process(id, stdout_offset, stderr_offset).await
    }

    async fn processes(&self) -> Result<Vec<ProcessInfo>> {
        self.sandbox().await?.processes().await
    }

    async fn files(&self) -> Result<Files> {
        self.sandbox().await?.files()
    }
}
