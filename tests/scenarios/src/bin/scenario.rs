//! Plays one story of `tests/scenarios`; `cargo xtask scenario` starts it.

use std::cell::RefCell;
use std::num::NonZero;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use portcullis_scenarios::{AT_EVERY_POINT, Configuration, Run, STORIES, Story, Where, find, play};

const USAGE: &str = "\
usage: scenario --list
       scenario NAME [--seed N] [--configuration K] [--trace]

Plays the story NAME in every configuration of the machine: with a model that hoards, or, with
--seed, with one that draws from the seed N what it does. --configuration K plays it in the K-th
alone. --trace tells it line by line, in one configuration: the K-th, the one that the seed draws,
or the first.";

thread_local! {
    /// What this thread plays, for when it panics.
    static NOW: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What was asked for.
#[derive(Default)]
struct Asked {
    name: Option<String>,
    lists: bool,
    seed: Option<u64>,
    configuration: Option<usize>,
    tells: bool,
}

fn asked() -> Result<Asked, String> {
    let mut asked = Asked::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || {
            let word = words.next().ok_or(format!("{word} wants a number"))?;
            word.parse::<u64>()
                .map_err(|error| format!("{word}: {error}"))
        };
        match word.as_str() {
            "--list" => asked.lists = true,
            "--trace" => asked.tells = true,
            "--seed" => asked.seed = Some(number()?),
            "--configuration" => asked.configuration = Some(number()? as usize),
            _ if word.starts_with('-') || asked.name.is_some() => return Err(USAGE.into()),
            _ => asked.name = Some(word),
        }
    }
    Ok(asked)
}

fn list() {
    for story in STORIES.iter().chain(AT_EVERY_POINT) {
        println!("{:<24} {}", story.name, story.about);
        if let Where::Only { because, .. } = story.runs {
            let count = story.configurations().len();
            println!("{:<24}   in {count} configurations: {because}", "");
        }
    }
}

/// The configurations to play, with their numbers in the list of all.
fn chosen(story: &Story, asked: &Asked) -> Result<Vec<(usize, Configuration)>, String> {
    let all = Configuration::all();
    let numbered = all.iter().copied().enumerate();
    let played: Vec<_> = numbered.filter(|(_, it)| story.runs_in(it)).collect();
    if let Some(number) = asked.configuration {
        let found = played.into_iter().find(|(at, _)| *at == number);
        return found
            .map(|it| vec![it])
            .ok_or_else(|| format!("configuration {number} is none of {}'s", story.name));
    }
    match (asked.tells, asked.seed) {
        (false, _) => Ok(played),
        (true, None) => Ok(played.into_iter().take(1).collect()),
        (true, Some(seed)) => {
            let drawn = story.draw(seed);
            Ok(played.into_iter().filter(|(_, it)| *it == drawn).collect())
        }
    }
}

fn play_one(story: &Story, (number, configuration): &(usize, Configuration), asked: &Asked) {
    let name = story.name;
    let run = match asked.seed {
        Some(seed) => Run::chaotic(*configuration, seed),
        None => Run::hoarding(*configuration),
    };
    let mode = run.mode;
    let seed = asked
        .seed
        .map_or_else(String::new, |seed| format!(" --seed {seed}"));
    let what = format!("{name}, {mode:?}, configuration {number}: {configuration}");
    if asked.tells {
        println!("{what}");
    }
    NOW.set(format!(
        "{what}\nsee it by: cargo xtask scenario {name}{seed} --configuration {number} --trace"
    ));
    let tells = asked.tells;
    play(story, &Run { tells, ..run });
}

fn run() -> Result<(), String> {
    let asked = asked()?;
    if asked.lists {
        list();
        return Ok(());
    }
    let name = asked.name.as_deref().ok_or(USAGE)?;
    let story = find(name).ok_or(format!("there is no story {name}; --list names them"))?;
    let chosen = chosen(story, &asked)?;
    // Every configuration is a machine of its own.
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(chosen.len()) {
            scope.spawn(|| {
                while let Some(one) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    play_one(story, one, &asked);
                }
            });
        }
    });
    println!("{name} holds in {} configurations", chosen.len());
    Ok(())
}

fn main() -> ExitCode {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        usual(info);
        NOW.with_borrow(|now| {
            if !now.is_empty() {
                eprintln!("it did not hold: {now}");
            }
        });
    }));
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}
