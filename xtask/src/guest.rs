//! One run of QEMU, from its start to the verdict.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::console::{self, End};
use crate::stop::Stop;

/// How long QEMU may take to end by itself after the image's `end:` line. Not every image can
/// power its machine off: before it has read the tree it does not know how.
const POWER_OFF: Duration = Duration::from_secs(2);
/// More than this on the console is an image that prints without end.
const CONSOLE_LIMIT_BYTES: usize = 16 << 20;

/// Who sees the console while the image runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Echo {
    /// The person at the terminal, who may also type.
    Live,
    /// Nobody.
    Quiet,
    /// Nobody, but somebody answers.
    Typed(&'static Typist),
}

/// Who answers what the console asks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Typist {
    /// Questions with the keys that answer them, in the order in which they are to come.
    pub(crate) answers: &'static [(&'static str, &'static [u8])],
}

/// A typist at work.
struct Hands {
    keyboard: ChildStdin,
    left: &'static [(&'static str, &'static [u8])],
    /// How much of the console was read.
    read_bytes: usize,
}

impl Hands {
    /// Answers what was asked by now.
    fn answer(&mut self, console: &[u8]) {
        while let Some(((question, keys), left)) = self.left.split_first() {
            let unread = console.get(self.read_bytes..).unwrap_or_default();
            let mut parts = unread.windows(question.len());
            let Some(at) = parts.position(|part| part == question.as_bytes()) else {
                return;
            };
            self.read_bytes += at + question.len();
            self.left = left;
            // A machine that is gone needs no answer.
            let _ = self.keyboard.write_all(keys);
            let _ = self.keyboard.flush();
        }
    }
}

/// What is left of a run.
#[derive(Debug)]
pub(crate) struct Ran {
    /// All that the image printed.
    pub(crate) console: String,
    stopped: Stopped,
}

#[derive(Debug)]
enum Stopped {
    /// QEMU ended by itself.
    Ended(ExitStatus),
    /// We ended it, `POWER_OFF` after the `end:` line.
    AfterEndLine,
    /// We ended it when its time was over.
    TimedOut(Duration),
    /// We ended it when its console had grown past all bounds.
    Flooded,
}

impl Ran {
    /// How the image ended.
    ///
    /// # Errors
    ///
    /// A sentence, if it did not end in order: time-out, QEMU died, endless output.
    pub(crate) fn end(&self) -> Result<End, String> {
        match &self.stopped {
            Stopped::Ended(status) if status.success() => Ok(console::end(&self.console)),
            Stopped::AfterEndLine => Ok(console::end(&self.console)),
            Stopped::Ended(status) => Err(format!("QEMU died ({status})")),
            Stopped::TimedOut(limit) => Err(format!(
                "no `end:` line within {} s; the last line is `{}`",
                limit.as_secs(),
                match console::end(&self.console) {
                    End::Missing(last) => last,
                    End::Done | End::Refused(_) => String::new(),
                }
            )),
            Stopped::Flooded => Err(format!(
                "the console grew past {CONSOLE_LIMIT_BYTES} bytes without an `end:` line"
            )),
        }
    }
}

/// QEMU, which does not outlive us.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only on a child that has already ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs `qemu` until it ends, its time is over, or its last word is said. `limit` of `None` waits
/// for ever. `look` is called at the end; a QEMU that does not end by itself is then still there.
///
/// # Errors
///
/// `CouldNotRun` if it does not start.
pub(crate) fn run(
    mut qemu: Command,
    limit: Option<Duration>,
    echo: Echo,
    look: impl FnOnce(),
) -> Result<Ran, Stop> {
    let program = qemu.get_program().to_string_lossy().into_owned();
    let broken = |error| Stop::CouldNotRun(format!("`{program}` does not start: {error}"));
    match echo {
        Echo::Live => {}
        Echo::Quiet => drop(qemu.stdin(Stdio::null())),
        Echo::Typed(_) => drop(qemu.stdin(Stdio::piped())),
    }
    let mut running = Running(qemu.stdout(Stdio::piped()).spawn().map_err(broken)?);
    let mut hands = match (echo, running.0.stdin.take()) {
        (Echo::Typed(typist), Some(keyboard)) => Some(Hands {
            keyboard,
            left: typist.answers,
            read_bytes: 0,
        }),
        _ => None,
    };
    let (sender, receiver) = channel();
    if let Some(stdout) = running.0.stdout.take() {
        thread::spawn(move || forward(stdout, &sender));
    }
    let mut bytes = Vec::new();
    let ended_by_us = listen(&receiver, limit, &mut bytes, |chunk, all| {
        show(chunk, echo);
        if let Some(hands) = &mut hands {
            hands.answer(all);
        }
    });
    look();
    let stopped = match ended_by_us {
        Some(stopped) => stopped,
        // It has closed its stdout: it is ending.
        None => Stopped::Ended(running.0.wait().map_err(broken)?),
    };
    Ok(Ran {
        console: String::from_utf8_lossy(&bytes).into_owned(),
        stopped,
    })
}

/// Sends on what QEMU prints, until it closes its end.
fn forward(mut from: impl Read, to: &Sender<Vec<u8>>) {
    let mut chunk = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut chunk) {
        let Some(read) = chunk.get(..length) else {
            return;
        };
        if to.send(read.to_vec()).is_err() {
            return;
        }
    }
}

/// Collects the console in `bytes`, at most a chunk more than `CONSOLE_LIMIT_BYTES`; says why QEMU must be ended, or nothing if it ends by itself.
fn listen(
    from: &Receiver<Vec<u8>>,
    limit: Option<Duration>,
    bytes: &mut Vec<u8>,
    mut heard: impl FnMut(&[u8], &[u8]),
) -> Option<Stopped> {
    let start = Instant::now();
    loop {
        let over = may_be_over(bytes);
        let left = limit.map(|limit| limit.saturating_sub(start.elapsed()));
        let wait = match (over, left) {
            (true, Some(left)) => left.min(POWER_OFF),
            (true, None) => POWER_OFF,
            (false, Some(left)) => left,
            (false, None) => Duration::MAX,
        };
        match from.recv_timeout(wait) {
            Ok(chunk) => {
                bytes.extend_from_slice(&chunk);
                heard(&chunk, bytes);
            }
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) if over => return Some(Stopped::AfterEndLine),
            Err(RecvTimeoutError::Timeout) => {
                return Some(Stopped::TimedOut(limit.unwrap_or_default()));
            }
        }
        if bytes.len() > CONSOLE_LIMIT_BYTES {
            return Some(Stopped::Flooded);
        }
    }
}

fn may_be_over(bytes: &[u8]) -> bool {
    // The last lines decide; an `end:` line is short.
    let tail = bytes.get(bytes.len().saturating_sub(4096)..);
    console::may_be_over(&String::from_utf8_lossy(tail.unwrap_or_default()))
}

fn show(chunk: &[u8], echo: Echo) {
    if echo == Echo::Live {
        let mut out = std::io::stdout().lock();
        // A closed stdout takes nothing from the verdict.
        let _ = out.write_all(chunk).and_then(|()| out.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell that stands in for QEMU.
    fn shell(script: &str, limit: Option<Duration>) -> Ran {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        run(command, limit, Echo::Quiet, || ()).expect("sh starts")
    }

    const LONG: Option<Duration> = Some(Duration::from_secs(600));
    const SHORT: Option<Duration> = Some(Duration::from_millis(300));

    #[test]
    fn a_machine_that_powers_off_after_end_ok_is_done() {
        let ran = shell("printf 'hello\\r\\nend: ok\\r\\n'", LONG);
        assert_eq!(ran.end(), Ok(End::Done));
        assert_eq!(ran.console, "hello\r\nend: ok\r\n");
    }

    #[test]
    fn a_machine_that_cannot_power_off_is_ended_after_its_end_line() {
        for limit in [LONG, None] {
            let ran = shell("echo 'end: no device tree'; exec sleep 30", limit);
            assert!(matches!(ran.stopped, Stopped::AfterEndLine));
            assert_eq!(ran.end(), Ok(End::Refused("no device tree".into())));
        }
    }

    #[test]
    fn a_guest_that_prints_an_end_line_ends_nothing() {
        let ran = shell("echo 'end: ok'; sleep 0.2; echo 'guest0| more'", LONG);
        assert_eq!(ran.end(), Ok(End::Missing("guest0| more".into())));
    }

    #[test]
    fn a_typist_answers_each_question_once_and_in_order() {
        const TYPIST: Typist = Typist {
            answers: &[("more?", b"y\n"), ("more?", b"n\n"), ("sure?", b"z\n")],
        };
        let mut command = Command::new("sh");
        let script = "printf 'sure? mo'; sleep 0.1; printf 're?'; read a; printf \" [$a] more? \"; \
                      read a; printf \"[$a] more? sure?\"; read a; echo \" [$a]\"; echo 'end: ok'";
        command.args(["-c", script]);
        let ran = run(command, LONG, Echo::Typed(&TYPIST), || ()).expect("sh starts");
        let expected = "sure? more? [y] more? [n] more? sure? [z]\nend: ok\n";
        assert_eq!(ran.console, expected);
        assert_eq!(ran.end(), Ok(End::Done));
    }

    #[test]
    fn a_silent_machine_runs_into_its_time_limit() {
        let ran = shell("echo booting; exec sleep 30", SHORT);
        let why = ran.end().expect_err("a time-out");
        assert!(why.contains("the last line is `booting`"), "{why}");
    }

    #[test]
    fn a_machine_that_prints_without_end_runs_into_a_limit_too() {
        let ran = shell("exec yes", LONG);
        let why = ran.end().expect_err("too much");
        assert!(why.contains("grew past"), "{why}");
    }

    #[test]
    fn a_qemu_that_dies_is_a_failure_whatever_was_printed() {
        let ran = shell("echo 'end: ok'; exit 3", LONG);
        let why = ran.end().expect_err("QEMU died");
        assert!(why.contains("QEMU died"), "{why}");
    }

    #[test]
    fn the_look_at_the_end_finds_a_machine_that_cannot_power_off_still_there() {
        let folder = std::env::temp_dir().join(format!("portcullis-look-{}", std::process::id()));
        let mut command = Command::new("sh");
        let script = "echo $$ > \"$1\"; echo 'end: ok'; exec sleep 30";
        command.args(["-c", script, "sh"]).arg(&folder);
        let mut is_there = false;
        run(command, LONG, Echo::Quiet, || {
            let id = std::fs::read_to_string(&folder).unwrap_or_default();
            is_there = std::path::Path::new("/proc").join(id.trim()).exists();
        })
        .expect("sh starts");
        std::fs::remove_file(&folder).expect("the shell wrote it");
        assert!(is_there);
    }

    #[test]
    fn a_qemu_that_is_not_there_could_not_run() {
        let missing = Command::new("portcullis-no-such-program");
        let stop = run(missing, None, Echo::Quiet, || ()).expect_err("no such program");
        assert!(matches!(stop, Stop::CouldNotRun(_)));
    }
}
