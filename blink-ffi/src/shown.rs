//! What sandboxes and sessions were given, in the form in which C gives it to others.

use std::ffi::{CString, c_char};
use std::os::unix::ffi::OsStrExt;

use blink_core::{Mount, PublishedPort};

use crate::sandbox_options::{blink_mount, blink_port};
use crate::text::cut;

/// Elements of an array for C, with the text that they point to.
pub(crate) struct Shown<T> {
    elements: Vec<T>,
    _texts: Vec<CString>,
}

// SAFETY: elements are numbers, and pointers to the text beside them, which nobody changes. Only this module makes them.
unsafe impl<T> Send for Shown<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shown<T> {}

impl<T> Shown<T> {
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        self.elements.get(index)
    }

    pub(crate) fn count(&self) -> usize {
        self.elements.len()
    }

    /// Its first element; NULL if there is none.
    pub(crate) fn first(&self) -> *const T {
        match self.elements.is_empty() {
            true => std::ptr::null(),
            false => self.elements.as_ptr(),
        }
    }
}

impl Shown<*const c_char> {
    pub(crate) fn texts<T: Into<Vec<u8>>>(
        texts: impl IntoIterator<Item = T>,
    ) -> Shown<*const c_char> {
        let texts: Vec<CString> = texts.into_iter().map(cut).collect();
        Shown {
            elements: texts.iter().map(|text| text.as_ptr()).collect(),
            _texts: texts,
        }
    }
}

impl Shown<blink_mount> {
    pub(crate) fn mounts(mounts: &[Mount]) -> Shown<blink_mount> {
        let mut texts = Vec::with_capacity(2 * mounts.len());
        let mut keep = |path: &std::path::Path| {
            let text = cut(path.as_os_str().as_bytes());
            let pointer = text.as_ptr();
            texts.push(text);
            pointer
        };
        let elements = mounts.iter().map(|mount| blink_mount {
            host: keep(&mount.host),
            guest: keep(&mount.guest),
            read_only: mount.read_only.into(),
            reserved: 0,
        });
        Shown {
            elements: elements.collect(),
            _texts: texts,
        }
    }
}

impl Shown<blink_port> {
    pub(crate) fn ports(ports: &[PublishedPort]) -> Shown<blink_port> {
        let addresses: Vec<CString> = ports
            .iter()
            .map(|port| cut(port.host.ip().to_string()))
            .collect();
        let elements = ports
            .iter()
            .zip(&addresses)
            .map(|(port, address)| blink_port {
                address: address.as_ptr(),
                host_port: port.host.port(),
                guest_port: port.guest,
                reserved: 0,
            });
        Shown {
            elements: elements.collect(),
            _texts: addresses,
        }
    }
}
