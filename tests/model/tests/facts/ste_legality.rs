//! What makes a stream table entry ILLEGAL (§5.2, §5.2.2): C_BAD_STE and an abort.

use smmu_model::{Identity, StallModel};

use crate::kit::{MODES, Rig, SID_BITS, read, with};

/// The record of C_BAD_STE for the rig's stream.
const BAD_STE: [u64; 4] = [0x04 | SID_BITS, 0, 0, 0];

const FULL: Identity = Identity::full();
const MODEL_1: Identity = Identity::with_stalls(StallModel::TerminateOnly);
const MODEL_2: Identity = Identity::with_stalls(StallModel::StallForced);
const NARROW: Identity = Identity::narrow_tags();
const NO_STAGE_1: Identity = Identity {
    stage1: false,
    ssid_bits: 0,
    ..FULL
};
const NO_STAGE_2: Identity = Identity {
    stage2: false,
    ..FULL
};
const NO_HYP: Identity = Identity { hyp: false, ..FULL };
const NO_ATS: Identity = Identity {
    ats: false,
    pri: false,
    ..FULL
};
const NO_SPLIT_ATS: Identity = Identity {
    ns1ats: true,
    ..FULL
};
const NO_CD2L: Identity = Identity {
    cd2l: false,
    ..FULL
};
const NO_STT: Identity = Identity { stt: false, ..FULL };
const SSIDS_4: Identity = Identity {
    ssid_bits: 4,
    ..FULL
};
const SSIDS_0: Identity = Identity {
    ssid_bits: 0,
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
const LITTLE_ENDIAN: Identity = Identity {
    ttendian: 2,
    ..FULL
};
const BIG_ENDIAN: Identity = Identity {
    ttendian: 3,
    ..FULL
};
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

/// The entry `base` with fields changed is refused. That the same SMMU takes `base` as it is is shown
/// first, so that the change alone is to blame.
macro_rules! illegal {
    ($($name:ident: $identity:expr, $base:ident, [$(($word:literal, $high:literal, $low:literal, $value:expr)),+];)+) => {$(
        #[test]
        fn $name() {
            for mode in MODES {
                let mut rig = Rig::in_mode($identity, mode);
                let good = rig.$base();
                rig.install(&good);
                rig.reaches(rig.target(&good));

                let mut rig = Rig::in_mode($identity, mode);
                let bad = rig.$base();
                $(let bad = with(bad, $word, $high, $low, $value);)+
                rig.install(&bad);
                rig.aborts(read(rig.target(&bad)), BAD_STE);
            }
        }
    )+};
}

/// The entry `base` with fields changed still reaches the page.
macro_rules! legal {
    ($($name:ident: $identity:expr, $base:ident, [$(($word:literal, $high:literal, $low:literal, $value:expr)),+];)+) => {$(
        #[test]
        fn $name() {
            for mode in MODES {
                let mut rig = Rig::in_mode($identity, mode);
                let entry = rig.$base();
                $(let entry = with(entry, $word, $high, $low, $value);)+
                rig.install(&entry);
                rig.reaches(rig.target(&entry));
            }
        }
    )+};
}

illegal! {
    an_entry_with_v_0_is_bad: FULL, stage2, [(0, 0, 0, 0)];

    stage_1_needs_s1p: NO_STAGE_1, bypass, [(0, 3, 1, 5)];
    both_stages_need_s1p: NO_STAGE_1, stage2, [(0, 3, 1, 7)];
    stage_2_needs_s2p: NO_STAGE_2, bypass, [(0, 3, 1, 6)];
    both_stages_need_s2p: NO_STAGE_2, stage1, [(0, 3, 1, 7)];

    split_ats_needs_stage_2: FULL, stage1, [(1, 29, 28, 2)];
    split_ats_needs_stage_1: FULL, stage2, [(1, 29, 28, 2)];
    split_ats_excludes_stage_2_stalls: FULL, nested, [(1, 29, 28, 2), (2, 57, 57, 1)];
    split_ats_needs_ns1ats_0: NO_SPLIT_ATS, nested, [(1, 29, 28, 2)];
    full_ats_excludes_stage_2_stalls: FULL, stage2, [(1, 29, 28, 1), (2, 57, 57, 1)];
    full_ats_excludes_stage_2_stalls_in_nesting: FULL, nested, [(1, 29, 28, 1), (2, 57, 57, 1)];

    stream_world_1_is_reserved: FULL, stage1, [(1, 31, 30, 1)];
    stream_world_3_is_reserved: FULL, stage1, [(1, 31, 30, 3)];

    forbidding_stalls_needs_a_choice_under_model_1: MODEL_1, stage1, [(1, 27, 27, 1)];
    forbidding_stalls_needs_a_choice_under_model_2: MODEL_2, stage1, [(1, 27, 27, 1)];
    forbidding_stalls_is_checked_in_nesting_too: MODEL_1, nested, [(1, 27, 27, 1)];
    more_substreams_than_there_are_are_bad: SSIDS_4, stage1, [(0, 63, 59, 5)];
    two_level_4k_context_tables_need_cd2l: NO_CD2L, stage1, [(0, 5, 4, 1), (0, 63, 59, 4)];
    two_level_64k_context_tables_need_cd2l: NO_CD2L, stage1, [(0, 5, 4, 2), (0, 63, 59, 4)];
    a_context_pointer_beyond_the_output_size_is_bad: OAS_40, stage1, [(0, 40, 40, 1)];

    stage_2_stalls_need_a_stalling_model: MODEL_1, stage2, [(2, 57, 57, 1)];
    stage_2_must_stall_where_stalls_are_forced: MODEL_2, stage2, [(2, 57, 57, 0)];
    stage_2_must_stall_in_nesting_where_stalls_are_forced: MODEL_2, nested, [(2, 57, 57, 0)];
    stage_2_aarch32_tables_need_ttf_0: FULL, stage2, [(2, 51, 51, 0)];
    stage_2_access_flag_updates_need_httu: FULL, stage2, [(2, 56, 56, 1)];
    stage_2_dirty_updates_need_httu: FULL, stage2, [(2, 55, 55, 1)];

    stage_2_granule_3_is_reserved: FULL, stage2, [(2, 47, 46, 3)];
    stage_2_granule_64k_needs_gran64k: NO_64K, stage2, [(2, 47, 46, 1), (2, 39, 38, 1)];
    stage_2_granule_16k_needs_gran16k: NO_16K, stage2, [(2, 47, 46, 2), (2, 37, 32, 24), (2, 39, 38, 2)];

    stage_2_input_beyond_the_intermediate_size_is_bad: OAS_40, stage2, [(2, 37, 32, 23)];
    stage_2_input_beyond_48_bits_is_bad: OAS_52, stage2, [(2, 37, 32, 15), (2, 39, 38, 2)];
    small_stage_2_tables_need_stt: NO_STT, stage2, [(2, 37, 32, 40), (2, 39, 38, 0)];
    a_stage_2_size_of_49_is_too_small: FULL, stage2, [(2, 37, 32, 49), (2, 39, 38, 3)];
    a_stage_2_size_of_48_is_too_small_with_64k: FULL, stage2, [(2, 37, 32, 48), (2, 39, 38, 0), (2, 47, 46, 1)];

    stage_2_start_level_0_does_not_fit_39_bits: FULL, stage2, [(2, 39, 38, 2)];
    stage_2_start_level_2_does_not_fit_39_bits: FULL, stage2, [(2, 39, 38, 0)];
    stage_2_roots_of_32_tables_are_bad: FULL, stage2, [(2, 37, 32, 20)];
    stage_2_start_level_3_needs_stt: NO_STT, stage2, [(2, 37, 32, 39), (2, 39, 38, 3)];
    stage_2_start_level_3_is_reserved_with_64k: FULL, stage2, [(2, 39, 38, 3), (2, 47, 46, 1)];
    stage_2_start_level_0_is_reserved_with_16k: FULL, stage2, [(2, 37, 32, 16), (2, 39, 38, 3), (2, 47, 46, 2)];

    a_stage_2_root_beyond_its_output_size_is_bad: FULL, stage2, [(2, 50, 48, 0), (3, 32, 32, 1)];
    a_stage_2_root_beyond_the_smmus_output_size_is_bad: OAS_40, stage2, [(2, 50, 48, 5), (3, 40, 40, 1)];
    a_stage_2_root_beyond_48_bits_needs_64k: OAS_52, stage2, [(2, 50, 48, 6), (3, 48, 48, 1)];
    big_endian_stage_2_needs_support: LITTLE_ENDIAN, stage2, [(2, 52, 52, 1)];
    little_endian_stage_2_needs_support: BIG_ENDIAN, bypass, [
        (0, 3, 1, 6), (2, 37, 32, 25), (2, 39, 38, 1), (2, 50, 48, 2), (2, 51, 51, 1), (3, 51, 12, 0x8_0010)
    ];
    stage_2_granule_4k_needs_gran4k: NO_4K, bypass, [
        (0, 3, 1, 6), (2, 37, 32, 25), (2, 39, 38, 1), (2, 50, 48, 2), (2, 51, 51, 1), (3, 51, 12, 0x8_0010)
    ];

    a_wide_vmid_of_stage_1_needs_vmid16: NARROW, stage1, [(2, 15, 0, 0x100)];
    a_wide_vmid_of_stage_2_needs_vmid16: NARROW, stage2, [(2, 15, 0, 0x8007)];
    a_wide_vmid_of_both_stages_needs_vmid16: NARROW, nested, [(2, 15, 0, 0x107)];
}

legal! {
    stage_1_ignores_the_stage_2_fields: MODEL_1, stage1, [(2, 57, 57, 1), (2, 47, 46, 3), (2, 56, 55, 3), (3, 51, 4, 0xffff_ffff_ffff)];
    stage_2_ignores_the_stage_1_fields: SSIDS_4, stage2, [(0, 63, 59, 31), (0, 5, 4, 2), (1, 27, 27, 1), (0, 55, 6, 0x3_ffff_ffff_ffff)];
    bypass_ignores_all_but_the_attributes: SSIDS_4, bypass, [(0, 63, 59, 31), (1, 29, 28, 2), (1, 31, 30, 3), (2, 63, 0, 0xffff_ffff_ffff_ffff)];

    split_ats_is_ignored_without_ats: NO_ATS, stage1, [(1, 29, 28, 2)];
    full_ats_may_stand_beside_a_stray_s2s_in_stage_1: FULL, stage1, [(1, 29, 28, 1), (2, 57, 57, 1)];
    split_ats_is_legal_with_both_stages: FULL, nested, [(1, 29, 28, 2)];
    full_ats_is_legal_with_stage_2: FULL, stage2, [(1, 29, 28, 1)];

    the_stream_world_is_ignored_without_hyp: NO_HYP, stage1, [(1, 31, 30, 1)];
    the_stream_world_is_ignored_with_stage_2: FULL, nested, [(1, 31, 30, 3)];
    stream_world_2_is_el2: FULL, stage1, [(1, 31, 30, 2)];

    stalls_may_be_forbidden_under_model_0: FULL, stage1, [(1, 27, 27, 1)];
    as_many_substreams_as_there_are_are_legal: SSIDS_4, stage1, [(0, 63, 59, 4), (1, 1, 0, 2)];
    the_number_of_substreams_is_ignored_without_substreams: SSIDS_0, stage1, [(0, 63, 59, 31)];
    the_context_table_format_is_ignored_for_one_descriptor: NO_CD2L, stage1, [(0, 5, 4, 2)];
    the_context_table_format_is_ignored_without_substreams: Identity { cd2l: false, ..SSIDS_0 }, stage1, [(0, 5, 4, 1), (0, 63, 59, 3)];
    context_table_format_3_acts_as_linear: NO_CD2L, stage1, [(0, 5, 4, 3), (0, 63, 59, 4), (1, 1, 0, 2)];

    stage_2_may_stall_under_model_0: FULL, stage2, [(2, 57, 57, 1)];
    a_stage_2_output_size_of_7_is_capped: FULL, stage2, [(2, 50, 48, 7)];
    a_stage_2_input_of_40_bits_takes_two_tables: OAS_40, stage2, [(2, 37, 32, 24)];

    a_wide_vmid_is_ignored_in_bypass: NARROW, bypass, [(2, 15, 0, 0xff00)];
    a_wide_vmid_is_ignored_in_the_el2_world: NARROW, stage1, [(1, 31, 30, 2), (2, 15, 0, 0x100)];
    a_wide_vmid_is_ignored_without_stage_2: Identity { vmid16: false, ..NO_STAGE_2 }, stage1, [(2, 15, 0, 0x100)];
    a_wide_vmid_is_legal_with_vmid16: FULL, stage2, [(2, 15, 0, 0xff07)];
}

/// Config 0b0xx: aborted without a record, whatever else the entry holds.
#[test]
fn every_config_below_4_aborts_silently() {
    for config in 0..4 {
        let mut rig = Rig::full();
        let entry = with(rig.nested(), 0, 3, 1, config);
        let entry = with(entry, 2, 47, 46, 3);
        rig.install(&entry);
        rig.aborts_silently(read(0x4000_5000));
        rig.aborts_silently(read(0x4000_5000).with_substream(1));
    }
}
