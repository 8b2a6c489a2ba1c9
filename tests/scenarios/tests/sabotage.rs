//! That stories can fail: commands of one kind do nothing, and the story that looks there sees it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use portcullis_scenarios::{Configuration, Run, find, play};

const CFGI_STE: u8 = 0x03;
const CFGI_CD: u8 = 0x05;
const NH_ALL: u8 = 0x10;
const NH_VA: u8 = 0x12;
const S12_VMALL: u8 = 0x28;
const S2_IPA: u8 = 0x2a;
const ATC_INV: u8 = 0x40;
const RESUME: u8 = 0x44;

/// No ATS, STALL_MODEL 0, and split ATS, STALL_MODEL 0; both with one SMMU.
const PLAIN: usize = 0;
const ATS: usize = 24;

fn holds(name: &str, configuration: usize, swallows: Option<u8>) -> bool {
    let story = find(name).expect("it is in the list");
    let configuration = Configuration::all()[configuration];
    assert!(story.runs_in(&configuration), "{name}: {configuration}");
    let run = Run {
        swallows,
        ..Run::hoarding(configuration)
    };
    catch_unwind(AssertUnwindSafe(|| play(story, &run))).is_ok()
}

#[test]
fn a_story_fails_when_what_it_looks_at_does_nothing() {
    let rows = [
        (CFGI_STE, "guest-dies", PLAIN),
        (CFGI_STE, "hand-over", PLAIN),
        (CFGI_CD, "exit-without-close", PLAIN),
        (CFGI_CD, "bind-twice", PLAIN),
        (NH_ALL, "exit-without-close", PLAIN),
        (NH_ALL, "global-entries", PLAIN),
        (NH_VA, "stage1-unmap-under-dma", PLAIN),
        (S12_VMALL, "guest-dies", PLAIN),
        (S2_IPA, "unmap-under-dma", PLAIN),
        (ATC_INV, "exit-without-close", ATS),
        (ATC_INV, "adopt", ATS),
        (RESUME, "stalled-when-killed", PLAIN),
        (RESUME, "storm", PLAIN),
    ];
    for (opcode, name, configuration) in rows {
        assert!(holds(name, configuration, None), "{name}");
        let held = holds(name, configuration, Some(opcode));
        assert!(
            !held,
            "{name} does not miss commands of opcode {opcode:#04x}"
        );
    }
}
