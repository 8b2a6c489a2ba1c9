//! The rooms name each other only downwards.

/// Each room, and the rooms that it may name. The image (`main`, `image`) may name all.
const ARROWS: &[(&str, &[&str])] = &[
    ("addr", &[]),
    ("id", &[]),
    ("spec", &["addr", "id"]),
    ("hw", &["spec", "addr", "id"]),
    ("smmu", &["hw", "spec", "addr", "id"]),
    ("space", &["smmu", "hw", "spec", "addr", "id"]),
    ("discover", &["addr", "id"]),
    ("arch", &["hw", "addr"]),
    ("pci", &["discover", "hw", "addr", "id"]),
    (
        "guest",
        &[
            "pci", "discover", "space", "smmu", "hw", "spec", "addr", "id",
        ],
    ),
    (
        "check",
        &[
            "pci", "discover", "space", "smmu", "hw", "spec", "addr", "id",
        ],
    ),
];

use std::fs;
use std::path::{Path, PathBuf};

fn sources(at: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(at).expect("a folder of src") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The rooms that the code of `text` names: the word after each `crate::`, comments left out.
fn named(text: &str) -> Vec<String> {
    let code: String = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or(""))
        .collect::<Vec<_>>()
        .join("\n");
    let mut rooms = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let list = rest
            .strip_prefix('{')
            .map(|rest| &rest[..rest.find("};").unwrap_or(rest.len())]);
        for item in list.map_or(vec![rest], |list| list.split(',').collect()) {
            let room = item
                .trim_start()
                .chars()
                .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
                .collect();
            rooms.push(room);
        }
    }
    rooms
}

#[test]
fn no_room_names_one_above_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut arrows_seen = 0;
    for file in files {
        let inside = file.strip_prefix(&src).expect("below src").to_owned();
        let first = inside
            .iter()
            .next()
            .and_then(|part| part.to_str())
            .expect("a name");
        let room = first.trim_end_matches(".rs");
        if matches!(room, "lib" | "main" | "image") {
            continue;
        }
        let (_, may) = ARROWS
            .iter()
            .find(|(name, _)| *name == room)
            .unwrap_or_else(|| panic!("`{room}` is a room without a row in this table"));
        for other in named(&fs::read_to_string(&file).expect("a source file")) {
            if other == room {
                continue;
            }
            assert!(
                may.contains(&other.as_str()),
                "{}: `{room}` names `{other}`",
                inside.display()
            );
            arrows_seen += 1;
        }
    }
    assert!(arrows_seen > 1, "the search for names finds names");
}

#[test]
fn the_search_sees_through_lists_and_leaves_out_comments() {
    let text = "use crate::{addr::Pa, id::Vmid};\n// crate::space\nlet x = crate::hw::Mmio;";
    assert_eq!(named(text), ["addr", "id", "hw"]);
}
