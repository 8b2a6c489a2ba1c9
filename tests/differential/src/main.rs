//! `differential CONSOLE`: compares what an image printed on QEMU with what the model shows.
//!
//! Exit status: 0 they agree, save for the named exceptions; 1 they do not; 2 the file cannot be
//! read.

use std::path::Path;
use std::process::ExitCode;

use differential::{Exception, Log, Source, compare, exceptions, run_on_model};

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("which file holds what the image printed?");
        return ExitCode::from(2);
    };
    match judge(Path::new(&path)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(why) => {
            eprintln!("{}: {why}", path.display());
            ExitCode::from(2)
        }
    }
}

fn judge(path: &Path) -> Result<bool, String> {
    let console = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let qemu = Log::read(&console)?;
    let model = run_on_model(qemu.arena);
    let exceptions: Vec<&Exception> = exceptions().collect();
    let verdict = compare(&model, &qemu, &exceptions);
    for exception in exceptions {
        println!("exception ({}): {}", told(exception.source), exception.why);
        println!("  {}", exception.programs.join(", "));
    }
    for objection in &verdict.objections {
        println!("FAILED {objection}");
    }
    println!(
        "{} programs: {} agree, {} differ as an exception says, {} objections",
        model.programs.len(),
        verdict.agreed,
        verdict.excepted,
        verdict.objections.len()
    );
    Ok(verdict.objections.is_empty())
}

fn told(source: Source) -> String {
    match source {
        Source::Listed(item) => format!("known, item {item}"),
        Source::Found(section) => format!("found here, {section}"),
        Source::Lawful(section) => format!("lawful, {section}"),
    }
}
