//! All counts, a row each: `counts [--quick] [PART …]`.

use std::process::ExitCode;

use portcullis_bench::arena::Arena;
use portcullis_bench::model::syncs::Extent;
use portcullis_bench::model::{contention, overlap, sizes, syncs};
use portcullis_bench::tables::{Ours, sparse_bytes};
use portcullis_bench::{Row, peer};

/// Bytes of tables for a guest of 64 GiB of which little is there.
fn tables(each: &mut impl FnMut(Row)) {
    let arena = &Arena::new(16);
    let (ours, taken) = sparse_bytes::<Ours<'_>>(arena);
    let (theirs, _) = sparse_bytes::<peer::Tables<'_>>(arena);
    each(Row::new("stage2.table_bytes.sparse", ours, "bytes").beside(peer::PEER, theirs));
    // Of the peer's no more is taken than its tables: it has them page by page.
    each(Row::new("stage2.taken_bytes.sparse", taken, "bytes").beside(peer::PEER, theirs));
}

fn main() -> ExitCode {
    let mut extent = Extent::Full;
    let mut parts = Vec::new();
    for word in std::env::args().skip(1) {
        match word.as_str() {
            "--quick" => extent = Extent::Fixed,
            "syncs" | "sizes" | "overlap" | "contention" | "tables" => parts.push(word),
            _ => {
                eprintln!("there is no part `{word}`");
                return ExitCode::from(2);
            }
        }
    }
    let has = |part: &str| parts.is_empty() || parts.iter().any(|it| it == part);
    let mut each = |row: Row| println!("{row}");
    if has("syncs") {
        syncs::rows(extent, &mut each);
    }
    if has("sizes") {
        sizes::rows(&mut each);
    }
    if has("tables") {
        tables(&mut each);
    }
    if has("overlap") {
        overlap::rows(&mut each);
    }
    if has("contention") {
        contention::rows(&mut each);
    }
    ExitCode::SUCCESS
}
