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
pub fn compare(model: &Log, qemu: &Log, exceptions: &[&Exception]) -> Verdict {
    let mut verdict = Verdict::default();
    if !model.names().eq(qemu.names()) {
        let objection = "the image did not run the programs that the model ran";
        verdict.objections.push(objection.to_owned());
        return verdict;
    }
    for (on_model, on_qemu) in model.programs.iter().zip(&qemu.programs) {
        verdict.judge(on_model, on_qemu, exceptions);
    }
    let named = exceptions.iter().flat_map(|exception| exception.programs);
    for unknown in named.filter(|name| model.names().all(|known| known != **name)) {
        let objection = format!("an exception is for {unknown}, and there is no such program");
        verdict.objections.push(objection);
    }
    verdict
}

impl Verdict {
    fn judge(&mut self, model: &ProgramLog, qemu: &ProgramLog, exceptions: &[&Exception]) {
        let name = model.name.as_str();
        let is_for_this = |exception: &&&Exception| exception.programs.contains(&name);
        let exceptions: Vec<_> = exceptions.iter().filter(is_for_this).collect();
        let difference = Difference::between(&model.lines, &qemu.lines);
        let text = &difference.text;
        let objection = match exceptions.as_slice() {
            [] if model.lines == qemu.lines => {
                self.agreed += 1;
                return;
            }
            [] => format!("{name} differs:\n{text}"),
            [_, _, ..] => format!("{name} has more than one exception"),
            [_] if model.lines == qemu.lines => {
                format!("{name} does not differ; its exception is not needed")
            }
            [exception] if difference.is(exception) => {
                self.excepted += 1;
                return;
            }
            [_] => format!("{name} differs in another way than its exception says:\n{text}"),
        };
        self.objections.push(objection);
    }
}

/// How what QEMU showed differs from what the model showed.
struct Difference {
    only_model: Vec<String>,
    only_qemu: Vec<String>,
    /// All lines, each with whose it is.
    text: String,
}

impl Difference {
    fn between(model: &[String], qemu: &[String]) -> Self {
        let operations = capture_diff_slices(Algorithm::Myers, model, qemu);
        let changes = operations
            .iter()
            .flat_map(|it| it.iter_changes(model, qemu));
        let (mut only_model, mut only_qemu, mut text) = (Vec::new(), Vec::new(), String::new());
        for change in changes {
            let line = change.value();
            let whose = match change.tag() {
                ChangeTag::Delete => {
                    only_model.push(line.clone());
                    "model"
                }
                ChangeTag::Insert => {
                    only_qemu.push(line.clone());
                    "qemu "
                }
                ChangeTag::Equal => "both ",
            };
            text += &format!("  {whose}: {line}\n");
        }
        Self {
            only_model,
            only_qemu,
            text,
        }
    }

    fn is(&self, exception: &Exception) -> bool {
        self.only_model == exception.model && self.only_qemu == exception.qemu
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exceptions::Source;

    fn log(programs: &[(&str, &[&str])]) -> Log {
        let program = |(name, lines): &(&str, &[&str])| ProgramLog {
            name: (*name).to_owned(),
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
        };
        Log {
            arena: 0,
            programs: programs.iter().map(program).collect(),
        }
    }

    const KNOWN: Exception = Exception {
        programs: &["a"],
        source: Source::Listed(5),
        why: "no record",
        model: &["event"],
        qemu: &[],
    };

    #[test]
    fn the_same_lines_agree() {
        let both = log(&[("a", &["x", "y"]), ("b", &[])]);
        let verdict = compare(&both, &both, &[]);
        assert_eq!((verdict.agreed, verdict.excepted), (2, 0));
        assert!(verdict.objections.is_empty());
    }

    #[test]
    fn a_difference_without_a_name_is_an_objection() {
        let model = log(&[("a", &["x", "event", "y"]), ("b", &["z"])]);
        let qemu = log(&[("a", &["x", "y"]), ("b", &["z"])]);
        let verdict = compare(&model, &qemu, &[]);
        assert_eq!(verdict.agreed, 1);
        let [objection] = verdict.objections.as_slice() else {
            panic!("{verdict:?}");
        };
        assert!(objection.starts_with("a differs:"), "{objection}");
        assert!(objection.contains("model: event"), "{objection}");
    }

    #[test]
    fn lines_in_another_order_differ() {
        let model = log(&[("a", &["x", "y"])]);
        let qemu = log(&[("a", &["y", "x"])]);
        assert_eq!(compare(&model, &qemu, &[]).objections.len(), 1);
    }

    #[test]
    fn a_named_difference_is_no_objection() {
        let model = log(&[("a", &["x", "event", "y"])]);
        let qemu = log(&[("a", &["x", "y"])]);
        let verdict = compare(&model, &qemu, &[&KNOWN]);
        assert_eq!((verdict.agreed, verdict.excepted), (0, 1));
        assert!(verdict.objections.is_empty());
    }

    #[test]
    fn an_exception_excuses_no_other_line() {
        let model = log(&[("a", &["x", "event", "y"])]);
        let qemu = log(&[("a", &["x", "z"])]);
        let verdict = compare(&model, &qemu, &[&KNOWN]);
        assert_eq!(verdict.excepted, 0);
        assert!(
            verdict.objections[0].contains("in another way"),
            "{verdict:?}"
        );
    }

    #[test]
    fn an_exception_that_is_not_needed_is_an_objection() {
        let both = log(&[("a", &["x"])]);
        let verdict = compare(&both, &both, &[&KNOWN]);
        assert!(
            verdict.objections[0].contains("is not needed"),
            "{verdict:?}"
        );
    }

    #[test]
    fn an_exception_for_no_program_and_two_for_one_are_objections() {
        let both = log(&[("b", &["x"])]);
        let verdict = compare(&both, &both, &[&KNOWN]);
        assert!(
            verdict.objections[0].contains("no such program"),
            "{verdict:?}"
        );
        let model = log(&[("a", &["event"])]);
        let qemu = log(&[("a", &[])]);
        let verdict = compare(&model, &qemu, &[&KNOWN, &KNOWN]);
        assert!(
            verdict.objections[0].contains("more than one"),
            "{verdict:?}"
        );
    }

    #[test]
    fn an_image_that_did_not_run_every_program_is_an_objection() {
        let model = log(&[("a", &["x"]), ("b", &["x"])]);
        let qemu = log(&[("a", &["x"])]);
        let verdict = compare(&model, &qemu, &[]);
        assert_eq!((verdict.agreed, verdict.objections.len()), (0, 1));
    }
}
