//! A group of streams passes from one stage 2 to another, against the hostile model.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use portcullis::addr::{Ipa, Pa};
use portcullis::hw::{Frames, Platform, PoolShape};
use portcullis::id::{StreamId, Vmid};
use portcullis::smmu::{
    CommandError, Firmware, QueueIndices, Settings, Smmu, StreamError, Unpublished, Unwalkable,
    invalidate,
};
use portcullis::space::handover::{
    AbandonError, DeviceCaches, GiveError, HandedOver, MustReset, Reset, StopError, stop,
};
use portcullis::space::stage2::{PageSizes, Stage2, Stage2Config};
use portcullis::spec::vmsa::{Attributes, BbmLevel, Granule, WalkCoherency};
use portcullis_embedder::Hypervisor;
use smmu_model::{
    AtcInvalidation, Endpoint, Faults, Identity, InvalidationAnswer, Mode, Outcome, Transaction,
};

const GROUP: [StreamId; 2] = [StreamId::new(0x110), StreamId::new(0x2117)];
const IPA: Ipa = Ipa::new(0x4_0000_3000);

fn modes() -> impl Iterator<Item = Mode> {
    let seeds = (0..24).map(|seed| Mode::Chaotic { seed });
    [Mode::Polite, Mode::Forgetful, Mode::Hoarding]
        .into_iter()
        .chain(seeds)
}

fn take_over(host: &Hypervisor) -> Smmu<'_, Hypervisor> {
    let firmware = Firmware {
        is_coherent: true,
        queue_indices: QueueIndices::Page1,
    };
    let mut settings = Settings::new(StreamId::new(0xffff));
    // So that an event would be recorded if the streams became as if nobody had published them.
    settings.unpublished = Unpublished::Recorded;
    Smmu::take_over(host, host.registers(0), firmware, settings).expect("it is taken over")
}

/// A guest: a stage 2 that maps one page at [`IPA`].
struct Guest<'p> {
    stage2: Stage2<'p, Hypervisor>,
    page: Frames,
}

impl<'p> Guest<'p> {
    fn new(host: &'p Hypervisor, vmid: u16) -> Self {
        let config = Stage2Config {
            granule: Granule::Kib4,
            ipa_bits: 40,
            oas_bits: 40,
            bbm: BbmLevel::Level0,
            coherency: WalkCoherency::Coherent,
            tables: PoolShape {
                quota_pages: 64,
                log2_pages_per_chunk: 3,
            },
            vmid: Vmid::new(vmid),
        };
        let mut stage2 = Stage2::new(host, config).expect("there is memory");
        let page = host.allocate(12).expect("there is memory");
        let sizes = PageSizes::PagesOnly;
        stage2
            .map(IPA, page.base(), 0x1000, Attributes::MEMORY, sizes)
            .expect("it is mapped");
        Self { stage2, page }
    }

    /// Ends the guest: the SMMU drops its translations, and its memory goes back.
    fn end(self, host: &Hypervisor, smmu: &Smmu<'_, Hypervisor>) {
        let over = invalidate(&[smmu], self.stage2.dismantle()).expect("it is confirmed");
        assert_eq!(over.free(), 0);
        host.free(self.page);
    }
}

/// Where a device's write at [`IPA`] lands.
fn lands(host: &Hypervisor, stream: StreamId) -> Option<Pa> {
    let mark = host.machine().record().mark();
    let write = Transaction::write(stream.as_u32(), IPA.as_u64(), b"portcull");
    let outcome = host.machine().smmu(0).transact(write);
    let landed = host.machine().record().landed_since(mark);
    assert_eq!(matches!(outcome, Outcome::Done { .. }), !landed.is_empty());
    landed.first().map(|landing| Pa::new(landing.pa))
}

/// How many events there are, those on their way too: a SYNC brings them (§4.7.3).
fn events(smmu: &Smmu<'_, Hypervisor>) -> u32 {
    let ticket = smmu.submit(&[&[]]).expect("there is room");
    smmu.wait(ticket).expect("it is confirmed");
    smmu.service(u32::MAX, |_| {}).events.events
}

fn syncs(host: &Hypervisor) -> u64 {
    host.machine().smmu(0).syncs()
}

fn set_faults(host: &Hypervisor, faults: Faults) {
    host.machine().smmu(0).set_faults(faults);
}

fn no_sync() -> Faults {
    Faults {
        sync_never: true,
        ..Faults::default()
    }
}

fn assert_clean(host: &Hypervisor, what: impl std::fmt::Debug) {
    let violations = host.machine().record().violations();
    assert!(violations.is_empty(), "{what:?}: {}", violations[0]);
}

const fn done() -> Result<(), &'static str> {
    Ok(())
}

#[test]
fn at_every_moment_a_group_has_one_owner_or_none() {
    for mode in modes() {
        let host = Hypervisor::new(Identity::full(), mode);
        let smmu = take_over(&host);
        let (old, new) = (Guest::new(&host, 7), Guest::new(&host, 8));
        smmu.publish(&GROUP, &old.stage2.walk()).expect("published");
        let all_land = |at: Option<Pa>| GROUP.map(|stream| assert_eq!(lands(&host, stream), at));
        all_land(Some(old.page.base()));
        let stopped = stop(&smmu, &GROUP, DeviceCaches::None).expect("it stops");
        all_land(None);
        let quiet = stopped.reset(done).expect("it is reset");
        all_land(None);
        // The old owner may go before the new one comes: whatever still led to it objects here.
        old.end(&host, &smmu);
        all_land(None);
        let given = quiet.give(&new.stage2.walk()).expect("it is given");
        let expected = HandedOver {
            streams: 2,
            vmid: Vmid::new(8),
            reset: Reset::Done,
        };
        assert_eq!(given, expected);
        all_land(Some(new.page.base()));
        assert_eq!(events(&smmu), 0, "{mode:?}: nothing was news");
        smmu.retract(&GROUP).expect("it is the new owner's");
        new.end(&host, &smmu);
        smmu.shut_down().expect("it shuts");
        assert_eq!(host.bytes_out(), 0);
        assert_clean(&host, mode);
    }
}

/// Design, section 8.
#[test]
fn any_number_of_streams_takes_3_syncs_and_4_with_ats() {
    for (caches, expected) in [(DeviceCaches::None, 3), (DeviceCaches::Ats, 4)] {
        for count in [1, 2, 300] {
            let host = Hypervisor::new(Identity::full(), Mode::Hoarding);
            let smmu = take_over(&host);
            let (old, new) = (Guest::new(&host, 7), Guest::new(&host, 8));
            let streams: Vec<_> = (0..count).map(|i| StreamId::new(0x80 + i)).collect();
            smmu.publish(&streams, &old.stage2.walk())
                .expect("published");
            let before = syncs(&host);
            let stopped = stop(&smmu, &streams, caches).expect("it stops");
            let quiet = stopped.reset(done).expect("it is reset");
            quiet.give(&new.stage2.walk()).expect("it is given");
            assert_eq!(
                syncs(&host) - before,
                expected,
                "{count} streams, {caches:?}"
            );
            assert_clean(&host, count);
        }
    }
}

#[test]
fn nobody_else_gets_a_group_between_two_owners() {
    let host = Hypervisor::new(Identity::full(), Mode::Hoarding);
    let smmu = take_over(&host);
    let (old, new, third) = (
        Guest::new(&host, 7),
        Guest::new(&host, 8),
        Guest::new(&host, 9),
    );
    smmu.publish(&GROUP, &old.stage2.walk()).expect("published");
    let stopped = stop(&smmu, &GROUP, DeviceCaches::None).expect("it stops");
    let changing = StreamError::Changing { stream: GROUP[0] };
    let take = || smmu.publish(&GROUP[..1], &third.stage2.walk());
    assert_eq!(take(), Err(changing));
    assert_eq!(smmu.retract(&GROUP[..1]), Err(changing));
    let again = stop(&smmu, &GROUP, DeviceCaches::None);
    assert_eq!(again.err(), Some(StopError::NotStopped(changing)));
    let quiet = stopped.reset(done).expect("it is reset");
    assert_eq!(take(), Err(changing));
    quiet.give(&new.stage2.walk()).expect("it is given");
    assert_eq!(take(), Err(StreamError::InUse { stream: GROUP[0] }));
    assert_clean(&host, "between two owners");
}

#[test]
fn what_cannot_begin_changes_nothing() {
    let identity = Identity {
        ats: false,
        pri: false,
        ..Identity::full()
    };
    let host = Hypervisor::new(identity, Mode::Hoarding);
    let smmu = take_over(&host);
    let old = Guest::new(&host, 7);
    smmu.publish(&GROUP[..1], &old.stage2.walk())
        .expect("published");
    let before = syncs(&host);
    let stopped = stop(&smmu, &GROUP[..1], DeviceCaches::Ats);
    assert_eq!(stopped.err(), Some(StopError::NoAts));
    let free = StreamError::NotInUse { stream: GROUP[1] };
    let stopped = stop(&smmu, &GROUP, DeviceCaches::None);
    assert_eq!(stopped.err(), Some(StopError::NotStopped(free)));
    assert_eq!(syncs(&host), before);
    assert_eq!(lands(&host, GROUP[0]), Some(old.page.base()));
}

#[test]
fn a_group_that_was_not_reset_aborts_until_it_is() {
    let host = Hypervisor::new(Identity::full(), Mode::Hoarding);
    let smmu = take_over(&host);
    let (old, new) = (Guest::new(&host, 7), Guest::new(&host, 8));
    smmu.publish(&GROUP, &old.stage2.walk()).expect("published");
    let stopped = stop(&smmu, &GROUP, DeviceCaches::None).expect("it stops");
    let refused = stopped
        .reset(|| Err("it does not come back"))
        .expect_err("the reset fails");
    assert_eq!(refused.error, "it does not come back");
    assert_eq!(GROUP.map(|stream| lands(&host, stream)), [None, None]);
    let quiet = refused.stopped.reset(done).expect("it is reset now");
    quiet.give(&new.stage2.walk()).expect("it is given");
    assert_eq!(lands(&host, GROUP[1]), Some(new.page.base()));
    assert_clean(&host, "a failed reset");
}

#[test]
fn a_group_that_goes_on_without_a_reset_says_so() {
    let host = Hypervisor::new(Identity::full(), Mode::Hoarding);
    let smmu = take_over(&host);
    let (old, new) = (Guest::new(&host, 7), Guest::new(&host, 8));
    smmu.publish(&GROUP, &old.stage2.walk()).expect("published");
    let stopped = stop(&smmu, &GROUP, DeviceCaches::Ats).expect("it stops");
    let quiet = stopped.without_reset("it keeps nothing").expect("allowed");
    let given = quiet.give(&new.stage2.walk()).expect("it is given");
    let line = given.to_string();
    assert!(line.contains("NOT RESET"), "{line}");
    assert!(line.contains("it keeps nothing"), "{line}");
}

#[test]
fn an_abandoned_group_is_free_and_aborts_as_one_that_never_had_an_owner() {
    let host = Hypervisor::new(Identity::full(), Mode::Hoarding);
    let smmu = take_over(&host);
    let (old, new) = (Guest::new(&host, 7), Guest::new(&host, 8));
    for is_reset in [false, true] {
        smmu.publish(&GROUP, &old.stage2.walk()).expect("published");
        let stopped = stop(&smmu, &GROUP, DeviceCaches::None).expect("it stops");
        if is_reset {
            let quiet = stopped.reset(done).expect("it is reset");
            quiet.abandon().expect("it is confirmed");
        } else {
            stopped.abandon().expect("it is confirmed");
        }
        assert_eq!(lands(&host, GROUP[0]), None);
        assert_eq!(events(&smmu), 1, "C_BAD_STE again");
    }
    smmu.publish(&GROUP, &new.stage2.walk())
        .expect("it is free");
    assert_clean(&host, "abandoned");
}

#[test]
fn a_stage_2_that_the_smmu_cannot_walk_leaves_the_group_as_it_was() {
    let host = Hypervisor::new(Identity::narrow_tags(), Mode::Hoarding);
    let smmu = take_over(&host);
    let (old, wide, new) = (
        Guest::new(&host, 7),
        Guest::new(&host, 0x100),
        Guest::new(&host, 8),
    );
    smmu.publish(&GROUP, &old.stage2.walk()).expect("published");
    let stopped = stop(&smmu, &GROUP, DeviceCaches::None).expect("it stops");
    let quiet = stopped.reset(done).expect("it is reset");
    let refused = quiet.give(&wide.stage2.walk());
    let Err(GiveError::Unwalkable { quiet, why }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(why, Unwalkable::VmidSize);
    assert_eq!(lands(&host, GROUP[0]), None);
    quiet.give(&new.stage2.walk()).expect("it is given");
    assert_eq!(lands(&host, GROUP[0]), Some(new.page.base()));
}

#[test]
fn a_stop_or_gift_that_is_not_confirmed_loses_the_group() {
    for fails_late in [false, true] {
        let host = Hypervisor::new(Identity::full(), Mode::Hoarding);
        let smmu = take_over(&host);
        let (old, new) = (Guest::new(&host, 7), Guest::new(&host, 8));
        smmu.publish(&GROUP, &old.stage2.walk()).expect("published");
        if fails_late {
            let stopped = stop(&smmu, &GROUP, DeviceCaches::None).expect("it stops");
            let quiet = stopped.reset(done).expect("it is reset");
            set_faults(&host, no_sync());
            let lost = quiet.give(&new.stage2.walk());
            assert!(matches!(
                lost,
                Err(GiveError::Lost(StreamError::NotConfirmed(
                    CommandError::SyncTimeout { .. }
                )))
            ));
        } else {
            set_faults(&host, no_sync());
            let lost = stop(&smmu, &GROUP, DeviceCaches::None);
            assert!(matches!(
                lost,
                Err(StopError::NotStopped(StreamError::NotConfirmed(
                    CommandError::SyncTimeout { .. }
                )))
            ));
        }
        set_faults(&host, Faults::default());
        host.machine().advance(10);
        for stream in GROUP {
            let taken = smmu.publish(&[stream], &new.stage2.walk());
            assert_eq!(taken, Err(StreamError::Lost { stream }));
        }
        assert_clean(&host, fails_late);
    }
}

/// A device that answers an invalidation or keeps silent, and counts them.
#[derive(Default)]
struct Atc {
    seen: Mutex<Vec<AtcInvalidation>>,
    silent_for: AtomicU32,
}

impl Endpoint for Atc {
    fn invalidate(&self, invalidation: AtcInvalidation) -> InvalidationAnswer {
        self.seen
            .lock()
            .expect("no panic before")
            .push(invalidation);
        let silent = self.silent_for.load(Ordering::Relaxed);
        if silent == 0 {
            return InvalidationAnswer::Done;
        }
        self.silent_for.store(silent - 1, Ordering::Relaxed);
        InvalidationAnswer::Later
    }
}

fn with_atcs(host: &Hypervisor, silent_for: u32) -> [Arc<Atc>; 2] {
    GROUP.map(|stream| {
        let atc = Arc::new(Atc::default());
        host.machine()
            .smmu(0)
            .attach_endpoint(stream.as_u32(), Arc::clone(&atc) as Arc<dyn Endpoint>);
        if stream == GROUP[1] {
            atc.silent_for.store(silent_for, Ordering::Relaxed);
        }
        atc
    })
}

#[test]
fn every_device_is_told_to_drop_all_it_cached() {
    let host = Hypervisor::new(Identity::full(), Mode::Hoarding);
    let smmu = take_over(&host);
    let old = Guest::new(&host, 7);
    let atcs = with_atcs(&host, 0);
    smmu.publish(&GROUP, &old.stage2.walk()).expect("published");
    let stopped = stop(&smmu, &GROUP, DeviceCaches::Ats).expect("it stops");
    assert_eq!(stopped.silent(), None);
    for (stream, atc) in GROUP.into_iter().zip(atcs) {
        let seen = atc.seen.lock().expect("no panic before");
        // Without a PASID, and of every PASID; in no order.
        let mut told: Vec<_> = seen
            .iter()
            .map(|told| (told.stream, told.substream, told.is_global))
            .collect();
        told.sort_unstable();
        let stream = stream.as_u32();
        assert_eq!(told, [(stream, None, false), (stream, Some(0), true)]);
        assert!(
            seen.iter()
                .all(|told| (told.address, told.log2_bytes) == (0, 64))
        );
    }
    stopped.abandon().expect("it is confirmed");
    assert_clean(&host, "ATC");
}

#[test]
fn a_device_that_answers_when_asked_again_is_believed() {
    let host = Hypervisor::new(Identity::full(), Mode::Polite);
    let smmu = take_over(&host);
    let old = Guest::new(&host, 7);
    let atcs = with_atcs(&host, 1);
    smmu.publish(&GROUP, &old.stage2.walk()).expect("published");
    let before = syncs(&host);
    let stopped = stop(&smmu, &GROUP, DeviceCaches::Ats).expect("it stops");
    assert_eq!(stopped.silent(), None);
    assert_eq!(
        atcs.map(|atc| atc.seen.lock().expect("whole").len()),
        [4, 4]
    );
    // The stop, the train, and one for each stream asked again.
    assert_eq!(syncs(&host) - before, 4);
    let quiet = stopped.without_reset("it keeps nothing").expect("allowed");
    quiet.abandon().expect("it is confirmed");
}

#[test]
fn a_device_that_keeps_silent_is_handed_over_after_a_reset_alone() {
    let host = Hypervisor::new(Identity::full(), Mode::Polite);
    let smmu = take_over(&host);
    let (old, new) = (Guest::new(&host, 7), Guest::new(&host, 8));
    let _atcs = with_atcs(&host, u32::MAX);
    smmu.publish(&GROUP, &old.stage2.walk()).expect("published");
    let stopped = stop(&smmu, &GROUP, DeviceCaches::Ats).expect("it stops");
    let silent = GROUP[1];
    assert_eq!(stopped.silent(), Some(silent));
    let refused = stopped
        .without_reset("it keeps nothing")
        .expect_err("it must be reset");
    assert_eq!(refused.error, MustReset { silent });
    let quiet = refused.stopped.reset(done).expect("it is reset");
    quiet.give(&new.stage2.walk()).expect("it is given");
    assert_eq!(lands(&host, silent), Some(new.page.base()));

    let stopped = stop(&smmu, &GROUP, DeviceCaches::Ats).expect("it stops");
    let must = AbandonError::MustReset(MustReset { silent });
    assert_eq!(stopped.abandon(), Err(must));
    let stream = GROUP[0];
    let taken = smmu.publish(&GROUP, &new.stage2.walk());
    assert_eq!(taken, Err(StreamError::Lost { stream }));
}

#[test]
fn devices_whose_caches_are_unknown_are_lost() {
    let host = Hypervisor::new(Identity::full(), Mode::Polite);
    let smmu = take_over(&host);
    let (old, new) = (Guest::new(&host, 7), Guest::new(&host, 8));
    smmu.publish(&GROUP, &old.stage2.walk()).expect("published");
    // CFGI_STE twice and its SYNC pass; the first ATC_INV is refused.
    set_faults(
        &host,
        Faults {
            illegal_after: Some(3),
            ..Faults::default()
        },
    );
    let stopped = stop(&smmu, &GROUP, DeviceCaches::Ats);
    assert!(matches!(
        stopped,
        Err(StopError::CachesUnknown(CommandError::Illegal { .. }))
    ));
    assert_eq!(GROUP.map(|stream| lands(&host, stream)), [None, None]);
    let stream = GROUP[0];
    let taken = smmu.publish(&GROUP, &new.stage2.walk());
    assert_eq!(taken, Err(StreamError::Lost { stream }));
}
