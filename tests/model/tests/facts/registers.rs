//! Registers: where they are, who may write them when, and their handshakes (§6.2, §6.3).

use smmu_model::bench::{Bench, SYNC};
use smmu_model::{Faults, Identity, MemoryType, Mode, Outcome, Rule, Settings, StallModel, offset};

use crate::kit::{Rig, read};

/// CR0 with the command and event queues on, and with the SMMU on too.
const QUEUES_ON: u32 = 0xc;
const ALL_ON: u32 = 0xd;

fn off() -> Bench {
    Bench::off(Identity::full(), Mode::Polite)
}

fn up() -> Bench {
    Bench::up(Identity::full(), Mode::Polite)
}

fn late() -> Faults {
    Faults {
        acknowledge_late_us: 5,
        ..Faults::default()
    }
}

fn id_register(identity: Identity, at: u64) -> u32 {
    Bench::off(identity, Mode::Polite).read(at)
}

/// A feature's switch, and its bit.
type Feature = (fn(&mut Identity), u32);

/// Flips features one by one and looks at which bit of the register follows.
fn each_has_its_bit(at: u64, features: &[Feature]) {
    let before = id_register(Identity::full(), at);
    for (place, (flip, bit)) in features.iter().enumerate() {
        let mut identity = Identity::full();
        flip(&mut identity);
        assert_eq!(
            id_register(identity, at) ^ before,
            1 << bit,
            "feature {place}"
        );
    }
}

#[test]
fn idr0_has_each_feature_in_its_bit() {
    each_has_its_bit(
        0x0,
        &[
            (|id| id.cohacc ^= true, 4),
            (|id| id.btm ^= true, 5),
            (|id| id.hyp ^= true, 9),
            (|id| id.ns1ats ^= true, 11),
            (|id| id.asid16 ^= true, 12),
            (|id| id.msi ^= true, 13),
            (|id| id.sev ^= true, 14),
            (|id| id.pri ^= true, 16),
            (|id| id.vmw ^= true, 17),
            (|id| id.vmid16 ^= true, 18),
            (|id| id.cd2l ^= true, 19),
            (|id| id.ttendian = 2, 22),
            (|id| id.atsrecerr ^= true, 23),
            (|id| id.stall_model = StallModel::TerminateOnly, 24),
            (|id| id.stall_model = StallModel::StallForced, 25),
            (|id| id.term_abort_only ^= true, 26),
            (|id| id.st_level2 ^= true, 27),
        ],
    );
}

#[test]
fn idr0_claims_no_el2_worlds_without_both_stages_and_no_pri_without_ats() {
    let one_stage = Identity {
        stage2: false,
        ..Identity::full()
    };
    assert_eq!(id_register(one_stage, 0x0) & (1 << 9 | 1), 0);
    let no_ats = Identity {
        ats: false,
        ..Identity::full()
    };
    assert_eq!(id_register(no_ats, 0x0) & (1 << 16 | 1 << 10), 0);
}

#[test]
fn idr1_has_each_size_in_its_field() {
    let identity = Identity {
        sid_bits: 0b10_0000,
        ssid_bits: 0b1_0001,
        priq_log2: 0b0_1001,
        eventq_log2: 0b1_0010,
        cmdq_log2: 0b0_0101,
        attr_perms_ovr: true,
        attr_types_ovr: false,
        ..Identity::full()
    };
    assert_eq!(
        id_register(identity, 0x4),
        0b10_0000 | 0b1_0001 << 6 | 0b0_1001 << 11 | 0b1_0010 << 16 | 0b0_0101 << 21 | 1 << 26
    );
}

#[test]
fn idr3_has_each_feature_in_its_bit() {
    each_has_its_bit(
        0xc,
        &[
            (|id| id.had ^= true, 2),
            (|id| id.xnx ^= true, 4),
            (|id| id.pps ^= true, 5),
            (|id| id.fwb ^= true, 8),
            (|id| id.stt ^= true, 9),
            (|id| id.ril ^= true, 10),
            (|id| id.bbml = 0, 11),
            (|id| id.e0pd ^= true, 13),
            (|id| id.ptwnnc ^= true, 14),
            (|id| id.pasidtt ^= true, 16),
            (|id| id.epan ^= true, 17),
        ],
    );
}

#[test]
fn idr5_has_the_sizes_and_granules() {
    for (bits, encoding) in [
        (32, 0),
        (36, 1),
        (40, 2),
        (42, 3),
        (44, 4),
        (48, 5),
        (52, 6),
    ] {
        let identity = Identity {
            oas_bits: bits,
            granule_4k: true,
            granule_16k: false,
            granule_64k: true,
            vax52: true,
            stall_max: 0x1234,
            ..Identity::full()
        };
        assert_eq!(
            id_register(identity, 0x14),
            encoding | 1 << 4 | 1 << 6 | 1 << 10 | 0x1234 << 16
        );
    }
}

#[test]
fn aidr_and_iidr_tell_revision_and_implementer() {
    let identity = Identity {
        iidr: 0x4830_143b,
        minor: 2,
        ..Identity::full()
    };
    assert_eq!(id_register(identity, 0x18), 0x4830_143b);
    assert_eq!(id_register(identity, 0x1c), 2);
}

#[test]
fn read_only_registers_stay_and_the_write_is_named() {
    let registers = [0x0, 0x4, 0xc, 0x14, 0x18, 0x1c, 0x24, 0x40, 0x54, 0x60];
    for at in registers {
        let bench = up();
        let before = bench.read(at);
        bench.write(at, !before);
        assert_eq!(bench.read(at), before, "{at:#x}");
        assert_eq!(bench.machine.record().count(Rule::ReadOnlyWritten), 1);
    }
}

#[test]
fn control_registers_reset_to_off() {
    let bench = off();
    for at in [0x20, 0x24, 0x50, 0x54, 0x60, 0x64] {
        assert_eq!(bench.read(at), 0, "{at:#x}");
    }
}

#[test]
fn a_location_without_a_register_reads_zero_and_a_write_there_is_named() {
    let bench = off();
    assert_eq!(bench.read(0x3c), 0);
    bench.write(0x3c, 1);
    assert_eq!(bench.read(0x3c), 0);
    assert_eq!(bench.machine.record().count(Rule::UnknownRegister), 1);
}

#[test]
fn the_secure_bank_reads_zero() {
    let bench = up();
    for at in [0x8000, 0x8020, 0x8044] {
        assert_eq!(bench.read(at), 0, "{at:#x}");
    }
}

#[test]
fn both_halves_of_a_64_bit_register_can_be_accessed() {
    let bench = off();
    bench.write64(offset::STRTAB_BASE, 0x4000_0012_8000_4000);
    assert_eq!(bench.read(0x80), 0x8000_4000);
    assert_eq!(bench.read(0x84), 0x4000_0012);
    bench.write(0x84, 0x34);
    assert_eq!(bench.machine.smmu(0).read64(0x80), 0x34_8000_4000);
    bench.write(0x80, 0x9000_0000);
    assert_eq!(bench.machine.smmu(0).read64(0x80), 0x34_9000_0000);
    bench.assert_clean();
}

#[test]
fn a_64_bit_write_over_two_registers_changes_nothing_and_is_named() {
    let bench = off();
    let before = (bench.read(0x28), bench.read(0x2c));
    bench.write64(0x28, 0x1_0000_0d75);
    assert_eq!((bench.read(0x28), bench.read(0x2c)), before);
    assert_eq!(bench.machine.record().count(Rule::RegisterAccessSize), 1);
}

#[test]
fn an_unaligned_write_changes_nothing_and_is_named() {
    let bench = off();
    bench.write(0x2a, 0xffff_ffff);
    assert_eq!(bench.read(0x28), 0);
    assert_eq!(bench.read(0x2c), 0);
    assert_eq!(bench.machine.record().count(Rule::RegisterAccessSize), 1);
}

#[test]
fn cr0_reads_what_was_written_before_it_is_acknowledged() {
    let bench = off();
    bench.machine.smmu(0).set_faults(late());
    bench.write(0x20, 0x8);
    assert_eq!((bench.read(0x20), bench.read(0x24)), (0x8, 0));
    assert!(bench.wait(|bench| bench.read(0x24) == 0x8));
    bench.assert_clean();
}

#[test]
fn cr0_fields_are_acknowledged_one_by_one() {
    let bench = off();
    bench.machine.smmu(0).set_faults(late());
    bench.write(0x20, 0x8);
    bench.machine.smmu(0).set_faults(Faults::default());
    bench.write(0x20, 0xc);
    assert_eq!(bench.read(0x24), 0x4);
    assert!(bench.wait(|bench| bench.read(0x24) == 0xc));
    bench.assert_clean();
}

#[test]
fn a_cr0_field_changed_before_its_acknowledgement_is_named() {
    let bench = off();
    bench.machine.smmu(0).set_faults(late());
    bench.write(0x20, 0x8);
    bench.write(0x20, 0x8);
    bench.assert_clean();
    bench.write(0x20, 0x0);
    assert_eq!(bench.machine.record().count(Rule::ChangedDuringUpdate), 1);
}

#[test]
fn an_acknowledgement_that_never_comes_leaves_cr0ack_as_it_was() {
    let bench = off();
    bench.machine.smmu(0).set_faults(Faults {
        acknowledge_never: true,
        ..Faults::default()
    });
    bench.write(0x20, 0x8);
    assert!(!bench.wait(|bench| bench.read(0x24) != 0));
}

#[test]
fn irq_ctrl_is_acknowledged_as_cr0_is() {
    let bench = off();
    bench.machine.smmu(0).set_faults(late());
    bench.write(0x50, 0x7);
    assert_eq!((bench.read(0x50), bench.read(0x54)), (0x7, 0));
    assert!(bench.wait(|bench| bench.read(0x54) == 0x7));
    bench.write(0x50, 0x5);
    bench.write(0x50, 0x7);
    assert_eq!(bench.machine.record().count(Rule::ChangedDuringUpdate), 1);
}

/// A register keeps its value while an enable is on, and takes the new one after it is off.
macro_rules! guarded {
    ($($name:ident: $control:literal = $enable:literal, $at:literal, $value:literal;)+) => {$(
        #[test]
        fn $name() {
            let bench = off();
            let set = |value: u32| {
                bench.write($control, value);
                assert!(bench.wait(|bench| bench.read($control + 4) == value));
            };
            set($enable);
            let before = bench.read($at);
            assert_ne!(before, $value);
            bench.write($at, $value);
            assert_eq!(bench.read($at), before);
            assert_eq!(bench.machine.record().count(Rule::GuardedWrittenWhileOn), 1);
            set(0);
            bench.write($at, $value);
            assert_eq!(bench.read($at), $value);
            assert_eq!(bench.machine.record().violations().len(), 1);
        }
    )+};
}

guarded! {
    smmuen_guards_the_stream_table_base: 0x20 = 0x1, 0x80, 0x8000_0000;
    smmuen_guards_the_upper_stream_table_base: 0x20 = 0x1, 0x84, 0x1;
    smmuen_guards_the_stream_table_format: 0x20 = 0x1, 0x88, 0x6;
    smmuen_guards_cr2: 0x20 = 0x1, 0x2c, 0x2;
    smmuen_guards_the_table_attributes: 0x20 = 0x1, 0x28, 0xd40;
    cmdqen_guards_the_queue_attributes: 0x20 = 0x8, 0x28, 0x35;
    eventqen_guards_the_queue_attributes: 0x20 = 0x4, 0x28, 0x35;
    priqen_guards_the_queue_attributes: 0x20 = 0x2, 0x28, 0x35;
    cmdqen_guards_the_command_queue_base: 0x20 = 0x8, 0x90, 0x8000_0004;
    cmdqen_guards_the_upper_command_queue_base: 0x20 = 0x8, 0x94, 0x1;
    cmdqen_guards_cmdq_cons: 0x20 = 0x8, 0x9c, 0x3;
    eventqen_guards_the_event_queue_base: 0x20 = 0x4, 0xa0, 0x8000_0004;
    eventqen_guards_the_upper_event_queue_base: 0x20 = 0x4, 0xa4, 0x1;
    eventqen_guards_eventq_prod: 0x20 = 0x4, 0x1_00a8, 0x3;
    priqen_guards_the_pri_queue_base: 0x20 = 0x2, 0xc0, 0x8000_0004;
    priqen_guards_the_upper_pri_queue_base: 0x20 = 0x2, 0xc4, 0x1;
    priqen_guards_priq_prod: 0x20 = 0x2, 0x1_00c8, 0x3;
    gerror_irqen_guards_its_message_address: 0x50 = 0x1, 0x68, 0x8000_0004;
    gerror_irqen_guards_its_upper_message_address: 0x50 = 0x1, 0x6c, 0x1;
    gerror_irqen_guards_its_message_data: 0x50 = 0x1, 0x70, 0x1234;
    gerror_irqen_guards_its_message_attributes: 0x50 = 0x1, 0x74, 0xf;
    eventq_irqen_guards_its_message_address: 0x50 = 0x4, 0xb0, 0x8000_0004;
    eventq_irqen_guards_its_message_data: 0x50 = 0x4, 0xb8, 0x1234;
    eventq_irqen_guards_its_message_attributes: 0x50 = 0x4, 0xbc, 0xf;
    priq_irqen_guards_its_message_address: 0x50 = 0x2, 0xd0, 0x8000_0004;
    priq_irqen_guards_its_message_data: 0x50 = 0x2, 0xd8, 0x1234;
    priq_irqen_guards_its_message_attributes: 0x50 = 0x2, 0xdc, 0xf;
}

#[test]
fn a_guard_holds_from_the_write_of_the_enable_to_the_acknowledgement_of_its_clearing() {
    let bench = off();
    bench.machine.smmu(0).set_faults(late());
    bench.write(0x20, 0x8);
    bench.write(0x90, 0x8000_0004);
    assert_eq!(bench.read(0x90), 0);
    assert!(bench.wait(|bench| bench.read(0x24) == 0x8));
    bench.write(0x20, 0x0);
    bench.write(0x90, 0x8000_0004);
    assert_eq!(bench.read(0x90), 0);
    assert_eq!(bench.machine.record().count(Rule::GuardedWrittenWhileOn), 2);
    assert!(bench.wait(|bench| bench.read(0x24) == 0));
    bench.write(0x90, 0x8000_0004);
    assert_eq!(bench.read(0x90), 0x8000_0004);
}

#[test]
fn ones_in_reserved_bits_are_named_and_read_zero() {
    for (at, reserved) in [
        (0x20, 1 << 5),
        (0x28, 1 << 12),
        (0x2c, 1 << 4),
        (0x50, 1 << 3),
        (0x64, 1 << 1),
        (0x80, 1 << 5),
        (0x84, 1 << 24),
        (0x88, 1 << 11),
        (0x94, 1 << 31),
        (0x98, 1 << 20),
        (0x1_00ac, 1 << 20),
        (0x1_00cc, 1 << 20),
    ] {
        let bench = off();
        bench.write(at, reserved);
        assert_eq!(bench.read(at), 0, "{at:#x}");
        let count = bench.machine.record().count(Rule::ReservedRegisterBits);
        assert_eq!(count, 1, "{at:#x}");
    }
}

#[test]
fn gbpa_is_written_whole_with_its_update_bit() {
    let bench = off();
    bench.machine.smmu(0).set_faults(late());
    let before = bench.read(0x44);
    bench.write(0x44, 1 << 31 | 1 << 20 | 1 << 12);
    assert_eq!(bench.read(0x44), before | 1 << 31);
    assert!(bench.wait(|bench| bench.read(0x44) == 1 << 20 | 1 << 12));
    bench.assert_clean();
}

#[test]
fn gbpa_ignores_a_write_without_update() {
    let bench = off();
    let before = bench.read(0x44);
    bench.write(0x44, 1 << 20);
    assert!(!bench.wait(|bench| bench.read(0x44) != before));
    assert_eq!(bench.machine.record().count(Rule::GbpaWithoutUpdate), 1);
}

#[test]
fn gbpa_ignores_a_write_during_an_update() {
    let bench = off();
    bench.machine.smmu(0).set_faults(late());
    bench.write(0x44, 1 << 31 | 1 << 20);
    bench.write(0x44, 1 << 31);
    assert!(bench.wait(|bench| bench.read(0x44) == 1 << 20));
    assert_eq!(bench.machine.record().count(Rule::GbpaWithoutUpdate), 1);
}

#[test]
fn a_switched_off_smmu_lets_traffic_through_unchanged() {
    let mut rig = Rig::full();
    rig.bench.cr0(QUEUES_ON);
    let page = rig.page;
    rig.reaches(page);
    rig.lands(read(page).with_substream(9));
}

#[test]
fn a_switched_off_smmu_aborts_without_a_record_where_gbpa_says_so() {
    let mut rig = Rig::full();
    rig.bench.write(0x44, 1 << 31 | 1 << 20);
    assert!(rig.bench.wait(|bench| bench.read(0x44) == 1 << 20));
    rig.bench.cr0(QUEUES_ON);
    rig.aborts_silently(read(rig.page));
    let entry = rig.bypass();
    rig.install(&entry);
    rig.bench.cr0(ALL_ON);
    let page = rig.page;
    rig.reaches(page);
}

#[test]
fn a_switched_off_smmu_aborts_beyond_the_output_size_although_memory_is_there() {
    let identity = Identity {
        oas_bits: 40,
        ..Identity::full()
    };
    for (base, is_aborted) in [(1 << 39, false), (1 << 40, true)] {
        let settings = Settings::new(identity, Mode::Polite);
        let machine = smmu_model::Machine::new(base, 0x1_0000, settings);
        let outcome = machine.smmu(0).transact(read(base));
        assert_eq!(outcome == Outcome::Aborted, is_aborted, "{base:#x}");
        assert_eq!(machine.smmu(0).read32(offset::EVENTQ_PROD), 0);
    }
}

#[test]
fn a_switched_off_smmu_uses_the_memory_type_of_gbpa() {
    let rig = Rig::full();
    // MTCFG, MemAttr = Device-nGnRE.
    rig.bench.write(0x44, 1 << 31 | 1 << 12 | 1 << 4 | 1);
    assert!(rig.bench.wait(|bench| bench.read(0x44) >> 31 == 0));
    rig.bench.cr0(QUEUES_ON);
    let outcome = rig.transact(read(rig.page));
    let Outcome::Done { attributes, .. } = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(attributes.memory, MemoryType::DeviceNGnRE);
}

#[test]
fn gbpa_resets_as_the_implementation_says() {
    let mut settings = Settings::new(Identity::full(), Mode::Polite);
    settings.gbpa = 1 << 20;
    let machine = smmu_model::Machine::new(0x8000_0000, 0x1_0000, settings);
    assert_eq!(machine.smmu(0).read32(0x44), 1 << 20);
    let outcome = machine.smmu(0).transact(read(0x8000_0000));
    assert_eq!(outcome, Outcome::Aborted);
}

#[test]
fn commands_are_still_consumed_while_the_smmu_is_off() {
    let mut bench = up();
    bench.cr0(QUEUES_ON);
    bench.commands(&[[0x04, 31], [0x30, 0], SYNC]);
    bench.assert_clean();
}

#[test]
fn commands_wait_until_the_queue_is_enabled() {
    let mut bench = up();
    bench.cr0(0x5);
    bench.submit(&[SYNC]);
    assert!(!bench.wait(Bench::is_idle));
    bench.cr0(ALL_ON);
    assert!(bench.wait(Bench::is_idle));
}

#[test]
fn an_inactive_error_cannot_be_acknowledged() {
    let bench = up();
    bench.write(0x64, 0x4);
    assert_eq!(bench.machine.record().count(Rule::InactiveErrorToggled), 1);
    assert_eq!(bench.read(0x60), 0);
}

#[test]
fn an_active_error_is_acknowledged_by_making_gerrorn_equal() {
    let mut bench = up();
    bench.submit(&[[0xff, 0]]);
    assert_eq!(bench.read(0x60) ^ bench.read(0x64), 1);
    bench.write(0x64, bench.read(0x60));
    // The command at CONS is fetched again, and is still illegal: the error toggles anew.
    assert_eq!(bench.read(0x60), 0);
    assert_eq!(bench.read(0x64), 1);
    assert_eq!(bench.machine.record().count(Rule::InactiveErrorToggled), 0);
}
