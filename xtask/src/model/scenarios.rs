//! What became of the scenarios: the guests' word, believed where the model's record agrees.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use super::cast::{Cast, NEIGHBOUR, PLAYER};
use super::verdict::{Verdict, Witness};

/// All that a guest can play, by their names in the list of scenarios.
pub(crate) const NAMES: [&str; 28] = [
    "exit-without-close",
    "daemon-fork",
    "exec-keeps-handle",
    "adopt",
    "unbind-after-release",
    "publish-over-live",
    "self-mapped-handle",
    "bind-twice",
    "number-for-life",
    "one-space-many-devices",
    "misfit",
    "too-many",
    "park-in-any-order",
    "quiet-after-release",
    "still-firing-at-reuse",
    "device-resets-while-parked",
    "release-races-bind",
    "handle-passed-on",
    "guest-dies",
    "sync-never-comes",
    "late-sync",
    "shared-smmu-dies",
    "stalled-when-killed",
    "storm",
    "ats-holdout",
    "global-entries",
    "stage1-unmap-under-dma",
    "guest-starts-over",
];
/// Those that need a second CPU of the player's.
const TWO_CPUS: [&str; 1] = ["release-races-bind"];
/// Those that need a second guest.
const TWO_GUESTS: [&str; 2] = ["storm", "shared-smmu-dies"];

/// What became of a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    Failed(String),
    /// It needs what is not there.
    Skipped(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::Failed(why) => write!(f, "FAILED {why}"),
            Self::Skipped(why) => write!(f, "skipped: {why}"),
        }
    }
}

/// Scenarios and their outcomes, in the order of [`NAMES`].
pub(crate) type Outcomes = Vec<(&'static str, Outcome)>;

/// A StreamID and a PASID.
type Who = (u32, u32);

/// What a guest claims of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// Nothing landed, of so many that were tried at least.
    Quiet(u64),
    /// So many landed.
    Landed(u64),
    /// The guest died; some of what was tried did not land.
    Dies,
}

impl Claim {
    fn read(words: &[&str]) -> Option<Self> {
        match *words {
            ["quiet", tried] => Some(Self::Quiet(tried.parse().ok()?)),
            ["landed", count] => Some(Self::Landed(count.parse().ok()?)),
            ["dies"] => Some(Self::Dies),
            _ => None,
        }
    }

    /// Whether the model has seen that.
    fn agrees(self, seen: &Witness) -> bool {
        let is_ended = seen.end_us.is_some();
        is_ended
            && match self {
                Self::Quiet(tried) => seen.landed == 0 && seen.tried >= tried,
                // What had stalled before may land, tried or not.
                Self::Landed(count) => seen.landed == count,
                Self::Dies => seen.landed < seen.tried,
            }
    }
}

/// What the guests said of one story.
#[derive(Debug, Default)]
struct Told {
    number: Option<u32>,
    end: Option<Outcome>,
}

/// What the guests said.
#[derive(Debug, Default)]
struct Report {
    stories: BTreeMap<String, Told>,
    claims: BTreeMap<u32, Vec<(Who, Claim)>>,
    neighbour: Vec<String>,
    /// The first line that could not be read.
    unreadable: Option<String>,
}

fn number(word: &str) -> Option<u32> {
    match word.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

impl Report {
    fn read(console: &str) -> Self {
        let mut report = Self::default();
        for line in console.lines() {
            let of = |name: &str| line.trim_end().strip_prefix(&format!("[{name}] "));
            let (player, neighbour) = (of(PLAYER), of(NEIGHBOUR));
            if let Some(text) = neighbour.and_then(|it| it.strip_prefix("neighbour: ")) {
                report.neighbour.push(text.to_owned());
            }
            for text in player.into_iter().chain(neighbour) {
                let is_read = match text.split(' ').collect::<Vec<_>>().as_slice() {
                    ["claim", story, stream, pasid, claim @ ..] => {
                        report.claim([story, stream, pasid], claim)
                    }
                    ["story", story, name, end @ ..] if player.is_some() => {
                        report.story(story, name, end)
                    }
                    _ => Some(()),
                };
                if is_read.is_none() {
                    report.unreadable.get_or_insert_with(|| line.to_owned());
                }
            }
        }
        report
    }

    fn claim(&mut self, numbers: [&str; 3], claim: &[&str]) -> Option<()> {
        let [story, stream, pasid] = numbers.map(number);
        let claims = self.claims.entry(story?).or_default();
        claims.push(((stream?, pasid?), Claim::read(claim)?));
        Some(())
    }

    fn story(&mut self, story: &str, name: &str, end: &[&str]) -> Option<()> {
        let name = name.strip_suffix(':')?;
        let told = self.stories.entry(name.to_owned()).or_default();
        if told.end.is_some() {
            return None;
        }
        told.number = Some(number(story)?);
        told.end = Some(match end {
            ["ok"] => Outcome::Ok,
            ["FAILED", why @ ..] => Outcome::Failed(why.join(" ")),
            ["skipped:", why @ ..] => Outcome::Skipped(why.join(" ")),
            _ => return None,
        });
        Some(())
    }
}

/// What became of each scenario in one run.
pub(crate) fn judge(cast: Cast, console: &str, verdict: &Verdict) -> Outcomes {
    let report = Report::read(console);
    let mut seen = BTreeMap::<u32, BTreeMap<Who, VecDeque<&Witness>>>::new();
    for witness in &verdict.witness {
        let who = (witness.stream, witness.pasid.unwrap_or(0));
        let of_story = seen.entry(witness.story).or_default();
        of_story.entry(who).or_default().push_back(witness);
    }
    let judged = NAMES.iter().map(|name| {
        let outcome = one(cast, &report, &mut seen, name);
        (*name, outcome.unwrap_or_else(Outcome::Failed))
    });
    judged.collect()
}

/// # Errors
///
/// Why it failed.
fn one(
    cast: Cast,
    report: &Report,
    seen: &mut BTreeMap<u32, BTreeMap<Who, VecDeque<&Witness>>>,
    name: &str,
) -> Result<Outcome, String> {
    if let Some(line) = &report.unreadable {
        return Err(format!("the guests said what cannot be read: {line}"));
    }
    let told = report.stories.get(name).ok_or("the guest said nothing")?;
    let (number, end) = (told.number.unwrap_or(0), told.end.clone());
    match end.ok_or("the guest said nothing")? {
        Outcome::Ok => {}
        Outcome::Failed(why) => return Err(why),
        Outcome::Skipped(why) => {
            let is_lacking = TWO_CPUS.contains(&name) && cast.player_cpus < 2
                || TWO_GUESTS.contains(&name) && !cast.has_neighbour;
            return if is_lacking {
                Ok(Outcome::Skipped(why))
            } else {
                Err(format!("skipped without need: {why}"))
            };
        }
    }
    if TWO_GUESTS.contains(&name) {
        let said = |word: &str| report.neighbour.iter().any(|it| it == word);
        if !said("told") || !said("ok") {
            let last = report.neighbour.last();
            return Err(format!("the neighbour does not agree: it said {last:?}"));
        }
    }
    let none = Vec::new();
    let claims = report.claims.get(&number).unwrap_or(&none);
    let is_there = |wanted: fn(&Claim) -> bool| claims.iter().any(|(_, it)| wanted(it));
    let is_quiet = |it: &Claim| matches!(it, Claim::Quiet(1..) | Claim::Dies);
    if !is_there(is_quiet) || !is_there(|it| matches!(it, Claim::Landed(1..))) {
        return Err("it claims too little: something must land, and something must not".into());
    }
    let mut seen = seen.remove(&number).unwrap_or_default();
    for ((stream, pasid), claim) in claims {
        let who = format!("stream {stream:#x} with PASID {pasid:#x}");
        let witness = seen
            .get_mut(&(*stream, *pasid))
            .and_then(VecDeque::pop_front)
            .ok_or_else(|| format!("{claim:?} of {who}: the model watched nothing"))?;
        if !claim.agrees(witness) {
            let Witness { tried, landed, .. } = witness;
            return Err(format!(
                "{claim:?} of {who}: the model saw {tried} tried and {landed} landed"
            ));
        }
    }
    match seen.into_iter().find(|(_, left)| !left.is_empty()) {
        None => Ok(Outcome::Ok),
        Some(((stream, pasid), _)) => Err(format!(
            "stream {stream:#x} with PASID {pasid:#x} was watched, and nothing claimed of it"
        )),
    }
}

/// The better of what several runs of one machine say: what was skipped in one may be played in
/// another.
pub(crate) fn together(runs: Vec<Outcomes>) -> Outcomes {
    let mut all = runs.into_iter();
    let mut best = all.next().unwrap_or_default();
    for run in all {
        for ((_, best), (_, other)) in best.iter_mut().zip(run) {
            let is_better = matches!(
                (&*best, &other),
                (Outcome::Skipped(_), _) | (Outcome::Ok, Outcome::Failed(_))
            );
            if is_better {
                *best = other;
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOGETHER: Cast = Cast {
        player_cpus: 2,
        has_neighbour: true,
    };

    /// A console on which every scenario is ok, with two claims each.
    fn console() -> String {
        let mut text = String::from("[neighbour] neighbour: told\n[neighbour] neighbour: ok\n");
        for (name, number) in NAMES.iter().zip(1..) {
            text += &format!("[player] claim {number} 0x10 0x1 landed 1\n");
            text += &format!("[player] claim {number} 0x10 0x1 quiet 5\n");
            text += &format!("[player] story {number} {name}: ok\n");
        }
        text
    }

    fn verdict(edit: impl Fn(u32, usize, &mut Witness)) -> Verdict {
        let mut verdict = Verdict::for_tests();
        for number in 1..=NAMES.len() as u32 {
            for (at, (tried, landed)) in [(1, 1), (9, 0)].into_iter().enumerate() {
                let mut witness = Witness {
                    smmu: 0,
                    stream: 0x10,
                    story: number,
                    pasid: Some(1),
                    tried,
                    landed,
                    begin_us: 1,
                    end_us: Some(2),
                };
                edit(number, at, &mut witness);
                verdict.witness.push(witness);
            }
        }
        verdict
    }

    fn first(cast: Cast, console: &str, verdict: &Verdict) -> Outcome {
        let (name, outcome) = judge(cast, console, verdict).swap_remove(0);
        assert_eq!(name, NAMES[0]);
        outcome
    }

    fn fails(console: &str, verdict: &Verdict, with: &str) {
        match first(TOGETHER, console, verdict) {
            Outcome::Failed(why) => assert!(why.contains(with), "{why}"),
            other => panic!("{other}, not: {with}"),
        }
    }

    #[test]
    fn a_scenario_is_ok_where_guest_and_model_agree() {
        let judged = judge(TOGETHER, &console(), &verdict(|_, _, _| ()));
        assert_eq!(judged.len(), NAMES.len());
        assert!(
            judged.iter().all(|(_, it)| *it == Outcome::Ok),
            "{judged:?}"
        );
    }

    #[test]
    fn what_the_model_saw_otherwise_fails_whatever_the_guest_says() {
        let good = console();
        let in_first = |at: usize, edit: fn(&mut Witness)| {
            verdict(move |number, place, witness| {
                if number == 1 && place == at {
                    edit(witness);
                }
            })
        };
        fails(&good, &in_first(1, |it| it.landed = 1), "1 landed");
        fails(&good, &in_first(1, |it| it.tried = 4), "4 tried");
        fails(&good, &in_first(0, |it| it.landed = 0), "0 landed");
        fails(&good, &in_first(1, |it| it.end_us = None), "9 tried");
        fails(&good, &in_first(1, |it| it.story = 99), "watched nothing");
        fails(
            &good,
            &in_first(1, |it| it.pasid = Some(2)),
            "watched nothing",
        );
        let claims_less = good.replacen("[player] claim 1 0x10 0x1 quiet 5\n", "", 1);
        fails(&claims_less, &verdict(|_, _, _| ()), "claims too little");
        let more = in_first(0, |_| ());
        let mut more = more;
        let extra = more.witness[0].clone();
        more.witness.push(extra);
        fails(&good, &more, "nothing claimed");
    }

    #[test]
    fn what_the_guest_says_counts_if_it_says_it_and_nobody_else() {
        let fair = verdict(|_, _, _| ());
        let line = "[player] story 1 exit-without-close: ok\n";
        fails(&console().replace(line, ""), &fair, "said nothing");
        let forged = console().replace(line, "[neighbour] story 1 exit-without-close: ok\n");
        fails(&forged, &fair, "said nothing");
        let failed = console().replace(
            ": ok\n[player] claim 2 ",
            ": FAILED a reason\n[player] claim 2 ",
        );
        fails(&failed, &fair, "a reason");
        let twice = format!("{}{line}", console());
        fails(&twice, &fair, "cannot be read");
        let skipped =
            console().replace(line, "[player] story 1 exit-without-close: skipped: why\n");
        fails(&skipped, &fair, "without need");
    }

    #[test]
    fn only_what_needs_two_may_be_skipped_and_only_where_there_is_one() {
        let fair = verdict(|_, _, _| ());
        let skip =
            |name: &str| console().replace(&format!("{name}: ok"), &format!("{name}: skipped: x"));
        let of = |cast: Cast, name: &str| {
            let judged = judge(cast, &skip(name), &fair);
            judged.into_iter().find(|it| it.0 == name).map(|it| it.1)
        };
        let alone = Cast {
            player_cpus: 1,
            has_neighbour: false,
        };
        for name in ["storm", "shared-smmu-dies", "release-races-bind"] {
            assert_eq!(of(alone, name), Some(Outcome::Skipped("x".into())));
            assert!(matches!(of(TOGETHER, name), Some(Outcome::Failed(_))));
        }
        let silent = console().replace("[neighbour] neighbour: told\n", "");
        let judged = judge(TOGETHER, &silent, &fair);
        let storm = judged.iter().find(|it| it.0 == "storm").map(|it| &it.1);
        assert!(matches!(storm, Some(Outcome::Failed(_))), "{storm:?}");
    }

    #[test]
    fn of_several_runs_a_failure_stays_and_a_skip_does_not() {
        let run = |outcome: Outcome| vec![("storm", outcome)];
        let skipped = || run(Outcome::Skipped(String::new()));
        let failed = || run(Outcome::Failed(String::new()));
        let ok = || run(Outcome::Ok);
        assert_eq!(together(vec![skipped(), ok()]), ok());
        assert_eq!(together(vec![ok(), skipped()]), ok());
        assert_eq!(together(vec![ok(), failed()]), failed());
        assert_eq!(together(vec![failed(), ok()]), failed());
        assert_eq!(together(vec![skipped(), skipped()]), skipped());
    }
}
