//! Disks of sessions. A disk is a tree of layers: a session writes to one, its head, and what it sees is the head over all that
//! is beneath it.
//!
//! A change of a disk is a [`Draft`]: layers are made for it, and then one transaction of the [`Registry`] writes down what is
//! true from then on. A draft that is dropped leaves nothing.

mod ballast;
mod disks;
mod draft;
mod layers;
mod options;
mod registry;

pub(crate) use self::disks::Disks;
pub(crate) use self::draft::Draft;
pub(crate) use self::layers::pin;
pub(crate) use self::options::SessionOptions;
pub(crate) use self::registry::{
    CheckpointRow, LayerRow, Registry, SessionRow, checkpoint_taken, session_taken,
};
