//! File trees as tar streams.
