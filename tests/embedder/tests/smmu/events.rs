//! The event queue, and knocks.

use super::*;

#[test]
fn knocks_are_named_where_they_are_asked_for_and_silent_where_not() {
    for unpublished in [Unpublished::Recorded, Unpublished::Silent] {
        let host = Hypervisor::new(Identity::full(), Mode::Hoarding);
        let smmu = take_over_with(&host, |settings| settings.unpublished = unpublished);
        let stage2 = stage2(&host, 7);
        smmu.publish(&[STREAM], &stage2.walk())
            .expect("it is published");
        let neighbour = StreamId::new(STREAM.as_u32() + 1);
        let stranger = StreamId::new(0x4400);
        let mut kinds = Vec::new();
        for stream in [neighbour, stranger, neighbour] {
            assert!(!writes(&host, stream, IPA));
            // A SYNC brings what is still on its way (§4.7.3).
            let ticket = smmu.submit(&[&[]]).expect("there is room");
            smmu.wait(ticket).expect("it is confirmed");
            smmu.service(u32::MAX, |event| kinds.push(event.kind));
        }
        let knocks = smmu.knocks();
        let named: Vec<_> = knocks.streams().map(|knock| knock.stream).collect();
        match unpublished {
            Unpublished::Recorded => {
                assert_eq!(named, [neighbour, stranger]);
                let (ste, id) = (EventKind::BadSte, EventKind::BadStreamid);
                assert_eq!(kinds, [ste, id, ste]);
            }
            Unpublished::Silent => assert!(named.is_empty() && kinds.is_empty()),
        }
    }
}

#[test]
fn a_full_event_queue_is_noticed_acknowledged_and_used_again() {
    let host = Hypervisor::new(Identity::full(), Mode::Polite);
    let smmu = take_over_with(&host, |settings| settings.log2_events = 2);
    let stage2 = stage2(&host, 7);
    smmu.publish(&[STREAM], &stage2.walk())
        .expect("it is published");
    for round in 0..5 {
        for page in 0..9 {
            assert!(!writes(&host, STREAM, Ipa::new(0x10_0000 + page * 0x1000)));
        }
        let first = smmu.service(3, |_| {}).events;
        assert!(first.lost_events && first.has_more, "round {round}");
        assert_eq!(first.events, 3);
        let rest = smmu.service(u32::MAX, |_| {}).events;
        assert!(!rest.lost_events && !rest.has_more);
        assert_eq!(rest.events, 1);
    }
    assert_clean(&host, "overflow");
}
