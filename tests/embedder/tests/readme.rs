//! The README's example is this crate's, and it works.

use portcullis_embedder::{Hypervisor, lend};
use smmu_model::{Identity, Mode};

const README: &str = include_str!("../../../README.md");
const LEND: &str = include_str!("../src/lend.rs");

#[test]
fn the_example_of_the_readme_is_the_one_that_runs() {
    let (_, shown) = README
        .split_once("```rust\n")
        .expect("the README has an example");
    let (shown, _) = shown.split_once("```").expect("it ends");
    let (_, ours) = LEND.split_once("\n\n").expect("the module has a title");
    assert_eq!(shown, ours.replacen("pub fn lend", "fn lend", 1));
}

#[test]
fn the_example_lends_a_page_and_takes_everything_back() {
    for mode in [Mode::Polite, Mode::Hoarding, Mode::Chaotic { seed: 1 }] {
        let host = Hypervisor::new(Identity::full(), mode);
        lend(&host, host.registers(0)).expect("it works");
        assert_eq!(host.bytes_out(), 0);
        assert!(host.machine().record().violations().is_empty());
    }
}
