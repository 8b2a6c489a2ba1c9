//! The commands of the README: `cargo xtask COMMAND`.

fn main() {}
