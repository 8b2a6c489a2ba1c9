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

/// The code blocks of the documentation in `text`: what stands behind the fence, and the lines.
fn blocks(text: &str) -> Vec<(String, Vec<String>)> {
    let mut blocks: Vec<(String, Vec<String>)> = Vec::new();
    let mut is_inside = false;
    for line in text.lines() {
        let line = line.trim_start();
        let Some(line) = ["//!", "///"].iter().find_map(|it| line.strip_prefix(it)) else {
            is_inside = false;
            continue;
        };
        let line = line.strip_prefix(' ').unwrap_or(line);
        match (line.strip_prefix("```"), is_inside) {
            (Some(_), true) => is_inside = false,
            (Some(fence), false) => {
                is_inside = true;
                blocks.push((fence.to_owned(), Vec::new()));
            }
            (None, true) => {
                if let Some((_, lines)) = blocks.last_mut() {
                    lines.push(line.to_owned());
                }
            }
            (None, false) => {}
        }
    }
    blocks
}

/// What must not compile could fail to for any reason: a twin that does differs in that line alone.
#[test]
fn every_misuse_that_types_exclude_has_a_twin_that_compiles_and_differs_in_one_line() {
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    let mut misuses = 0;
    for file in files {
        let text = fs::read_to_string(&file).expect("a source");
        let blocks = blocks(&text);
        for (at, (_, misuse)) in blocks
            .iter()
            .enumerate()
            .filter(|(_, (fence, _))| fence.starts_with("compile_fail"))
        {
            let (fence, twin) = blocks.get(at + 1).expect("a twin behind it");
            assert_eq!(fence, "", "{}: a twin compiles", file.display());
            assert_eq!(misuse.len(), twin.len(), "{}: {misuse:?}", file.display());
            let differing = misuse.iter().zip(twin).filter(|(one, two)| one != two);
            assert_eq!(differing.count(), 1, "{}: {misuse:?}", file.display());
            misuses += 1;
        }
    }
    assert!(misuses >= 18, "only {misuses} were found");
}
