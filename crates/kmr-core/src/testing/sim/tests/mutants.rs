//! Enables each mutant alone. The invariant checker must find all of them.

use super::super::Simulation;
use super::standard::{exact, folded, folded_exactly_once, standard};
use crate::util::mutants::{Mutant, switch};

/// Number of seeds within which the invariant checker must find a mutant.
const SEEDS: u64 = 4000;

/// Checks that a run breaks one of `rules` when the mutant is enabled.
fn assert_found(mutant: Mutant, rules: &[&str]) {
    assert_found_by(&standard(), mutant, rules);
}

/// Checks the same in exactly-once mode.
fn assert_found_exactly_once(mutant: Mutant, rules: &[&str]) {
    assert_found_by(&exact(), mutant, rules);
}

fn assert_found_by(simulation: &Simulation, mutant: Mutant, rules: &[&str]) {
    switch::set(Some(mutant));
    let result = simulation.check(0..SEEDS);
    switch::set(None);
    match result {
        Ok(summary) => panic!("{mutant:?} was not found: {summary}"),
        Err(failure) => {
            let rule = failure.violation.rule;
            println!("{mutant:?} is found with seed {}: {}", failure.seed, failure.violation);
            assert!(rules.iter().any(|known| rule.starts_with(known)), "another rule was broken: {failure}");
        }
    }
}

#[test]
fn the_maximum_offset_is_committed() {
    assert_found(Mutant::CommitsMaximum, &["C1"]);
}

#[test]
fn an_acknowledgement_is_paired_with_the_wrong_offset() {
    assert_found(Mutant::WrongOffset, &["C1"]);
}

#[test]
fn a_commit_that_failed_for_good_is_sent_again() {
    assert_found(Mutant::RetriesFailedCommits, &["C4 a permanent failure ends the consumer"]);
}

#[test]
fn records_that_were_read_are_dropped_by_a_reset() {
    assert_found(Mutant::ResetsBeforeMapping, &["no record that was read is skipped"]);
}

#[test]
fn a_poll_that_returns_nothing_that_it_took_counts_as_an_empty_queue() {
    let rules = ["no lost record", "R1", "finished records are committed", "L3"];
    assert_found(Mutant::SleepsAfterStrays, &rules);
}

#[test]
fn a_partition_that_is_not_fetched_is_not_noticed() {
    assert_found(Mutant::IgnoresUnread, &["no lost record", "finished records are committed"]);
}

#[test]
fn deliveries_in_flight_are_dropped_on_a_revoke() {
    assert_found(
        Mutant::DropsInFlight,
        &[
            "no lost record",
            "finished records are committed",
            "no duplicates without a fault",
            "a bounded run completes its partitions",
        ],
    );
}

#[test]
fn kept_partitions_are_stopped() {
    assert_found(
        Mutant::TearsDownKept,
        &["no lost record", "R1", "finished records are committed", "no duplicates without a fault"],
    );
}

#[test]
fn fetched_records_are_not_charged_to_the_memory_budget() {
    assert_found(Mutant::ChargesNothing, &["M1 the memory budget holds"]);
}

#[test]
fn a_lost_assignment_is_committed() {
    assert_found(Mutant::CommitsLost, &["C5"]);
}

#[test]
fn a_member_stays_that_the_group_has_removed() {
    assert_found(Mutant::StaysWithoutGroup, &["C5 a removed member ends", "finished records are committed"]);
}

#[test]
fn a_member_stays_that_the_group_has_removed_in_exactly_once_mode() {
    let rules = ["C5 a removed member ends", "finished records are committed", "no lost record"];
    assert_found_exactly_once(Mutant::StaysWithoutGroup, &rules);
}

#[test]
fn a_dead_letter_is_finished_before_it_is_acknowledged() {
    assert_found(Mutant::FinishesEarly, &["C1"]);
}

#[test]
fn a_late_report_counts_for_a_later_assignment() {
    assert_found(Mutant::AcceptsLateReports, &["C1", "no failure without a reason"]);
}

#[test]
fn offsets_are_expected_without_gaps() {
    assert_found(Mutant::ExpectsDense, &["finished records are committed"]);
}

#[test]
fn partitions_are_drained_inside_the_callback() {
    assert_found(Mutant::DrainsInCallback, &["R3"]);
}

#[test]
fn a_commit_lacks_the_metadata_in_force() {
    assert_found(Mutant::ForgetsMetadata, &["C7"]);
}

#[test]
fn a_commit_does_not_wait_for_the_previous_one() {
    assert_found(Mutant::CommitsTwice, &["C8"]);
}

#[test]
fn records_of_an_earlier_assignment_count_as_the_first_ones() {
    assert_found(Mutant::ReadsTooEarly, &["C1", "no lost record", "a bounded run stops at its ends"]);
}

#[test]
fn commit_metadata_of_another_offset_is_accepted() {
    assert_found_exactly_once(
        Mutant::AcceptsForeignMetadata,
        &["E2", "E1", "each row once", "no lost record", "no failure without a reason"],
    );
}

#[test]
fn a_block_is_inserted_before_its_dead_letters() {
    assert_found_exactly_once(Mutant::InsertsBeforeDeadLetters, &["E3", "C1"]);
}

#[test]
fn a_rebuilt_block_has_other_rows() {
    assert_found_exactly_once(Mutant::ChangesRows, &["E4"]);
}

#[test]
fn accepted_rows_are_stored_before_the_dead_letters_of_rejected_rows() {
    assert_found_exactly_once(Mutant::ExcludesRowsEarly, &["E4"]);
}

#[test]
fn the_dead_letter_of_one_row_finishes_its_record() {
    assert_found_exactly_once(Mutant::FinishesWithDeadLetter, &["C1"]);
}

#[test]
fn a_rebuilt_block_ends_elsewhere() {
    assert_found_exactly_once(Mutant::EndsAnywhere, &["no failure without a reason", "E4"]);
}

#[test]
fn a_revoke_plans_new_blocks() {
    assert_found_exactly_once(Mutant::PlansOnRevoke, &["E9"]);
}

#[test]
fn a_rebuilt_block_gets_a_new_token() {
    assert_found_exactly_once(Mutant::ChangesToken, &["E1 plan before insert"]);
}

#[test]
fn a_token_is_used_without_a_plan() {
    assert_found_exactly_once(Mutant::InsertsWithoutPlan, &["E1 plan before insert"]);
}

#[test]
fn a_member_commits_on_after_a_commit_that_may_come_late() {
    assert_found_exactly_once(Mutant::CommitsAfterLost, &["each row once", "C1", "E1"]);
}

#[test]
fn a_plan_is_committed_after_the_insert() {
    assert_found_exactly_once(Mutant::PlansAfterInsert, &["E1 plan before insert"]);
}

#[test]
fn a_rejected_row_of_several_records_becomes_one_dead_letter() {
    assert_found_by(&folded(), Mutant::LosesMergedClaims, &["C1"]);
}

#[test]
fn a_rejected_row_of_several_records_becomes_one_dead_letter_in_exactly_once_mode() {
    assert_found_by(&folded_exactly_once(), Mutant::LosesMergedClaims, &["C1", "E4"]);
}

#[test]
fn a_split_batch_finishes_records_of_its_other_half() {
    assert_found_by(&folded(), Mutant::SplitsWithoutClaims, &["C1"]);
}

#[test]
fn a_split_batch_finishes_records_of_its_other_half_in_exactly_once_mode() {
    assert_found_by(&folded_exactly_once(), Mutant::SplitsWithoutClaims, &["C1", "E1", "E3", "E4"]);
}

#[test]
fn a_discarded_batch_is_counted_again_when_its_records_are_read_again() {
    let rules = ["C1", "no failure without a reason", "a folded row"];
    assert_found_by(&folded(), Mutant::KeepsDiscarded, &rules);
}

#[test]
fn a_folded_block_is_counted_again_under_a_new_token_when_it_is_rebuilt() {
    assert_found_by(&folded_exactly_once(), Mutant::ChangesToken, &["E1 plan before insert"]);
}

#[test]
fn a_rebuilt_block_of_folded_rows_has_other_rows() {
    assert_found_by(&folded_exactly_once(), Mutant::ChangesRows, &["E4"]);
}

#[test]
fn a_bounded_run_ends_before_its_records_are_mapped() {
    assert_found(Mutant::EndsUnmapped, &["a bounded run completes its partitions"]);
}

#[test]
fn a_shutdown_commits_what_the_group_has_given_away() {
    assert_found(Mutant::DrainsOvertaken, &["C5", "finished records are committed"]);
}

#[test]
fn a_client_is_renewed_without_a_drain() {
    assert_found(Mutant::RenewsWithoutDrain, &["no duplicates without a fault"]);
}

#[test]
fn the_end_of_a_bounded_run_moves() {
    assert_found(Mutant::MovesEnds, &["a bounded run stops at its ends"]);
}

#[test]
fn a_chosen_starting_position_is_not_committed() {
    assert_found(Mutant::ForgetsChosenStart, &["finished records are committed", "no lost record"]);
}

#[test]
fn a_bounded_run_ends_inside_a_planned_block() {
    assert_found_exactly_once(Mutant::EndsInsideBlocks, &["a bounded run ends", "no lost record"]);
}

#[test]
fn a_bounded_run_ends_while_a_block_is_rebuilt() {
    assert_found_exactly_once(Mutant::EndsBeforeReplays, &["a bounded run completes its partitions"]);
}
