//! Comparing two logs, program by program.

use similar::{Algorithm, ChangeTag, capture_diff_slices};

use crate::exceptions::Exception;
use crate::log::{Log, ProgramLog};

/// What a comparison came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verdict {
    /// How many programs showed the same.
    pub agreed: usize,
    /// How many differed exactly as an exception says.
    pub excepted: usize,
    /// What is wrong, a text each.
    pub objections: Vec<String>,
}

/// Compares what the model and QEMU showed.
///
/// `exceptions` are the differences that there must be, and no others.
pub fn compare(model: &Log, qemu: &Log, exceptions: &[Exception]) -> Verdict {
    let mut verdict = Verdict::default();
    let names =
        |log: &Log| -> Vec<String> { log.programs.iter().map(|it| it.name.clone()).collect() };
    if names(model) != names(qemu) {
        let objection = "the image did not run the programs that the model ran";
        verdict.objections.push(objection.to_owned());
        return verdict;
    }
    for (on_model, on_qemu) in model.programs.iter().zip(&qemu.programs) {
        judge(on_model, on_qemu, exceptions, &mut verdict);
    }
    let known = names(model);
    for exception in exceptions {
        let unknown = exception.programs.iter();
        for name in unknown.filter(|name| !known.iter().any(|it| it == *name)) {
            let objection = format!("an exception is for {name}, and there is no such program");
            verdict.objections.push(objection);
        }
    }
    verdict
}

fn judge(model: &ProgramLog, qemu: &ProgramLog, exceptions: &[Exception], verdict: &mut Verdict) {
    let name = model.name.as_str();
    let of_this = |exception: &&Exception| exception.programs.contains(&name);
    let mut exceptions = exceptions.iter().filter(of_this);
    let exception = exceptions.next();
    if exceptions.next().is_some() {
        let objection = format!("{name} has more than one exception");
        verdict.objections.push(objection);
    }
    let (only_model, only_qemu, text) = difference(&model.lines, &qemu.lines);
    let objection = match exception {
        None if model.lines == qemu.lines => {
            verdict.agreed += 1;
            return;
        }
        None => format!("{name} differs:\n{text}"),
        Some(_) if model.lines == qemu.lines => {
            format!("{name} does not differ any more; its exception is not needed")
        }
        Some(exception)
            if exception.model == only_model.as_slice()
                && exception.qemu == only_qemu.as_slice() =>
        {
            verdict.excepted += 1;
            return;
        }
        Some(_) => format!("{name} differs in another way than its exception says:\n{text}"),
    };
    verdict.objections.push(objection);
}

/// The lines that the model alone has, those that QEMU alone has, and all of them as a text.
fn difference(model: &[String], qemu: &[String]) -> (Vec<String>, Vec<String>, String) {
    let operations = capture_diff_slices(Algorithm::Myers, model, qemu);
    let (mut only_model, mut only_qemu, mut text) = (Vec::new(), Vec::new(), String::new());
    for change in operations
        .iter()
        .flat_map(|it| it.iter_changes(model, qemu))
    {
        let line = change.value().clone();
        let (whose, only) = match change.tag() {
            ChangeTag::Delete => ("model", Some(&mut only_model)),
            ChangeTag::Insert => ("qemu ", Some(&mut only_qemu)),
            ChangeTag::Equal => ("both ", None),
        };
        text += &format!("  {whose}: {line}\n");
        if let Some(only) = only {
            only.push(line);
        }
    }
    (only_model, only_qemu, text)
}
