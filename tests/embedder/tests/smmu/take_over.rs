//! Take-over: from any state, or refused by name.

use super::*;

/// Whatever was left on: translation, queues, an error, an update under way.
#[test]
fn it_is_taken_over_from_any_state() {
    use smmu_model::offset;
    let leavings: [&[(u64, u32)]; 4] = [
        &[(offset::CR0, 0b1)],
        &[
            (offset::CMDQ_PROD, 0),
            (offset::CMDQ_CONS, 0),
            (offset::CR0, 0b1101),
        ],
        &[(offset::IRQ_CTRL, 0b111)],
        &[(offset::GBPA, 0x8000_0000)],
    ];
    for mode in modes() {
        for leaving in leavings {
            let host = Hypervisor::new(Identity::full(), mode);
            let wires = host.machine().smmu(0);
            leaving
                .iter()
                .for_each(|(register, value)| wires.write32(*register, *value));
            wires.raise_error(0b101);
            let smmu = take_over(&host);
            assert!(!writes(&host, STREAM, Ipa::new(0x8000_0000)));
            let mut stage2 = stage2(&host, 7);
            map(&mut stage2, IPA, page(&host).base());
            smmu.publish(&[STREAM], &stage2.walk())
                .expect("it is published");
            assert!(writes(&host, STREAM, IPA), "{mode:?} {leaving:x?}");
        }
    }
}

/// Each refusal of `probe`, by the ID registers that call for it.
#[test]
fn an_smmu_that_cannot_be_driven_is_refused_by_name() {
    let full = Identity::full();
    let rows = [
        (
            Identity {
                stage2: false,
                ..full
            },
            Refusal::NoStage2,
        ),
        (
            Identity {
                granule_4k: false,
                ..full
            },
            Refusal::No4KiBGranule,
        ),
        (
            Identity {
                ttendian: 3,
                ..full
            },
            Refusal::BigEndianTables,
        ),
    ];
    for (identity, refusal) in rows {
        let host = Hypervisor::new(identity, Mode::Polite);
        assert_eq!(probe(&host.registers(0), FIRMWARE), Err(refusal));
        let taken = Smmu::take_over(&host, host.registers(0), FIRMWARE, Settings::new(LAST));
        assert_eq!(taken.err(), Some(TakeOverError::Refused(refusal)));
        assert!(
            !writes(&host, STREAM, Ipa::new(0x8000_0000)),
            "the gate is shut"
        );
        assert_eq!(host.bytes_out(), 0);
    }
    let host = Hypervisor::new(full, Mode::Polite);
    let apart = Firmware {
        is_coherent: false,
        ..FIRMWARE
    };
    assert_eq!(probe(&host.registers(0), apart), Err(Refusal::NotCoherent));
}

#[test]
fn a_take_over_without_memory_gives_back_what_it_took() {
    for successes in 0..3 {
        let host = Hypervisor::new(Identity::full(), Mode::Polite);
        host.fail_after(Some(successes));
        let taken = Smmu::take_over(&host, host.registers(0), FIRMWARE, Settings::new(LAST));
        assert!(matches!(taken.err(), Some(TakeOverError::NoFrames { .. })));
        assert_eq!(host.bytes_out(), 0);
        assert!(
            !writes(&host, STREAM, Ipa::new(0x8000_0000)),
            "the gate is shut"
        );
    }
}

#[test]
fn registers_that_do_not_answer_end_in_a_named_error() {
    let host = Hypervisor::new(Identity::full(), Mode::Polite);
    host.machine().smmu(0).set_faults(Faults {
        acknowledge_never: true,
        ..Faults::default()
    });
    let taken = Smmu::take_over(&host, host.registers(0), FIRMWARE, Settings::new(LAST));
    let Some(TakeOverError::Handshake(HandshakeTimeout { register, .. })) = taken.err() else {
        panic!("GBPA never answers");
    };
    assert_eq!(register, "GBPA");
}
