//! What makes a context descriptor ILLEGAL (§5.4, §5.4.2): C_BAD_CD and an abort.

use smmu_model::{Identity, StallModel};

use crate::kit::{IN, MODES, RNW, Rig, SID_BITS, VA, read, with};

/// The record of C_BAD_CD for the rig's stream.
const BAD_CD: [u64; 4] = [0x0a | SID_BITS, 0, 0, 0];
/// `VA` in the half that TTB1 translates.
const VA_HIGH: u64 = 0xffff_ff80_0000_0000 | VA;

const FULL: Identity = Identity::full();
const MODEL_1: Identity = Identity::with_stalls(StallModel::TerminateOnly);
const MODEL_2: Identity = Identity::with_stalls(StallModel::StallForced);
const NARROW: Identity = Identity::narrow_tags();
const ABORT_ONLY: Identity = Identity {
    term_abort_only: true,
    ..FULL
};
const LITTLE_ENDIAN: Identity = Identity {
    ttendian: 2,
    ..FULL
};
const BIG_ENDIAN: Identity = Identity {
    ttendian: 3,
    ..FULL
};
const NO_STT: Identity = Identity { stt: false, ..FULL };
const NO_4K: Identity = Identity {
    granule_4k: false,
    ..FULL
};
const NO_16K: Identity = Identity {
    granule_16k: false,
    ..FULL
};
const NO_64K: Identity = Identity {
    granule_64k: false,
    ..FULL
};
const OAS_40: Identity = Identity {
    oas_bits: 40,
    ..FULL
};
const OAS_52: Identity = Identity {
    oas_bits: 52,
    ..FULL
};

/// The descriptor with fields changed is refused; unchanged the same SMMU takes it.
macro_rules! illegal {
    ($($name:ident: $identity:expr, $ste:ident, $cd:ident, [$(($word:literal, $high:literal, $low:literal, $value:expr)),+];)+) => {$(
        #[test]
        fn $name() {
            for mode in MODES {
                let mut rig = Rig::in_mode($identity, mode);
                rig.put_cd(0, &rig.$cd());
                rig.install(&rig.$ste());
                rig.reaches(VA);

                refuses(&mut Rig::in_mode($identity, mode), |rig| {
                    let bad = rig.$cd();
                    $(let bad = with(bad, $word, $high, $low, $value);)+
                    (rig.$ste(), bad)
                });
            }
        }
    )+};
}

fn refuses(rig: &mut Rig, words: impl FnOnce(&Rig) -> ([u64; 8], [u64; 8])) {
    let (ste, cd) = words(rig);
    rig.put_cd(0, &cd);
    rig.install(&ste);
    rig.aborts(read(VA), BAD_CD);
}

/// The descriptor with fields changed still leads to the page.
macro_rules! legal {
    ($($name:ident: $identity:expr, $ste:ident, $cd:ident, $address:expr, [$(($word:literal, $high:literal, $low:literal, $value:expr)),+];)+) => {$(
        #[test]
        fn $name() {
            for mode in MODES {
                let mut rig = Rig::in_mode($identity, mode);
                let cd = rig.$cd();
                $(let cd = with(cd, $word, $high, $low, $value);)+
                rig.put_cd(0, &cd);
                rig.install(&rig.$ste());
                rig.reaches($address);
            }
        }
    )+};
}

illegal! {
    a_descriptor_with_v_0_is_bad: FULL, stage1, cd, [(0, 31, 31, 0)];
    a_descriptor_with_v_0_is_bad_in_nesting: FULL, nested, cd, [(0, 31, 31, 0)];
    read_as_zero_needs_term_model_0: ABORT_ONLY, stage1, cd, [(0, 46, 46, 0)];
    stalls_need_a_stalling_model: MODEL_1, stage1, cd, [(0, 44, 44, 1)];
    stalls_are_required_where_they_are_forced: MODEL_2, stage1, cd, [(0, 44, 44, 0)];
    big_endian_tables_need_support: LITTLE_ENDIAN, stage1, cd, [(0, 15, 15, 1)];
    aarch32_tables_need_ttf_0: FULL, stage1, cd, [(0, 41, 41, 0)];
    access_flag_updates_need_httu: FULL, stage1, cd, [(0, 43, 43, 1)];
    dirty_updates_need_httu: FULL, stage1, cd, [(0, 42, 42, 1)];
    a_wide_asid_needs_asid16: NARROW, stage1, cd, [(0, 63, 48, 0x100)];
    a_wide_asid_needs_asid16_in_nesting: NARROW, nested, cd, [(0, 63, 48, 0x8001)];

    a_t0sz_of_15_is_too_large_a_space: FULL, stage1, cd, [(0, 5, 0, 15)];
    a_t0sz_of_0_is_too_large_a_space: FULL, stage1, cd, [(0, 5, 0, 0)];
    a_t0sz_of_15_with_64k_needs_vax: FULL, stage1, cd, [(0, 5, 0, 15), (0, 7, 6, 1)];
    a_t0sz_of_40_needs_stt: NO_STT, stage1, cd, [(0, 5, 0, 40)];
    a_t0sz_of_49_is_too_small_a_space: FULL, stage1, cd, [(0, 5, 0, 49)];
    a_t0sz_of_48_with_64k_is_too_small_a_space: FULL, stage1, cd, [(0, 5, 0, 48), (0, 7, 6, 1)];
    granule_3_of_ttb0_is_reserved: FULL, stage1, cd, [(0, 7, 6, 3)];
    granule_64k_of_ttb0_needs_gran64k: NO_64K, stage1, cd, [(0, 7, 6, 1)];
    granule_16k_of_ttb0_needs_gran16k: NO_16K, stage1, cd, [(0, 7, 6, 2)];
    ttb0_beyond_ips_is_bad: FULL, stage1, cd, [(0, 34, 32, 0), (1, 32, 32, 1)];
    ttb0_beyond_the_output_size_is_bad: OAS_40, stage1, cd, [(0, 34, 32, 5), (1, 40, 40, 1)];
    ttb0_beyond_48_bits_needs_64k: OAS_52, stage1, cd, [(0, 34, 32, 6), (1, 48, 48, 1)];

    a_t1sz_of_15_is_too_large_a_space: FULL, stage1, cd_both_halves, [(0, 21, 16, 15)];
    a_t1sz_of_40_needs_stt: NO_STT, stage1, cd_both_halves, [(0, 21, 16, 40)];
    a_t1sz_of_48_with_64k_is_too_small_a_space: FULL, stage1, cd_both_halves, [(0, 21, 16, 48), (0, 23, 22, 3)];
    granule_0_of_ttb1_is_reserved: FULL, stage1, cd_both_halves, [(0, 23, 22, 0)];
    granule_64k_of_ttb1_needs_gran64k: NO_64K, stage1, cd_both_halves, [(0, 23, 22, 3)];
    granule_16k_of_ttb1_needs_gran16k: NO_16K, stage1, cd_both_halves, [(0, 23, 22, 1)];
    ttb1_beyond_ips_is_bad: FULL, stage1, cd_both_halves, [(0, 34, 32, 0), (2, 32, 32, 1)];
    ttb1_beyond_48_bits_needs_64k: OAS_52, stage1, cd_both_halves, [(0, 34, 32, 6), (2, 48, 48, 1)];

    the_el2_world_still_checks_ttb0: FULL, el2, cd, [(0, 5, 0, 15)];
}

legal! {
    a_disabled_ttb1_side_is_not_checked: FULL, stage1, cd, VA, [(0, 23, 16, 0x3f), (2, 51, 4, 0xffff_ffff_ffff)];
    a_disabled_ttb0_side_is_not_checked: FULL, stage1, cd_both_halves, VA_HIGH, [(0, 14, 14, 1), (0, 7, 0, 0xff), (1, 51, 4, 0xffff_ffff_ffff)];
    the_el2_world_has_no_ttb1_side: FULL, el2, cd, VA, [(0, 30, 16, 0x3f), (2, 51, 4, 0xffff_ffff_ffff)];
    the_el2_world_ignores_epd0: FULL, el2, cd, VA, [(0, 14, 14, 1)];
    the_el2_world_ignores_a_wide_asid: NARROW, el2, cd, VA, [(0, 63, 48, 0x8001)];
    read_as_zero_is_legal_under_term_model_0: FULL, stage1, cd, VA, [(0, 46, 46, 0)];
    stalls_are_legal_under_model_0: FULL, stage1, cd, VA, [(0, 44, 44, 1)];
    an_ips_of_7_is_capped: FULL, stage1, cd, VA, [(0, 34, 32, 7)];
    a_wide_asid_is_legal_with_asid16: FULL, stage1, cd, VA, [(0, 63, 48, 0xff01)];
    hierarchical_attributes_may_be_off: FULL, stage1, cd, VA, [(1, 1, 1, 1)];
}

#[test]
fn stalls_are_bad_where_the_entry_forbids_them() {
    let allowed = |rig: &Rig| (rig.stage1(), with(rig.cd(), 0, 44, 44, 1));
    let mut rig = Rig::full();
    let (ste, cd) = allowed(&rig);
    rig.put_cd(0, &cd);
    rig.install(&ste);
    rig.reaches(VA);
    // S1STALLD.
    refuses(&mut Rig::full(), |rig| {
        let (ste, cd) = allowed(rig);
        (with(ste, 1, 27, 27, 1), cd)
    });
}

#[test]
fn little_endian_tables_need_support() {
    refuses(&mut Rig::new(BIG_ENDIAN), |rig| (rig.stage1(), rig.cd()));
}

#[test]
fn granule_4k_of_ttb0_needs_gran4k() {
    refuses(&mut Rig::new(NO_4K), |rig| (rig.stage1(), rig.cd()));
}

#[test]
fn endianness_is_ignored_where_both_sides_are_disabled() {
    let mut rig = Rig::new(LITTLE_ENDIAN);
    let cd = with(with(rig.cd(), 0, 15, 15, 1), 0, 14, 14, 1);
    rig.put_cd(0, &cd);
    rig.install(&rig.stage1());
    rig.aborts(read(VA), [0x10 | SID_BITS, RNW | IN, VA | 0x10, 0]);
}

#[test]
fn a_wide_asid_needs_asid16_in_the_el2_e2h_world() {
    let mut rig = Rig::new(NARROW);
    rig.set_cr2(0x3);
    refuses(&mut rig, |rig| {
        (rig.el2(), with(rig.cd(), 0, 63, 48, 0x8001))
    });
}

#[test]
fn the_el2_e2h_world_checks_the_ttb1_side() {
    let mut rig = Rig::full();
    rig.set_cr2(0x3);
    refuses(&mut rig, |rig| {
        (rig.el2(), with(rig.cd_both_halves(), 0, 23, 22, 0))
    });
}

#[test]
fn one_descriptor_is_legal_through_one_entry_and_bad_through_another() {
    // The ASID is wide: bad in the EL1 world, ignored in the EL2 world.
    let mut rig = Rig::new(NARROW);
    rig.put_cd(0, &with(rig.cd(), 0, 63, 48, 0x8001));
    rig.install(&rig.el2());
    rig.bench.publish_ste(6, &rig.stage1());
    rig.reaches(VA);
    let other = smmu_model::Transaction {
        stream: 6,
        ..read(VA)
    };
    rig.aborts(other, [0x0a | 6 << 32, 0, 0, 0]);
}

#[test]
fn a_bad_descriptor_of_a_substream_is_recorded_with_it() {
    let mut rig = Rig::full();
    rig.put_cd(3, &with(rig.cd(), 0, 31, 31, 0));
    rig.install(&with(rig.stage1(), 0, 63, 59, 2));
    rig.aborts(
        read(VA).with_substream(3),
        [0x0a | 1 << 11 | 3 << 12 | SID_BITS, 0, 0, 0],
    );
}
