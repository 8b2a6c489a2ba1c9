//! What the hostile modes do is within the law, and is done: each test would be a wrong driver's
//! end. Addresses and words as in the bench; see the rogues for whole drivers.

use smmu_model::bench::{
    Bench, CFGI_ALL, STREAMS, SYNC, cd, cfgi_cd, cfgi_ste, nh_all, s1_page, s2_ipa, s2_page,
    ste_nested, ste_stage1, ste_stage2, table,
};
use smmu_model::{
    Claim, EventType, Identity, Kind, Mode, Outcome, Rule, StoryLine, Transaction, offset,
};

const STREAM: u32 = 3;
const VMID: u16 = 7;
const IPA: u64 = 0x4000_5000;

fn write(address: u64) -> Transaction {
    Transaction::write(STREAM, address, &[0x5a; 8])
}

fn landed_at(outcome: &Outcome) -> Option<u64> {
    match outcome {
        Outcome::Done { pa, .. } => Some(*pa),
        _ => None,
    }
}

/// A stage-2 stream that maps [`IPA`] to the first page given back; the leaf's address; a second
/// page.
fn stage2(mode: Mode) -> (Bench, u64, u64, u64) {
    let mut bench = Bench::up(Identity::full(), mode);
    let root = bench.frames(12);
    let (page, other) = (bench.frames(12), bench.frames(12));
    bench.map2(root, IPA, page);
    bench.publish_ste(STREAM, &ste_stage2(VMID, root));
    let leaf = bench.leaf(root, IPA);
    (bench, leaf, page, other)
}

/// A nested stream: SubstreamID 1 maps VA to `page`; stage 2 maps the frames one to one.
struct Nested {
    bench: Bench,
    root2: u64,
    root1: u64,
    context: u64,
    page: u64,
}

const VA: u64 = 0x1234_5000;

fn nested(mode: Mode) -> Nested {
    let mut bench = Bench::up(Identity::full(), mode);
    let root2 = bench.frames(12);
    let contexts = bench.frames(12);
    let root1 = bench.frames(12);
    let page = bench.frames(12);
    for frame in 0..16 {
        bench.map2(root2, contexts + frame * 0x1000, contexts + frame * 0x1000);
    }
    bench.map1(root1, VA, page);
    bench.publish_ste(STREAM, &ste_nested(VMID, root2, contexts, 2));
    bench.publish_cd(STREAM, 1, contexts + 64, &cd(0x11, root1));
    Nested {
        bench,
        root2,
        root1,
        context: contexts + 64,
        page,
    }
}

impl Nested {
    fn write(&self) -> Outcome {
        self.bench
            .machine
            .smmu(0)
            .transact(write(VA).with_substream(1))
    }
}

#[test]
fn an_invalid_entry_is_remembered_until_it_is_invalidated() {
    let mut bench = Bench::up(Identity::full(), Mode::Hoarding);
    let root = bench.frames(12);
    let page = bench.frames(12);
    bench.map2(root, IPA, page);
    let words = ste_stage2(VMID, root);
    let at = STREAMS + u64::from(STREAM) * 64;
    bench.store_words(at, &words);
    bench.publish();
    bench.machine.advance(100);
    assert_eq!(bench.machine.smmu(0).transact(write(IPA)), Outcome::Aborted);
    bench.commands(&[cfgi_ste(STREAM), SYNC]);
    assert_eq!(
        landed_at(&bench.machine.smmu(0).transact(write(IPA))),
        Some(page)
    );
    assert_eq!(
        bench.next_event().map(|event| event.event_type),
        Some(EventType::BadSte)
    );
}

#[test]
fn an_unmapped_page_is_reached_until_it_is_invalidated() {
    let (mut bench, leaf, page, _) = stage2(Mode::Hoarding);
    bench.store(leaf, 0);
    bench.publish();
    assert_eq!(
        landed_at(&bench.machine.smmu(0).transact(write(IPA))),
        Some(page)
    );
    bench.commands(&[s2_ipa(VMID, IPA), SYNC]);
    assert_eq!(bench.machine.smmu(0).transact(write(IPA)), Outcome::Aborted);
}

#[test]
fn an_invalidation_of_another_vmid_or_page_removes_nothing() {
    let (mut bench, leaf, page, _) = stage2(Mode::Hoarding);
    bench.store(leaf, 0);
    bench.publish();
    bench.commands(&[
        s2_ipa(VMID + 1, IPA),
        s2_ipa(VMID, IPA + 0x1000),
        nh_all(VMID),
        SYNC,
    ]);
    assert_eq!(
        landed_at(&bench.machine.smmu(0).transact(write(IPA))),
        Some(page)
    );
}

#[test]
fn a_combined_entry_survives_a_stage_2_invalidation() {
    let mut nested = nested(Mode::Hoarding);
    let leaf = nested.bench.leaf(nested.root2, nested.page);
    nested.bench.store(leaf, 0);
    nested.bench.publish();
    nested.bench.commands(&[s2_ipa(VMID, nested.page), SYNC]);
    assert_eq!(landed_at(&nested.write()), Some(nested.page));
    nested.bench.commands(&[nh_all(VMID), SYNC]);
    assert_eq!(nested.write(), Outcome::Aborted);
}

#[test]
fn without_a_sync_between_a_combined_entry_is_built_again() {
    let mut nested = nested(Mode::Hoarding);
    let leaf = nested.bench.leaf(nested.root2, nested.page);
    nested.bench.store(leaf, 0);
    nested.bench.publish();
    nested
        .bench
        .commands(&[s2_ipa(VMID, nested.page), nh_all(VMID), SYNC]);
    assert_eq!(landed_at(&nested.write()), Some(nested.page));
}

#[test]
fn a_leaf_invalidation_leaves_table_descriptors() {
    let (mut bench, leaf, page, other) = stage2(Mode::Hoarding);
    let old_table = leaf & !0xfff;
    // A new last-level table in place of the old one, by a break that forgets Leaf = 0.
    let new_table = bench.frames(12);
    bench.store(new_table + (leaf & 0xfff), s2_page(other));
    let root_entry = bench
        .machine
        .load(STREAMS + u64::from(STREAM) * 64 + 24)
        .expect("in memory")
        + 8;
    let level2 = bench.machine.load(root_entry).expect("in memory") & !0xfff;
    bench.store(level2, 0);
    bench.publish();
    bench.commands(&[s2_ipa(VMID, IPA), SYNC]);
    bench.store(level2, table(new_table));
    bench.publish();
    assert_eq!(
        landed_at(&bench.machine.smmu(0).transact(write(IPA))),
        Some(page),
        "through {old_table:#x}"
    );
    let with_tables = [0x2a | u64::from(VMID) << 32, IPA];
    bench.commands(&[with_tables, SYNC]);
    assert_eq!(
        landed_at(&bench.machine.smmu(0).transact(write(IPA))),
        Some(other)
    );
}

#[test]
fn commands_act_no_earlier_than_their_sync() {
    let (mut bench, leaf, page, _) = stage2(Mode::Hoarding);
    bench.store(leaf, 0);
    bench.publish();
    bench.commands(&[s2_ipa(VMID, IPA)]);
    assert_eq!(
        landed_at(&bench.machine.smmu(0).transact(write(IPA))),
        Some(page)
    );
}

#[test]
fn a_posted_write_lands_no_later_than_the_sync() {
    let (mut bench, leaf, page, _) = stage2(Mode::Hoarding);
    let posted = write(IPA).of_kind(Kind::Posted);
    assert_eq!(
        landed_at(&bench.machine.smmu(0).transact(posted)),
        Some(page)
    );
    assert_eq!(bench.machine.load(page), Ok(0));
    bench.store(leaf, 0);
    bench.publish();
    bench.commands(&[s2_ipa(VMID, IPA), SYNC]);
    assert_eq!(bench.machine.load(page), Ok(0x5a5a_5a5a_5a5a_5a5a));
    let mark = bench.machine.record().mark();
    bench.machine.advance(100);
    assert!(bench.machine.record().landed_since(mark).is_empty());
}

#[test]
fn a_descriptor_that_is_not_invalidated_walks_on() {
    let mut nested = nested(Mode::Hoarding);
    nested.bench.store(nested.context, 0);
    nested.bench.publish();
    nested.bench.commands(&[nh_all(VMID), SYNC]);
    assert_eq!(landed_at(&nested.write()), Some(nested.page));
    nested
        .bench
        .commands(&[cfgi_cd(STREAM, 1), SYNC, nh_all(VMID), SYNC]);
    assert_eq!(nested.write(), Outcome::Aborted);
}

#[test]
fn a_polite_smmu_forgives_and_a_forgetful_one_remembers_nothing() {
    let (bench, leaf, _, other) = stage2(Mode::Forgetful);
    assert!(landed_at(&bench.machine.smmu(0).transact(write(IPA))).is_some());
    assert_eq!(bench.machine.smmu(0).cached(), 0);
    bench.store(leaf, 0);
    bench.store(leaf, s2_page(other));
    assert_eq!(
        landed_at(&bench.machine.smmu(0).transact(write(IPA))),
        Some(other)
    );
    bench.assert_clean();
}

#[test]
fn a_replaced_translation_that_is_kept_is_break_before_make() {
    let (bench, leaf, _, other) = stage2(Mode::Hoarding);
    bench.store(leaf, 0);
    bench.publish();
    bench.store(leaf, s2_page(other));
    assert_eq!(bench.machine.record().count(Rule::BreakBeforeMake), 1);
}

#[test]
fn a_direct_change_of_a_live_page_is_break_before_make() {
    let (bench, leaf, _, other) = stage2(Mode::Polite);
    assert!(landed_at(&bench.machine.smmu(0).transact(write(IPA))).is_some());
    bench.store(leaf, s2_page(other));
    assert_eq!(bench.machine.record().count(Rule::BreakBeforeMake), 1);
}

#[test]
fn taking_write_permission_away_needs_no_break() {
    let (bench, leaf, page, _) = stage2(Mode::Polite);
    assert!(landed_at(&bench.machine.smmu(0).transact(write(IPA))).is_some());
    bench.store(leaf, s2_page(page) & !(1 << 7));
    bench.assert_clean();
}

#[test]
fn a_chaotic_smmu_reads_an_entry_while_it_is_written() {
    let torn = (0..64).filter(|seed| {
        let mut bench = Bench::up(Identity::full(), Mode::Chaotic { seed: *seed });
        let root = bench.frames(12);
        let page = bench.frames(12);
        bench.map2(root, IPA, page);
        let at = STREAMS + u64::from(STREAM) * 64;
        // V first, the body after it, one barrier each: then invalidated as if all were well.
        for (word, value) in ste_stage2(VMID, root).into_iter().enumerate() {
            bench.store(at + 8 * word as u64, value);
            bench.publish();
            bench.machine.smmu(0).transact(write(IPA));
        }
        bench.machine.record().count(Rule::LiveEntryTorn) > 0
            && bench.machine.smmu(0).transact(write(IPA)) == Outcome::Aborted
    });
    assert!(torn.count() > 8);
}

#[test]
fn a_page_mapped_later_needs_no_invalidation() {
    for mode in [Mode::Polite, Mode::Hoarding, Mode::Chaotic { seed: 9 }] {
        let mut nested = nested(mode);
        let page = nested.bench.frames(12);
        let missing = nested
            .bench
            .machine
            .smmu(0)
            .transact(write(VA + 0x3000).with_substream(1));
        assert_eq!(missing, Outcome::Aborted);
        let leaf = nested.bench.leaf(nested.root1, VA + 0x3000);
        nested.bench.map2(nested.root2, page, page);
        nested.bench.store(leaf, s1_page(page));
        nested.bench.publish();
        let outcome = nested
            .bench
            .machine
            .smmu(0)
            .transact(write(VA + 0x3000).with_substream(1));
        assert_eq!(landed_at(&outcome), Some(page), "{mode:?}");
        nested.bench.assert_clean();
    }
}

#[test]
fn atschk_counts_for_a_stream_only_after_its_entry_is_invalidated() {
    let mut bench = Bench::up(Identity::full(), Mode::Hoarding);
    let root = bench.frames(12);
    let page = bench.frames(12);
    bench.map2(root, IPA, page);
    bench.publish_ste(STREAM, &ste_stage2(VMID, root));
    let mark = bench.machine.record().mark();
    bench.cr0(0x1d);
    let forged = write(page).of_kind(Kind::Translated);
    bench.machine.smmu(0).transact(forged.clone());
    assert_eq!(bench.machine.record().landed_since(mark).len(), 1);
    bench.commands(&[cfgi_ste(STREAM), SYNC]);
    assert_eq!(bench.machine.smmu(0).transact(forged), Outcome::Aborted);
    assert_eq!(bench.machine.record().landed_since(mark).len(), 1);
}

/// Splits a live 2 MiB block of stage 2 into pages; `nt`: with nT set and synced first.
fn split(bbml: u8, nt: u64, mode: Mode) -> (Bench, u64) {
    let identity = Identity {
        bbml,
        ..Identity::full()
    };
    let mut bench = Bench::up(identity, mode);
    let root = bench.frames(12);
    let level2 = bench.frames(12);
    let pages = bench.frames(12);
    let target = bench.frames(21);
    let block = (s2_page(target) & !0b10) | nt << 16;
    bench.store(root + 8, table(level2));
    bench.store(level2, s2_page(target) & !0b10);
    bench.publish_ste(STREAM, &ste_stage2(VMID, root));
    assert_eq!(
        landed_at(&bench.machine.smmu(0).transact(write(0x4000_5000))),
        Some(target + 0x5000)
    );
    bench.store(level2, block);
    bench.publish();
    bench.commands(&[s2_ipa(VMID, 0x4000_0000), SYNC]);
    for page in 0..512 {
        bench.store(pages + 8 * page, s2_page(target + page * 0x1000));
    }
    bench.publish();
    bench.store(level2, table(pages));
    bench.publish();
    bench.commands(&[s2_ipa(VMID, 0x4000_0000), SYNC]);
    (bench, target)
}

#[test]
fn a_live_block_is_split_without_a_break_as_far_as_bbml_goes() {
    for mode in [Mode::Polite, Mode::Hoarding, Mode::Chaotic { seed: 4 }] {
        for (bbml, nt) in [(2, 0), (1, 1)] {
            let (bench, target) = split(bbml, nt, mode);
            bench.assert_clean();
            let outcome = bench.machine.smmu(0).transact(write(0x4000_7000));
            assert_eq!(landed_at(&outcome), Some(target + 0x7000));
        }
        for (bbml, nt) in [(0, 0), (0, 1), (1, 0)] {
            let (bench, _) = split(bbml, nt, mode);
            assert!(
                bench.machine.record().count(Rule::BreakBeforeMake) > 0,
                "{bbml} {nt} {mode:?}"
            );
        }
    }
}

#[test]
fn a_transaction_into_a_frame_that_was_given_back_tells_its_story() {
    let (bench, leaf, page, _) = stage2(Mode::Polite);
    bench.machine.smmu(0).transact(write(IPA));
    bench.machine.claim(Claim::FrameFreed {
        pa: page,
        bytes: 4096,
    });
    bench.machine.smmu(0).transact(write(IPA + 8));
    let violations = bench.machine.record().violations();
    let reached = violations
        .iter()
        .find(|violation| violation.rule == Rule::FreedFrameReached);
    let story = &reached.expect("the frame was given back").story.0;
    // The store of the leaf, the copy of it, and the transaction are all there.
    assert!(
        story
            .iter()
            .any(|line| matches!(line, StoryLine::Stored { pa, .. } if *pa == leaf))
    );
    assert!(
        story
            .iter()
            .any(|line| matches!(line, StoryLine::Cached { origin, .. } if origin.pa == leaf))
    );
    assert!(matches!(story.last(), Some(StoryLine::Happened { .. })));
}

#[test]
fn a_walk_through_a_frame_that_was_given_back_is_named() {
    let (bench, leaf, ..) = stage2(Mode::Forgetful);
    bench.machine.claim(Claim::FrameFreed {
        pa: leaf & !0xfff,
        bytes: 4096,
    });
    assert_eq!(bench.machine.record().count(Rule::FreedFrameFetched), 0);
    bench.machine.smmu(0).transact(write(IPA));
    assert_eq!(bench.machine.record().count(Rule::FreedFrameFetched), 1);
}

#[test]
fn a_block_over_a_kept_page_that_says_otherwise_is_a_conflict() {
    let mut bench = Bench::up(Identity::full(), Mode::Polite);
    let contexts = bench.frames(12);
    let root = bench.frames(12);
    let page = bench.frames(12);
    bench.map1(root, VA, page);
    bench.publish_ste(STREAM, &ste_stage1(VMID, contexts, 2));
    bench.publish_cd(STREAM, 1, contexts + 64, &cd(0x11, root));
    let access = |bench: &Bench, va| bench.machine.smmu(0).transact(write(va).with_substream(1));
    assert_eq!(landed_at(&access(&bench, VA)), Some(page));
    let level2 = bench
        .machine
        .load(root + (VA >> 30) * 8)
        .expect("in memory")
        & !0xfff;
    // A block that sends VA elsewhere; of what is kept only the table descriptor is forgotten.
    bench.store(
        level2 + (VA >> 21 & 0x1ff) * 8,
        s1_page(0x8000_0000) & !0b10,
    );
    let by_va = [0x12 | u64::from(VMID) << 32 | 0x11 << 48, VA ^ 0x1000];
    bench.commands(&[by_va, SYNC]);
    let other = access(&bench, VA ^ 0x1000);
    assert_eq!(
        landed_at(&other),
        Some(0x8000_0000 | (VA ^ 0x1000) & 0x1f_ffff)
    );
    assert_eq!(bench.machine.record().count(Rule::TranslationConflict), 0);
    access(&bench, VA);
    assert_eq!(bench.machine.record().count(Rule::TranslationConflict), 1);
}

#[test]
fn a_level_1_descriptor_is_remembered_until_it_is_invalidated_itself() {
    for mode in [Mode::Hoarding, Mode::Chaotic { seed: 2 }] {
        let mut bench = Bench::up(Identity::full(), mode);
        let root = bench.frames(12);
        let (level1, array) = (bench.frames(12), bench.frames(12));
        let page = bench.frames(12);
        bench.map2(root, IPA, page);
        bench.cr0(0xc);
        bench.write64(offset::STRTAB_BASE, level1);
        // Two levels, split at 6, 8 bits of StreamID.
        bench.write(offset::STRTAB_BASE_CFG, 8 | 6 << 6 | 1 << 16);
        bench.commands(&[CFGI_ALL, SYNC]);
        bench.cr0(0xd);
        let stream = 0x45;
        let access = |bench: &Bench| {
            bench
                .machine
                .smmu(0)
                .transact(Transaction::write(stream, IPA, &[1; 8]))
        };
        assert_eq!(access(&bench), Outcome::Aborted);
        bench.store_words(array + u64::from(stream & 63) * 64, &ste_stage2(VMID, root));
        bench.publish();
        // Span = 7: 64 entries. The array was not reachable, so it may be complete at once.
        bench.store(level1 + 8, array | 7);
        bench.publish();
        if mode == Mode::Hoarding {
            bench.commands(&[cfgi_ste(stream), SYNC]);
            assert_eq!(access(&bench), Outcome::Aborted);
        }
        let with_level1 = [0x03 | u64::from(stream) << 32, 0];
        bench.commands(&[with_level1, SYNC]);
        assert_eq!(landed_at(&access(&bench)), Some(page));
        bench.assert_clean();
    }
}
