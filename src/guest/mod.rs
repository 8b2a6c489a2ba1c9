//! What EL2 does for guests at EL1, as far as it needs no instruction of EL2's own: it runs on the
//! host too.
//!
//! | room | what |
//! |---|---|
//! | [`calls`] | hypercalls (`ABI.md`): hostile words in, the user's verbs, words out |
#![forbid(unsafe_code)]

pub mod calls;
