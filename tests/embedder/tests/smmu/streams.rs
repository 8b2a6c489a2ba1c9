//! Streams: published, used, retracted, and refused.

use super::*;

/// The whole life of a stream: published, used, unmapped under it, retracted; everything back.
#[test]
fn a_stream_lives_and_ends_without_a_violation_in_every_mode() {
    for mode in modes() {
        let host = Hypervisor::new(Identity::full(), mode);
        let smmu = take_over(&host);
        let mut stage2 = stage2(&host, 7);
        let memory = page(&host);
        assert!(!writes(&host, STREAM, IPA), "nobody published it");
        map(&mut stage2, IPA, memory.base());
        smmu.publish(&[STREAM], &stage2.walk())
            .expect("it is published");
        assert!(
            writes(&host, STREAM, IPA),
            "{mode:?}: it is published and mapped"
        );
        let change = stage2.unmap(IPA, 0x1000).expect("it is unmapped");
        let tables = invalidate(&[&smmu], change).expect("it is confirmed");
        stage2.reclaim(tables).expect("its own");
        assert!(!writes(&host, STREAM, IPA), "{mode:?}: it is unmapped");
        host.free(memory);
        smmu.retract(&[STREAM]).expect("it is retracted");
        let over = invalidate(&[&smmu], stage2.dismantle()).expect("it is confirmed");
        assert_eq!(over.free(), 0);
        smmu.shut_down().expect("it shuts");
        assert_eq!(host.bytes_out(), 0, "{mode:?}: everything came back");
        assert!(!writes(&host, STREAM, IPA), "it is shut");
        assert_clean(&host, mode);
    }
}

/// What stays mapped never faults while its neighbour goes.
#[test]
fn a_neighbour_that_goes_disturbs_nobody() {
    for mode in modes() {
        let host = Hypervisor::new(Identity::full(), mode);
        let smmu = take_over(&host);
        let mut stage2 = stage2(&host, 7);
        let (memory, other) = (page(&host), page(&host));
        let neighbour = Ipa::new(IPA.as_u64() + 0x1000);
        map(&mut stage2, IPA, memory.base());
        map(&mut stage2, neighbour, other.base());
        smmu.publish(&[STREAM], &stage2.walk())
            .expect("it is published");
        assert!(writes(&host, STREAM, neighbour) && writes(&host, STREAM, IPA));
        let change = stage2.unmap(neighbour, 0x1000).expect("it is unmapped");
        assert!(
            writes(&host, STREAM, IPA),
            "{mode:?}: before it is confirmed"
        );
        stage2
            .reclaim(invalidate(&[&smmu], change).expect("confirmed"))
            .expect("its own");
        assert!(writes(&host, STREAM, IPA), "{mode:?}: and after");
        assert!(!writes(&host, STREAM, neighbour));
        assert_clean(&host, mode);
    }
}

/// Design section 8: a group moves in the SYNCs of one.
#[test]
fn any_number_of_streams_takes_two_syncs_to_publish_and_one_to_retract() {
    let host = Hypervisor::new(Identity::full(), Mode::Hoarding);
    let smmu = take_over(&host);
    let stage2 = stage2(&host, 7);
    for count in [1, 8, 300] {
        let streams: Vec<_> = (0..count).map(|i| StreamId::new(0x80 + i)).collect();
        let before = syncs(&host);
        smmu.publish(&streams, &stage2.walk())
            .expect("they are published");
        assert_eq!(syncs(&host) - before, 2, "{count} streams");
        smmu.retract(&streams).expect("they are retracted");
        assert_eq!(syncs(&host) - before, 3, "{count} streams");
    }
    assert_clean(&host, "groups");
}

#[test]
fn an_unmap_of_any_range_takes_one_sync() {
    for identity in [Identity::full(), Identity::kunpeng_920()] {
        let host = Hypervisor::new(identity, Mode::Hoarding);
        let smmu = take_over(&host);
        let mut stage2 = stage2(&host, 7);
        smmu.publish(&[STREAM], &stage2.walk())
            .expect("it is published");
        let memory = host.allocate(22).expect("there is memory");
        for log2_bytes in 12..=22_u8 {
            let bytes = 1 << log2_bytes;
            stage2
                .map(
                    IPA,
                    memory.base(),
                    bytes,
                    Attributes::MEMORY,
                    PageSizes::PagesOnly,
                )
                .expect("it is mapped");
            assert!(writes(&host, STREAM, IPA));
            let before = syncs(&host);
            let change = stage2.unmap(IPA, bytes).expect("it is unmapped");
            stage2
                .reclaim(invalidate(&[&smmu], change).expect("confirmed"))
                .expect("its own");
            assert_eq!(syncs(&host) - before, 1, "2^{log2_bytes} bytes");
            assert!(!writes(&host, STREAM, IPA));
        }
        assert_clean(&host, identity);
    }
}

#[test]
fn an_smmu_at_rest_takes_less_than_256_kib() {
    let host = Hypervisor::new(Identity::full(), Mode::Polite);
    let smmu = take_over(&host);
    assert_eq!(smmu.size_bytes(), host.bytes_out());
    assert!(smmu.size_bytes() < 256 << 10, "{} bytes", smmu.size_bytes());
}

#[test]
fn a_linear_table_serves_where_there_are_no_two_levels() {
    let identity = Identity {
        st_level2: false,
        sid_bits: 6,
        ..Identity::full()
    };
    for mode in modes() {
        let host = Hypervisor::new(identity, mode);
        let smmu = take_over(&host);
        let mut stage2 = stage2(&host, 7);
        map(&mut stage2, IPA, page(&host).base());
        let stream = StreamId::new(63);
        smmu.publish(&[stream], &stage2.walk())
            .expect("it is published");
        assert!(writes(&host, stream, IPA));
        let past = StreamError::OutOfRange {
            stream: StreamId::new(64),
            streams: 64,
        };
        assert_eq!(
            smmu.publish(&[StreamId::new(64)], &stage2.walk()),
            Err(past)
        );
        assert_clean(&host, mode);
    }
}

#[test]
fn what_is_not_so_is_refused_and_changes_nothing() {
    let host = Hypervisor::new(Identity::full(), Mode::Hoarding);
    let smmu = take_over(&host);
    let stage2 = stage2(&host, 7);
    let other = StreamId::new(5);
    smmu.publish(&[STREAM], &stage2.walk())
        .expect("it is published");
    let before = syncs(&host);
    let stream = STREAM;
    let walk = stage2.walk();
    assert_eq!(
        smmu.publish(&[other, STREAM], &walk),
        Err(StreamError::InUse { stream })
    );
    assert_eq!(
        smmu.retract(&[STREAM, other]),
        Err(StreamError::NotInUse { stream: other })
    );
    assert_eq!(
        smmu.publish(&[other, other], &walk),
        Err(StreamError::NamedTwice { stream: other })
    );
    assert_eq!(syncs(&host), before, "the SMMU heard nothing of it");
    smmu.publish(&[other], &walk)
        .expect("it is as free as before");
    assert_clean(&host, "refusals");
}

#[test]
fn a_stage_2_that_the_smmu_cannot_walk_is_refused() {
    let narrow = Identity {
        oas_bits: 36,
        ..Identity::narrow_tags()
    };
    let host = Hypervisor::new(narrow, Mode::Polite);
    let smmu = take_over(&host);
    let wide = Unwalkable::OutputSize {
        bits: 40,
        smmu_bits: 36,
    };
    let walk = stage2(&host, 7).walk();
    assert_eq!(
        smmu.publish(&[STREAM], &walk),
        Err(StreamError::Unwalkable(wide))
    );
    let host = Hypervisor::new(Identity::narrow_tags(), Mode::Polite);
    let smmu = take_over(&host);
    let walk = stage2(&host, 0x100).walk();
    let vmid = StreamError::Unwalkable(Unwalkable::VmidSize);
    assert_eq!(smmu.publish(&[STREAM], &walk), Err(vmid));
}

#[test]
fn a_stream_without_memory_for_its_array_stays_free() {
    let host = Hypervisor::new(Identity::full(), Mode::Polite);
    let smmu = take_over(&host);
    let stage2 = stage2(&host, 7);
    host.fail_after(Some(0));
    let none = StreamError::NoFrames { log2_bytes: 14 };
    assert_eq!(smmu.publish(&[STREAM], &stage2.walk()), Err(none));
    host.fail_after(None);
    smmu.publish(&[STREAM], &stage2.walk())
        .expect("there is memory again");
}
