//! Commands: which an SMMU takes, which it refuses with CERROR_ILL, what a SYNC signals (§4, §7.1).

use smmu_model::bench::{Bench, SYNC};
use smmu_model::{Faults, Identity, Interrupt, Line, Mode, Rule, StallModel};

const FULL: Identity = Identity::full();
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
const NO_PRI: Identity = Identity { pri: false, ..FULL };
const NO_STALLS: Identity = Identity::with_stalls(StallModel::TerminateOnly);

/// CMDQ_CONS, GERROR, GERRORN.
const CONS: u64 = 0x9c;
const GERROR: u64 = 0x60;
const GERRORN: u64 = 0x64;

/// Submits `command` and a SYNC; it stops the queue with this code at its own place, and after it is
/// replaced and the error acknowledged the queue goes on.
fn stops(identity: Identity, command: [u64; 2], code: u32) {
    let mut bench = Bench::up(identity, Mode::Polite);
    let at = bench.read(CONS);
    bench.submit(&[command, SYNC]);
    assert_eq!(bench.read(CONS), at | code << 24, "{command:x?}");
    assert_eq!(bench.read(GERROR) ^ bench.read(GERRORN), 1);

    bench.store(smmu_model::bench::CMDQ + u64::from(at) * 16, SYNC[0]);
    bench.store(smmu_model::bench::CMDQ + u64::from(at) * 16 + 8, SYNC[1]);
    bench.publish();
    bench.write(GERRORN, bench.read(GERROR));
    assert!(bench.wait(Bench::is_idle));
    assert_eq!(bench.read(GERROR) ^ bench.read(GERRORN), 0);
    assert_eq!(bench.machine.record().count(Rule::CommandIllegal), 1);
}

macro_rules! refused {
    ($($name:ident: $identity:expr, [$low:expr, $high:expr];)+) => {$(
        #[test]
        fn $name() {
            stops($identity, [$low, $high], 1);
        }
    )+};
}

/// The command is consumed, and nothing is said against it.
macro_rules! taken {
    ($($name:ident: [$low:expr, $high:expr];)+) => {$(
        #[test]
        fn $name() {
            let mut bench = Bench::up(FULL, Mode::Polite);
            bench.commands(&[[$low, $high], SYNC]);
            assert_eq!(bench.read(GERROR), 0);
            bench.assert_clean();
        }
    )+};
}

const SID_5: u64 = 5 << 32;
const SSEC: u64 = 1 << 10;
const SSV: u64 = 1 << 11;
const VMID_7: u64 = 7 << 32;
const ASID_9: u64 = 9 << 48;
const VA: u64 = 0x7f_1234_5000;
/// TG of a range: 4, 16 and 64 KiB.
const TG_4K: u64 = 1 << 10;
const TG_16K: u64 = 2 << 10;
const TG_64K: u64 = 3 << 10;
const TTL_3: u64 = 3 << 8;

taken! {
    cmd_prefetch_config_is_taken: [0x01 | SID_5 | SSV | 3 << 12, 0];
    cmd_prefetch_addr_is_taken: [0x02 | SID_5 | SSV | 3 << 12, VA | 2];
    cmd_cfgi_ste_is_taken: [0x03 | SID_5, 1];
    cmd_cfgi_ste_without_leaf_is_taken: [0x03 | SID_5, 0];
    cmd_cfgi_ste_range_is_taken: [0x04 | SID_5, 3];
    cmd_cfgi_all_is_taken: [0x04, 31];
    cmd_cfgi_cd_is_taken: [0x05 | SID_5 | 3 << 12, 1];
    cmd_cfgi_cd_all_is_taken: [0x06 | SID_5, 0];
    cmd_tlbi_nh_all_is_taken: [0x10 | VMID_7, 0];
    cmd_tlbi_nh_asid_is_taken: [0x11 | VMID_7 | ASID_9, 0];
    cmd_tlbi_nh_va_is_taken: [0x12 | VMID_7 | ASID_9, VA | 1];
    cmd_tlbi_nh_vaa_is_taken: [0x13 | VMID_7, VA | 1];
    cmd_tlbi_el2_all_is_taken: [0x20, 0];
    cmd_tlbi_el2_asid_is_taken: [0x21 | ASID_9, 0];
    cmd_tlbi_el2_va_is_taken: [0x22 | ASID_9, VA | 1];
    cmd_tlbi_el2_vaa_is_taken: [0x23, VA | 1];
    cmd_tlbi_s12_vmall_is_taken: [0x28 | VMID_7, 0];
    cmd_tlbi_s2_ipa_is_taken: [0x2a | VMID_7, VA | 1];
    cmd_tlbi_nsnh_all_is_taken: [0x30, 0];
    cmd_atc_inv_is_taken: [0x40 | SID_5 | SSV | 3 << 12, 52];
    cmd_pri_resp_is_taken: [0x41 | SID_5 | SSV | 3 << 12, 2 << 12 | 0x1ff];
    cmd_resume_is_taken: [0x44 | SID_5 | 1 << 12, 0x1234];
    cmd_stall_term_is_taken: [0x45 | SID_5, 0];
    cmd_sync_is_taken: [0x46, 0];

    a_range_of_pages_is_taken: [0x12 | VMID_7 | ASID_9 | 7 << 12 | 2 << 20, VA | TG_4K | 1];
    a_range_of_one_page_with_its_level_is_taken: [0x13 | VMID_7, VA | TG_4K | TTL_3 | 1];
    a_range_of_16k_pages_is_taken: [0x2a | VMID_7 | 1 << 12, 0x4000 | TG_16K];
    a_range_of_64k_pages_is_taken: [0x2a | VMID_7 | 1 << 20, 0x1_0000 | TG_64K];
}

refused! {
    cmd_tlbi_el3_all_is_for_the_secure_queue: FULL, [0x18, 0];
    cmd_tlbi_el3_va_is_for_the_secure_queue: FULL, [0x1a, VA];
    cmd_tlbi_s_el2_all_is_for_the_secure_queue: FULL, [0x50, 0];
    cmd_tlbi_s_el2_asid_is_for_the_secure_queue: FULL, [0x51 | ASID_9, 0];
    cmd_tlbi_s_el2_va_is_for_the_secure_queue: FULL, [0x52 | ASID_9, VA];
    cmd_tlbi_s_el2_vaa_is_for_the_secure_queue: FULL, [0x53, VA];
    cmd_tlbi_s_s12_vmall_is_for_the_secure_queue: FULL, [0x58 | VMID_7, 0];
    cmd_tlbi_s_s2_ipa_is_for_the_secure_queue: FULL, [0x5a | VMID_7, VA];
    cmd_tlbi_snh_all_is_for_the_secure_queue: FULL, [0x60, 0];
    cmd_cfgi_vms_pidm_needs_mpam: FULL, [0x07 | VMID_7, 0];
    cmd_dpti_all_needs_dpt: FULL, [0x70, 0];
    cmd_dpti_pa_needs_dpt: FULL, [0x73, 0];

    cmd_cfgi_cd_needs_stage_1: NO_STAGE_1, [0x05 | SID_5, 1];
    cmd_cfgi_cd_all_needs_stage_1: NO_STAGE_1, [0x06 | SID_5, 0];
    cmd_tlbi_nh_all_needs_stage_1: NO_STAGE_1, [0x10 | VMID_7, 0];
    cmd_tlbi_nh_asid_needs_stage_1: NO_STAGE_1, [0x11 | VMID_7 | ASID_9, 0];
    cmd_tlbi_nh_va_needs_stage_1: NO_STAGE_1, [0x12 | VMID_7 | ASID_9, VA];
    cmd_tlbi_nh_vaa_needs_stage_1: NO_STAGE_1, [0x13 | VMID_7, VA];
    cmd_tlbi_el2_all_needs_hyp: NO_HYP, [0x20, 0];
    cmd_tlbi_el2_asid_needs_hyp: NO_HYP, [0x21 | ASID_9, 0];
    cmd_tlbi_el2_va_needs_hyp: NO_HYP, [0x22 | ASID_9, VA];
    cmd_tlbi_el2_vaa_needs_hyp: NO_HYP, [0x23, VA];
    cmd_tlbi_s12_vmall_needs_stage_2: NO_STAGE_2, [0x28 | VMID_7, 0];
    cmd_tlbi_s2_ipa_needs_stage_2: NO_STAGE_2, [0x2a | VMID_7, VA];
    cmd_atc_inv_needs_ats: NO_ATS, [0x40 | SID_5, 52];
    cmd_pri_resp_needs_pri: NO_PRI, [0x41 | SID_5, 2 << 12];
    cmd_pri_resp_3_is_reserved: FULL, [0x41 | SID_5, 3 << 12];
    cmd_resume_needs_stalls: NO_STALLS, [0x44 | SID_5, 0];
    cmd_stall_term_needs_stalls: NO_STALLS, [0x45 | SID_5, 0];
    cmd_sync_signal_3_is_reserved: FULL, [0x46 | 3 << 12, 0];

    cmd_prefetch_config_for_secure_streams_is_refused: FULL, [0x01 | SID_5 | SSEC, 0];
    cmd_prefetch_addr_for_secure_streams_is_refused: FULL, [0x02 | SID_5 | SSEC, VA];
    cmd_cfgi_ste_for_secure_streams_is_refused: FULL, [0x03 | SID_5 | SSEC, 1];
    cmd_cfgi_ste_range_for_secure_streams_is_refused: FULL, [0x04 | SID_5 | SSEC, 3];
    cmd_cfgi_all_for_secure_streams_is_refused: FULL, [0x04 | SSEC, 31];
    cmd_cfgi_cd_for_secure_streams_is_refused: FULL, [0x05 | SID_5 | SSEC, 1];
    cmd_cfgi_cd_all_for_secure_streams_is_refused: FULL, [0x06 | SID_5 | SSEC, 0];
    cmd_resume_for_secure_streams_is_refused: FULL, [0x44 | SID_5 | SSEC, 0];
    cmd_stall_term_for_secure_streams_is_refused: FULL, [0x45 | SID_5 | SSEC, 0];

    a_va_range_of_one_page_without_level_is_reserved: FULL, [0x12 | VMID_7 | ASID_9, VA | TG_4K];
    a_vaa_range_of_one_page_without_level_is_reserved: FULL, [0x13 | VMID_7, VA | TG_4K];
    an_el2_va_range_of_one_page_without_level_is_reserved: FULL, [0x22 | ASID_9, VA | TG_4K];
    an_el2_vaa_range_of_one_page_without_level_is_reserved: FULL, [0x23, VA | TG_4K];
    an_ipa_range_of_one_page_without_level_is_reserved: FULL, [0x2a | VMID_7, 0x1_0000 | TG_64K];
    a_16k_range_of_one_page_at_level_1_is_reserved: FULL, [0x12 | VMID_7 | ASID_9, 0x4000 | TG_16K | 1 << 8];
}

#[test]
fn every_reserved_opcode_is_refused() {
    let reserved = [0x00]
        .into_iter()
        .chain(0x08..=0x0f)
        .chain(0x14..=0x17)
        .chain([0x19])
        .chain(0x1b..=0x1f)
        .chain(0x24..=0x27)
        .chain([0x29])
        .chain(0x2b..=0x2f)
        .chain(0x31..=0x3f)
        .chain(0x42..=0x43)
        .chain(0x47..=0x4f)
        .chain(0x54..=0x57)
        .chain([0x59])
        .chain(0x5b..=0x5f)
        .chain(0x61..=0x6f)
        .chain(0x71..=0x72)
        .chain(0x74..=0x7f)
        .chain(0x90..=0xff);
    let mut bench = Bench::up(FULL, Mode::Polite);
    for opcode in reserved {
        let at = bench.read(CONS) & 0x7f;
        bench.submit(&[[opcode, 0]]);
        assert_eq!(bench.read(CONS), at | 1 << 24, "{opcode:#x}");
        let slot = smmu_model::bench::CMDQ + u64::from(at & 63) * 16;
        bench.store(slot, SYNC[0]);
        bench.publish();
        bench.write(GERRORN, bench.read(GERROR));
        assert!(bench.wait(Bench::is_idle), "{opcode:#x}");
    }
}

#[test]
fn tlbi_nsnh_all_is_taken_whatever_stages_there_are() {
    for identity in [NO_STAGE_1, NO_STAGE_2] {
        let mut bench = Bench::up(identity, Mode::Polite);
        bench.commands(&[[0x30, 0], SYNC]);
        assert_eq!(bench.read(GERROR), 0);
    }
}

#[test]
fn a_command_that_would_be_ignored_is_still_refused_where_it_is_illegal() {
    let mut bench = Bench::up(NO_ATS, Mode::Polite);
    bench.cr0(0xc);
    let at = bench.read(CONS);
    bench.submit(&[[0x40 | SID_5, 52]]);
    assert_eq!(bench.read(CONS), at | 1 << 24);
}

#[test]
fn commands_before_an_illegal_one_are_consumed_and_none_after() {
    let mut bench = Bench::up(FULL, Mode::Polite);
    let at = bench.read(CONS);
    bench.submit(&[[0x30, 0], SYNC, [0xff, 0], SYNC]);
    assert_eq!(bench.read(CONS), (at + 2) | 1 << 24);
}

#[test]
fn an_illegal_command_left_in_place_stops_the_queue_again() {
    let mut bench = Bench::up(FULL, Mode::Polite);
    let at = bench.read(CONS);
    bench.submit(&[[0xff, 0]]);
    bench.write(GERRORN, 1);
    assert_eq!(bench.read(CONS), at | 1 << 24);
    assert_eq!((bench.read(GERROR), bench.read(GERRORN)), (0, 1));
}

#[test]
fn switching_the_queue_off_and_on_does_not_clear_its_error() {
    let mut bench = Bench::up(FULL, Mode::Polite);
    let at = bench.read(CONS);
    bench.submit(&[[0xff, 0]]);
    bench.store(smmu_model::bench::CMDQ + u64::from(at) * 16, SYNC[0]);
    bench.publish();
    bench.cr0(0x5);
    bench.cr0(0xd);
    assert!(!bench.wait(Bench::is_idle));
    assert_eq!(bench.read(GERROR) ^ bench.read(GERRORN), 1);
}

#[test]
fn an_abort_of_a_command_fetch_is_cerror_abt() {
    let mut bench = Bench::up(FULL, Mode::Polite);
    let at = bench.read(CONS);
    bench.machine.smmu(0).set_faults(Faults {
        abort_after: Some(1),
        ..Faults::default()
    });
    bench.submit(&[SYNC, SYNC]);
    assert_eq!(bench.read(CONS), (at + 1) | 2 << 24);
    assert_eq!(bench.read(GERROR) ^ bench.read(GERRORN), 1);
    bench.write(GERRORN, bench.read(GERROR));
    assert!(bench.wait(Bench::is_idle));
}

#[test]
fn a_command_queue_outside_memory_is_cerror_abt() {
    let bench = Bench::up(FULL, Mode::Polite);
    bench.cr0(0x5);
    bench.write64(0x90, 0x10_0000_0000 | 4);
    bench.write(0x98, 0);
    bench.write(CONS, 0);
    bench.cr0(0xd);
    bench.write(0x98, 1);
    assert_eq!(bench.read(CONS), 2 << 24);
    assert_eq!(bench.read(GERROR) ^ bench.read(GERRORN), 1);
}

#[test]
fn a_failed_atc_invalidation_is_cerror_atc_inv_sync_at_the_sync() {
    let mut bench = Bench::up(FULL, Mode::Polite);
    let at = bench.read(CONS);
    bench.machine.smmu(0).set_faults(Faults {
        atc_sync_errors: 1,
        ..Faults::default()
    });
    bench.submit(&[[0x30, 0], SYNC, [0x30, 0]]);
    assert_eq!(bench.read(CONS), (at + 1) | 3 << 24);
    // The same SYNC is executed again after the acknowledgement.
    bench.write(GERRORN, bench.read(GERROR));
    assert!(bench.wait(Bench::is_idle));
    assert_eq!(bench.read(GERROR) ^ bench.read(GERRORN), 0);
}

#[test]
fn nothing_is_consumed_past_a_sync_that_never_completes() {
    let mut bench = Bench::up(FULL, Mode::Polite);
    let at = bench.read(CONS);
    bench.machine.smmu(0).set_faults(Faults {
        sync_never: true,
        ..Faults::default()
    });
    bench.submit(&[[0x30, 0], SYNC, [0x30, 0]]);
    assert!(!bench.wait(|bench| bench.read(CONS) != at + 1));
}

#[test]
fn a_late_sync_is_consumed_when_it_completes() {
    let mut bench = Bench::up(FULL, Mode::Polite);
    let at = bench.read(CONS);
    bench.machine.smmu(0).set_faults(Faults {
        sync_late_us: 50,
        ..Faults::default()
    });
    bench.submit(&[SYNC]);
    assert_eq!(bench.read(CONS), at);
    assert!(bench.wait(Bench::is_idle));
}

#[test]
fn a_sync_without_a_signal_signals_nothing() {
    let mut bench = Bench::up(FULL, Mode::Polite);
    bench.machine.smmu(0).take_interrupts();
    bench.commands(&[SYNC]);
    assert_eq!(bench.machine.smmu(0).take_interrupts(), []);
}

#[test]
fn a_sync_with_an_address_sends_its_message_and_pulses_its_wire() {
    let mut bench = Bench::up(FULL, Mode::Polite);
    let at = bench.frames(12);
    bench.store(at, 0xffff_ffff_ffff_ffff);
    bench.publish();
    bench.machine.smmu(0).take_interrupts();
    bench.commands(&[[
        0x46 | 1 << 12 | 3 << 22 | 0xf << 24 | 0x1234_5678 << 32,
        at | 4,
    ]]);
    bench.machine.barrier(smmu_model::Barrier::Observe);
    assert_eq!(bench.machine.load(at), Ok(0x1234_5678_ffff_ffff));
    let interrupts = bench.machine.smmu(0).take_interrupts();
    let message = Interrupt::Message {
        line: Line::CommandSync,
        pa: at | 4,
        data: 0x1234_5678,
    };
    assert!(interrupts.contains(&message), "{interrupts:?}");
    assert!(interrupts.contains(&Interrupt::Wired(Line::CommandSync)));
    assert_eq!(interrupts.len(), 2);
    bench.assert_clean();
}

#[test]
fn a_sync_interrupt_without_an_address_only_pulses_its_wire() {
    let mut bench = Bench::up(FULL, Mode::Polite);
    bench.machine.smmu(0).take_interrupts();
    bench.commands(&[[0x46 | 1 << 12, 0]]);
    assert_eq!(
        bench.machine.smmu(0).take_interrupts(),
        [Interrupt::Wired(Line::CommandSync)]
    );
}

#[test]
fn a_sync_with_an_event_wakes_waiting_processors() {
    let mut bench = Bench::up(FULL, Mode::Polite);
    bench.machine.smmu(0).take_interrupts();
    bench.commands(&[[0x46 | 2 << 12, 0]]);
    assert_eq!(bench.machine.smmu(0).take_interrupts(), [Interrupt::Event]);
}

#[test]
fn an_abort_of_a_syncs_message_is_a_global_error_and_stops_nothing() {
    let mut bench = Bench::up(FULL, Mode::Polite);
    bench.commands(&[[0x46 | 1 << 12, 0x10_0000_0000], SYNC]);
    assert_eq!(bench.read(GERROR) ^ bench.read(GERRORN), 1 << 4);
}

#[test]
fn reserved_bits_of_a_command_are_named() {
    for (low, high) in [
        (0x03 | SID_5 | 1 << 9, 1),
        (0x04 | 1 << 31, 31),
        (0x05 | SID_5 | SSV, 1),
        (0x10 | VMID_7 | 1 << 48, 0),
        (0x12 | VMID_7 | ASID_9 | 1 << 12, VA),
        (0x12 | VMID_7 | ASID_9, VA | TTL_3),
        (0x30 | 1 << 32, 0),
        (0x30, 1),
        (0x46 | 1 << 14, 0),
    ] {
        let mut bench = Bench::up(FULL, Mode::Polite);
        bench.submit(&[[low, high]]);
        assert_eq!(
            bench.machine.record().count(Rule::CommandReservedBits),
            1,
            "{low:#x} {high:#x}"
        );
    }
}

#[test]
fn a_range_that_is_not_aligned_to_its_level_is_named() {
    for (level, address, granule) in [
        (2, 0x10_0000, TG_4K),
        (1, 0x2000_0000, TG_4K),
        (2, 0x4000, TG_16K),
        (3, 0x1000, TG_16K),
        (0, 0x1000, TG_16K),
        (2, 0x1_0000, TG_64K),
        (3, 0x1000, TG_64K),
    ] {
        let mut bench = Bench::up(FULL, Mode::Polite);
        let command = [
            0x12 | VMID_7 | ASID_9 | 1 << 12,
            address | granule | level << 8,
        ];
        bench.commands(&[command, SYNC]);
        assert_eq!(
            bench.machine.record().count(Rule::RangeMisaligned),
            1,
            "{level} {address:#x}"
        );
    }
}

#[test]
fn a_range_that_is_aligned_to_its_level_is_not_complained_of() {
    for (level, address, granule) in [
        (0, 0x1000, TG_4K),
        (3, 0x1000, TG_4K),
        (2, 0x20_0000, TG_4K),
        (1, 0x4000_0000, TG_4K),
        (2, 0x200_0000, TG_16K),
        (3, 0x4000, TG_16K),
        (2, 0x2000_0000, TG_64K),
        (3, 0x1_0000, TG_64K),
    ] {
        let mut bench = Bench::up(FULL, Mode::Polite);
        let command = [
            0x12 | VMID_7 | ASID_9 | 1 << 12,
            address | granule | level << 8,
        ];
        bench.commands(&[command, SYNC]);
        bench.assert_clean();
    }
}

#[test]
fn a_sync_with_an_event_is_silent_where_there_are_no_events() {
    let mut bench = Bench::up(Identity { sev: false, ..FULL }, Mode::Polite);
    bench.machine.smmu(0).take_interrupts();
    bench.commands(&[[0x46 | 2 << 12, 0]]);
    assert_eq!(bench.machine.smmu(0).take_interrupts(), []);
}

#[test]
fn a_sync_without_a_signal_ignores_its_message() {
    let mut bench = Bench::up(FULL, Mode::Polite);
    let at = bench.frames(12);
    bench.commands(&[[0x46 | 0x1234 << 32, at]]);
    bench.machine.barrier(smmu_model::Barrier::Observe);
    assert_eq!(bench.machine.load(at), Ok(0));
}

#[test]
fn an_smmu_without_messages_ignores_a_syncs_address() {
    let mut bench = Bench::up(Identity { msi: false, ..FULL }, Mode::Polite);
    let at = bench.frames(12);
    bench.machine.smmu(0).take_interrupts();
    bench.commands(&[[0x46 | 1 << 12 | 0x1234 << 32, at]]);
    bench.machine.barrier(smmu_model::Barrier::Observe);
    assert_eq!(bench.machine.load(at), Ok(0));
    assert_eq!(
        bench.machine.smmu(0).take_interrupts(),
        [Interrupt::Wired(Line::CommandSync)]
    );
}
