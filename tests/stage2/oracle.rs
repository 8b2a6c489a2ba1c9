//! The same tables by the crate `aarch64-paging`, which knows nothing of this one.
