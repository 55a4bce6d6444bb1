//! What a run has come to: a table of steps and the count of tests.

use std::time::Duration;

/// Tests that passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tests {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Tests {
    /// Adds the counts of a line of `cargo test`, if it is a `test result:` line.
    pub(crate) fn read(&mut self, line: &str) {
        let Some(result) = line.trim_start().strip_prefix("test result: ") else { return };
        for part in result.split(['.', ';']) {
            match part.trim().split_once(' ') {
                Some((number, "passed")) => self.passed += number.parse::<u64>().unwrap_or(0),
                Some((number, "failed")) => self.failed += number.parse::<u64>().unwrap_or(0),
                _ => {}
            }
        }
    }
}

/// How much of the output of a step's failed tests is repeated above the summary.
const FAILURE_LINES: usize = 200;

/// What failed tests printed, read from the output of `cargo test`: the lines from `failures:` to
/// the list of names, which has the same heading.
#[derive(Default)]
pub(crate) struct Failures {
    reading: bool,
    lines: Vec<String>,
}

impl Failures {
    pub(crate) fn read(&mut self, line: &str) {
        if line == "failures:" {
            self.reading = !self.reading;
        } else if self.reading && self.lines.len() < FAILURE_LINES {
            self.lines.push(line.to_owned());
        }
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines
    }
}

/// A finished step.
#[derive(Default)]
pub(crate) struct Line {
    pub(crate) name: String,
    /// What went wrong.
    pub(crate) failure: Option<String>,
    /// What its failed tests printed.
    pub(crate) output: Vec<String>,
    pub(crate) tests: Tests,
    pub(crate) took: Duration,
    /// Processor time of its programs. Zero if it started none.
    pub(crate) cpu: Duration,
}

/// All finished steps.
#[derive(Default)]
pub(crate) struct Summary {
    lines: Vec<Line>,
}

impl Summary {
    pub(crate) fn add(&mut self, line: Line) {
        self.lines.push(line);
    }

    /// Whether every step went well.
    pub(crate) fn is_good(&self) -> bool {
        self.lines.iter().all(|line| line.failure.is_none())
    }

    /// Tests over all steps. A step that failed without a failed test, because nothing compiled for
    /// example, counts as one, so that a bad run never ends with `0 failed`.
    pub(crate) fn tests(&self) -> Tests {
        self.lines.iter().fold(Tests::default(), |sum, line| Tests {
            passed: sum.passed + line.tests.passed,
            failed: sum.failed + line.tests.failed.max(u64::from(line.failure.is_some())),
        })
    }

    /// Prints what failed tests printed once more, because a log is read from its end, then the
    /// table and the counts.
    pub(crate) fn print(&self) {
        for line in self.lines.iter().filter(|line| !line.output.is_empty()) {
            println!("\nfailed tests of {}:\n{}", line.name, line.output.join("\n").trim());
        }
        let width = self.lines.iter().map(|line| line.name.len()).max().unwrap_or(0).max("step".len());
        let (name, passed, failed) = ("step", "passed", "failed");
        println!("\n{name:width$}  result  {:>7}  {:>7}  {passed:>6}  {failed:>6}", "seconds", "CPU s");
        for line in &self.lines {
            let result = if line.failure.is_none() { "ok" } else { "FAILED" };
            let (seconds, cpu, tests) = (line.took.as_secs_f64(), line.cpu.as_secs_f64(), line.tests);
            print!("{:width$}  {result:6}  {seconds:7.1}  {cpu:7.0}", line.name);
            print!("  {:6}  {:6}", tests.passed, tests.failed);
            println!("{}", line.failure.as_ref().map(|why| format!("  {why}")).unwrap_or_default());
        }
        let total: Duration = self.lines.iter().map(|line| line.took).sum();
        let cpu: Duration = self.lines.iter().map(|line| line.cpu).sum();
        let tests = self.tests();
        println!("\nin {:.0} s, {:.0} CPU s:", total.as_secs_f64(), cpu.as_secs_f64());
        println!("{} passed, {} failed", tests.passed, tests.failed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_added_up_and_others_are_not() {
        let mut tests = Tests::default();
        tests.read(
            "test result: ok. 8 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.06s",
        );
        tests.read(
            "test result: FAILED. 9 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 3s",
        );
        tests.read("test a_test_named_5_passed ... ok");
        assert_eq!(tests, Tests { passed: 17, failed: 2 });
    }

    #[test]
    fn what_failed_tests_printed_is_kept() {
        let mut failures = Failures::default();
        let output = "test a ... FAILED\n\nfailures:\n\n---- a stdout ----\nError: late\n\n\nfailures:\n    a\n\n\
                      test result: FAILED. 1 passed; 1 failed";
        output.lines().for_each(|line| failures.read(line));
        assert_eq!(failures.into_lines().join("\n").trim(), "---- a stdout ----\nError: late");
    }

    #[test]
    fn a_step_that_failed_without_a_test_counts() {
        let mut summary = Summary::default();
        let line = |failure: Option<&str>, passed, failed| Line {
            name: "x".to_owned(),
            failure: failure.map(str::to_owned),
            tests: Tests { passed, failed },
            ..Line::default()
        };
        summary.add(line(None, 5, 0));
        summary.add(line(Some("exit status: 101"), 0, 0));
        summary.add(line(Some("exit status: 101"), 3, 2));
        assert!(!summary.is_good());
        assert_eq!(summary.tests(), Tests { passed: 8, failed: 3 });
    }
}
