//! One command queue, and many CPUs.

use super::*;

#[test]
fn trains_of_any_length_pass_through_a_queue_of_any_size() {
    for log2_commands in 1..=4 {
        for mode in modes() {
            let host = Hypervisor::new(Identity::full(), mode);
            let smmu = take_over_with(&host, |settings| settings.log2_commands = log2_commands);
            let harmless = Command::tlbi_s12_vmall(Vmid::new(1));
            for length in 0..50 {
                let group = vec![harmless; length];
                let before = syncs(&host);
                let ticket = smmu
                    .submit(&[&group, &group])
                    .expect("there is room in time");
                smmu.wait(ticket).expect("it is confirmed");
                assert_eq!(syncs(&host) - before, 2);
            }
            assert_clean(&host, (log2_commands, mode));
        }
    }
}

/// In a queue of two no train fits whole; in one of eight most do.
#[test]
fn many_cpus_share_one_queue_and_each_gets_its_own_answer() {
    for log2_commands in [1, 3] {
        share_one_queue(log2_commands);
    }
}

fn share_one_queue(log2_commands: u8) {
    const CPUS: usize = 4;
    const TRAINS: usize = 200;
    let host = Hypervisor::new(Identity::full(), Mode::Polite);
    let smmu = take_over_with(&host, |settings| settings.log2_commands = log2_commands);
    let before = syncs(&host);
    std::thread::scope(|scope| {
        for cpu in 0..CPUS {
            let smmu = &smmu;
            scope.spawn(move || {
                let good = Command::tlbi_s12_vmall(Vmid::new(cpu as u16));
                let bad = Command::reserved();
                for train in 0..TRAINS {
                    let is_bad = train % 7 == cpu;
                    let group = if is_bad { [good, bad, good] } else { [good; 3] };
                    let ticket = smmu.submit(&[&group]).expect("there is room in time");
                    let told = smmu.wait(ticket);
                    let words = bad.words();
                    let right = if is_bad {
                        Err(CommandError::Illegal { words })
                    } else {
                        Ok(())
                    };
                    assert_eq!(told, right, "cpu {cpu}, train {train}");
                }
            });
        }
    });
    // Each illegal command was replaced by a SYNC of its own.
    let illegal = (0..TRAINS * CPUS)
        .filter(|i| i % TRAINS % 7 == i / TRAINS)
        .count();
    assert_eq!(syncs(&host) - before, (CPUS * TRAINS + illegal) as u64);
}

#[test]
fn a_queue_that_stays_full_is_given_up_and_serves_others_later() {
    let host = Hypervisor::new(Identity::full(), Mode::Polite);
    let smmu = take_over_with(&host, |settings| settings.log2_commands = 1);
    host.machine().smmu(0).set_faults(Faults {
        sync_never: true,
        ..Faults::default()
    });
    let harmless = [Command::tlbi_s12_vmall(Vmid::new(1)); 8];
    let refused = smmu.submit(&[&[], &harmless]).err();
    assert!(matches!(refused, Some(CommandError::NoRoom { waited_us }) if waited_us >= 1_000_000));
    host.machine().smmu(0).set_faults(Faults::default());
    host.machine().advance(10);
    let ticket = smmu.submit(&[&harmless]).expect("there is room in time");
    assert_eq!(smmu.wait(ticket), Ok(()));
}

#[test]
fn many_cpus_publish_and_retract_streams_of_their_own() {
    let host = Hypervisor::new(Identity::full(), Mode::Hoarding);
    let smmu = take_over(&host);
    let mut stage2 = stage2(&host, 7);
    map(&mut stage2, IPA, page(&host).base());
    let walk = stage2.walk();
    std::thread::scope(|scope| {
        for cpu in 0..4 {
            let (smmu, host, walk) = (&smmu, &host, &walk);
            scope.spawn(move || {
                let stream = StreamId::new(0x100 * cpu + 9);
                for _ in 0..50 {
                    smmu.publish(&[stream], walk).expect("it is its own");
                    assert!(writes(host, stream, IPA));
                    smmu.retract(&[stream]).expect("it is its own");
                    assert!(!writes(host, stream, IPA));
                }
            });
        }
    });
    assert_clean(&host, "four CPUs");
}
