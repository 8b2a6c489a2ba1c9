//! Two guests, each with two devices, behind the model of two SMMUs: what the dispatcher of
//! hypercalls is held to.
#![expect(
    unsafe_code,
    reason = "implementing `Platform` is the one promise that a host makes"
)]

mod board;
mod host;
mod random;
mod strangers;
mod world;

pub use board::{
    Board, DATA, GUESTS, Guest, IPA, LIST, RAM_BYTES, SPACES, TABLES, VA, guest_config, on_board,
    on_unruly_board, tables,
};
pub use host::Host;
pub use random::Random;
pub use strangers::Stranger;
pub use world::Vcpu;
