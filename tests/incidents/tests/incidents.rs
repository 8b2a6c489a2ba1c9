//! Each policy goes wrong as its incident says, and Portcullis holds on the same steps.

use std::collections::BTreeSet;

use portcullis_incidents::{Harm, INCIDENTS, find};

fn play(name: &str, harms: &[Harm]) {
    let incident = find(name).expect("it is one of them");
    let both = incident.play();
    assert_eq!(both.wrong.harms, harms, "{name}");
    assert_eq!(both.ours.harms, [], "{name}");
    assert_eq!(both.ours.objections, [], "{name}");
    let steps = |lines: &[portcullis_incidents::Line]| -> Vec<String> {
        lines.iter().map(|line| line.step.clone()).collect()
    };
    assert_eq!(
        steps(&both.wrong.lines),
        steps(&both.ours.lines),
        "the same steps"
    );
    assert!(both.is_as_told(incident), "{name}");
}

#[test]
fn a_number_that_is_freed_at_exit_leads_into_memory_of_others() {
    use Harm::ReachedAnothers;
    play("freed-at-exit", &[ReachedAnothers, ReachedAnothers]);
}

#[test]
fn a_number_that_is_reused_over_a_live_cd_leads_into_memory_of_others() {
    use Harm::ReachedAnothers;
    play("reused-over-live", &[ReachedAnothers, ReachedAnothers]);
}

#[test]
fn a_file_that_is_closed_by_number_cuts_off_the_next_owner() {
    play("closed-by-number", &[Harm::CutOff]);
}

#[test]
fn a_handle_that_keeps_the_space_keeps_it_for_ever() {
    play("handle-keeps-space", &[Harm::NeverEnds, Harm::StillReaches]);
}

#[test]
fn a_second_bind_that_is_refused_as_busy_is_one_queue_less() {
    play("second-bind-busy", &[Harm::Refused]);
}

#[test]
fn a_refusal_that_is_swallowed_cuts_off_who_is_left() {
    play("busy-swallowed", &[Harm::CutOff]);
}

#[test]
fn a_holder_that_is_called_back_and_does_not_answer_stops_the_end() {
    play(
        "holders-called-back",
        &[Harm::NeverEnds, Harm::StillReaches],
    );
}

#[test]
fn the_lowest_free_number_meets_a_job_of_its_last_owner() {
    play("lowest-free", &[Harm::ReachedAnothers]);
}

#[test]
fn uses_that_no_group_counts_let_a_guest_in_beside_the_host() {
    use Harm::{CountWrong, ReachedAnothers};
    let harms = [ReachedAnothers, CountWrong, ReachedAnothers];
    play("counted-without-group", &harms);
}

#[test]
fn every_incident_has_a_name_of_its_own() {
    let names: BTreeSet<_> = INCIDENTS.iter().map(|incident| incident.name).collect();
    assert_eq!((names.len(), INCIDENTS.len()), (9, 9));
    for name in names {
        assert_eq!(find(name).map(|incident| incident.name), Some(name));
    }
    assert!(find("freed").is_none());
}
