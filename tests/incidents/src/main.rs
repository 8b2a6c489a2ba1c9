//! `incident NAME`: plays one incident, step by step, the policy that went wrong beside Portcullis.

use std::process::ExitCode;

use portcullis_incidents::{Both, INCIDENTS, Incident, Played, find};

/// How wide each of the three columns is.
const STEP: usize = 31;
const SIDE: usize = 31;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--list"] => {
            for incident in INCIDENTS {
                println!("{:<22} {}", incident.name, incident.policy);
            }
            ExitCode::SUCCESS
        }
        ["--all"] => {
            let held = INCIDENTS.iter().filter(|incident| show(incident)).count();
            verdict(held == INCIDENTS.len())
        }
        [name] => match find(name) {
            Some(incident) => verdict(show(incident)),
            None => {
                eprintln!("there is no incident `{name}`; --list names them");
                ExitCode::from(2)
            }
        },
        _ => {
            eprintln!("usage: incident NAME | --all | --list");
            ExitCode::from(2)
        }
    }
}

fn verdict(is_as_told: bool) -> ExitCode {
    if is_as_told {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Plays and shows an incident; whether it was as told.
fn show(incident: &Incident) -> bool {
    let Incident {
        name, policy, harm, ..
    } = incident;
    println!("{name}: {policy}\n");
    let both = incident.play();
    let Both { wrong, ours } = &both;
    println!("     {:<STEP$} {:<SIDE$} Portcullis", "step", "that policy");
    for (number, (left, right)) in wrong.lines.iter().zip(&ours.lines).enumerate() {
        let mark = |is_harm| if is_harm { '!' } else { ' ' };
        let line = format!(
            "{:>3}  {:<STEP$}{}{:<SIDE$}{}{}",
            number + 1,
            left.step,
            mark(left.is_harm),
            left.outcome,
            mark(right.is_harm),
            right.outcome
        );
        println!("{}", line.trim_end());
    }
    println!();
    println!("the policy:  {}", told(wrong));
    println!("Portcullis:  {}", told(ours));
    let is_as_told = both.is_as_told(incident);
    let words = if is_as_told {
        "as told"
    } else {
        "NOT AS TOLD; it was to be"
    };
    println!("{words}: {}, and not with Portcullis\n", harm.words());
    is_as_told
}

fn told(played: &Played) -> String {
    let mut words: Vec<&str> = Vec::new();
    for harm in &played.harms {
        if !words.contains(&harm.words()) {
            words.push(harm.words());
        }
    }
    if words.is_empty() {
        words.push("no harm");
    }
    let rules: Vec<String> = played
        .objections
        .iter()
        .map(|it| format!("{it:?}"))
        .collect();
    match rules.as_slice() {
        [] => words.join("; "),
        rules => format!(
            "{} (the model objects: {})",
            words.join("; "),
            rules.join(", ")
        ),
    }
}
