//! What EL2's books take, held to NUMBERS.md: a tenth more fails.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use portcullis_guest::{Ask, By, Device, Globals, Portcullis, Untagged};
use portcullis_guest_calls::{Board, Vcpu, guest_config, on_board, tables};
use smmu_model::Mode;

const HEADING: &str = "## Bytes";

/// The rows below the heading.
fn kept() -> BTreeMap<String, u64> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../NUMBERS.md");
    let text = fs::read_to_string(path).expect("it is there");
    let below = text.lines().skip_while(|line| *line != HEADING).skip(1);
    let rows = below.take_while(|line| !line.starts_with("## "));
    rows.filter_map(|row| {
        let mut cells = row.split('|').map(str::trim).skip(1);
        let (name, number) = (cells.next()?, cells.next()?);
        Some((name.to_owned(), number.parse().ok()?))
    })
    .collect()
}

/// How many bytes more are out after `act`.
fn taken(board: &Board<'_>, act: impl FnOnce()) -> u64 {
    let before = board.host.bytes_out();
    act();
    board.host.bytes_out() - before
}

#[test]
fn a_guest_a_stream_and_a_space_take_what_is_written() {
    let mut found = BTreeMap::new();
    on_board(Mode::Polite, |board| {
        let smmu = board.smmus[0].size_bytes();
        found.insert("an SMMU of 256 streams, at rest", smmu);
        // A second one of its kind: what the first brought for all is not counted.
        let mut guest = None;
        let guest_bytes = taken(board, || {
            guest = board.iommu.create_guest(&guest_config()).ok();
        });
        found.insert("a further guest, without memory", guest_bytes);
        board
            .iommu
            .destroy_guest(guest.expect("there is memory"))
            .expect("it ends");
        let (guest, vcpu) = (0, 0);
        let portcullis = Portcullis::new(Vcpu { board, guest, vcpu });
        let attach = |device| portcullis.attach(Device(device), Untagged::Abort);
        found.insert(
            "a stream with 256 contexts, attached",
            taken(board, || attach(0).expect("it can be")),
        );
        let space = |n| {
            portcullis
                .space_create(&tables(n), Ask::Any, Globals::MayBe)
                .expect("there is room")
        };
        let mut spaces = vec![space(0)];
        let first = taken(board, || {
            let handle = portcullis.bind(spaces[0].id, Device(0), By::Pasid);
            assert!(handle.is_ok());
        });
        found.insert("the first space on a stream", first);
        let further = taken(board, || {
            for n in 1..16 {
                let space = space(n);
                portcullis
                    .bind(space.id, Device(0), By::Pasid)
                    .expect("bound");
                spaces.push(space);
            }
        });
        found.insert("15 further spaces on it", further);
    });
    println!("\n{HEADING}\n\n| what | bytes |\n|---|---:|");
    for (name, number) in &found {
        println!("| {name} | {number} |");
    }
    let kept = kept();
    assert_eq!(kept.len(), found.len(), "a row for each");
    for (name, number) in found {
        let most = kept.get(name).map(|kept| kept + kept / 10);
        let most = most.unwrap_or_else(|| panic!("`{name}` is in no table"));
        assert!(number <= most, "`{name}` takes {number}, above {most}");
    }
}
