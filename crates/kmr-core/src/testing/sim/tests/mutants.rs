//! The judge has to see each defect that was ever feared: they are enabled one at a time, and each
//! has to be found.

use super::super::Simulation;
use super::standard::{exact, standard};
use crate::util::mutants::{Mutant, switch};

/// Seeds in which a defect has to show.
const SEEDS: u64 = 4000;

/// Finds a defect; the rule that was broken says by what.
fn found(defect: Mutant, rules: &[&str]) {
    found_by(&standard(), defect, rules);
}

/// The same in exactly-once mode.
fn found_exactly(defect: Mutant, rules: &[&str]) {
    found_by(&exact(), defect, rules);
}

fn found_by(simulation: &Simulation, defect: Mutant, rules: &[&str]) {
    switch::set(Some(defect));
    let result = simulation.check(0..SEEDS);
    switch::set(None);
    match result {
        Ok(summary) => panic!("{defect:?} was not seen: {summary}"),
        Err(failure) => {
            let rule = failure.violation.rule;
            println!("{defect:?} is seen with seed {}: {}", failure.seed, failure.violation);
            assert!(rules.iter().any(|known| rule.starts_with(known)), "by the wrong rule: {failure}");
        }
    }
}

#[test]
fn the_maximum_offset_is_committed() {
    found(Mutant::CommitsMaximum, &["C1"]);
}

#[test]
fn an_acknowledgement_is_paired_with_the_wrong_offset() {
    found(Mutant::WrongOffset, &["C1"]);
}

#[test]
fn deliveries_in_flight_are_dropped_on_a_revoke() {
    found(
        Mutant::DropsInFlight,
        &["nothing is lost", "what is finished is committed", "nothing comes twice"],
    );
}

#[test]
fn kept_partitions_are_torn_down() {
    found(
        Mutant::TearsDownKept,
        &["nothing is lost", "R1", "what is finished is committed", "nothing comes twice"],
    );
}

#[test]
fn a_lost_assignment_is_committed() {
    found(Mutant::CommitsLost, &["C5"]);
}

#[test]
fn a_dead_letter_is_finished_before_it_is_acknowledged() {
    found(Mutant::FinishesEarly, &["C1"]);
}

#[test]
fn a_late_report_counts_for_a_later_assignment() {
    found(Mutant::AcceptsLateReports, &["C1", "no failure without a reason"]);
}

#[test]
fn offsets_are_taken_to_be_dense() {
    found(Mutant::ExpectsDense, &["what is finished is committed"]);
}

#[test]
fn partitions_are_drained_inside_the_callback() {
    found(Mutant::DrainsInCallback, &["R3"]);
}

#[test]
fn a_commit_goes_without_the_metadata_in_force() {
    found(Mutant::ForgetsMetadata, &["C7"]);
}

#[test]
fn a_commit_does_not_wait_for_the_one_before() {
    found(Mutant::CommitsTwice, &["C8"]);
}

#[test]
fn records_of_an_earlier_assignment_are_taken_for_the_first_ones() {
    found(Mutant::ReadsTooEarly, &["C1", "nothing is lost"]);
}

#[test]
fn a_mark_of_another_offset_is_honoured() {
    found_exactly(
        Mutant::AcceptsForeignMetadata,
        &["E2", "E1", "each row once", "nothing is lost", "no failure without a reason"],
    );
}

#[test]
fn a_block_is_inserted_before_its_dead_letters() {
    found_exactly(Mutant::InsertsBeforeDeadLetters, &["E3", "C1"]);
}

#[test]
fn a_block_that_is_made_again_has_other_rows() {
    found_exactly(Mutant::ChangesRows, &["E4"]);
}

#[test]
fn the_rest_of_a_block_is_stored_before_the_letters_of_what_was_refused() {
    found_exactly(Mutant::ExcludesRowsEarly, &["E4"]);
}

#[test]
fn a_record_is_finished_by_the_letter_of_one_of_its_rows() {
    found_exactly(Mutant::FinishesWithDeadLetter, &["C1"]);
}

#[test]
fn a_block_that_is_made_again_ends_anywhere() {
    found_exactly(Mutant::EndsAnywhere, &["no failure without a reason", "E4"]);
}

#[test]
fn a_revoke_plans_new_blocks() {
    found_exactly(Mutant::PlansOnRevoke, &["E9"]);
}

#[test]
fn a_block_that_is_made_again_gets_a_new_token() {
    found_exactly(Mutant::ChangesToken, &["E1, a token"]);
}

#[test]
fn a_token_is_used_without_a_plan() {
    found_exactly(Mutant::InsertsWithoutPlan, &["E1, a token"]);
}

#[test]
fn a_plan_is_committed_after_the_insert() {
    found_exactly(Mutant::PlansAfterInsert, &["E1, a token"]);
}
