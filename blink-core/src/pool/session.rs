//! A sandbox of a pool becomes a session.

use std::sync::Arc;

use super::keeper::Keeper;
use super::member::Member;
use crate::error::Result;
use crate::session::{Claimed, Session};
use crate::spec::SandboxSpec;

/// Gives a member a name, under which it stays when the pool is gone.
pub(super) async fn name(
    keeper: &Arc<Keeper>,
    member: Member,
    spec: SandboxSpec,
    name: &str,
) -> Result<Session> {
    let mould = keeper.mould();
    let Member { sandbox, held, .. } = member;
    let claimed = Claimed {
        disk: super::member::disk(&sandbox),
        sandbox,
        engine: mould.template.engine().clone(),
        spec,
        image: mould.template.image().cloned(),
        beneath: mould.template.row(),
    };
    let session = mould.request.blink.session_of(name, claimed).await;
    drop(held);
    session
}
