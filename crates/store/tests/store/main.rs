//! Every test of the store on SQLite, PostgreSQL and MariaDB.
//!
//! A case is a function of a fresh database. On SQLite each is a test of its own; on a server, which takes seconds to
//! start, one test runs all of them, each in a database of its own, and names those that failed.

mod checkpoints;
mod claims;
mod crash;
mod delegations;
mod dropped;
mod holds;
mod imports;
mod kit;
mod lists;
mod migrations;
mod occurrences;
mod operations;
mod plans;
mod readers;
mod rows;
mod sequences;
mod small;
mod stale;
mod steps;

use std::future::Future;
use std::pin::Pin;

use karbor_store::Engine;
use kit::{Server, World};

type Case = fn(World) -> Pin<Box<dyn Future<Output = ()> + Send>>;

macro_rules! cases {
    ($($module:ident::$case:ident,)+) => {
        const CASES: &[(&str, Case)] =
            &[$((concat!(stringify!($module), "::", stringify!($case)), |world| Box::pin($module::$case(world))),)+];

        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    crate::$module::$case(crate::World::sqlite().await).await;
                }
            )+
        }
    };
}

cases! {
    checkpoints::a_checkpoint_comes_with_its_operation_log_and_charge,
    checkpoints::what_fails_leaves_nothing_behind,
    checkpoints::several_are_added_together_or_not_at_all,
    checkpoints::only_one_of_many_deletes_begins,
    checkpoints::a_reset_goes_by_the_state_machine,
    checkpoints::what_a_bank_holds_is_imported_once,
    checkpoints::deleted_ones_are_listed_only_when_asked_for,
    checkpoints::a_restore_needs_an_available_checkpoint,
    claims::the_most_urgent_is_claimed_first,
    delegations::a_right_is_found_by_its_operation_or_by_the_scheduled_one,
    delegations::a_right_is_idle_once_its_owner_has_ended_or_is_gone,
    delegations::a_right_that_came_in_place_of_one_that_is_gone_is_not_forgotten,
    delegations::a_right_in_use_is_looked_at_again_once_its_owner_is_deleted,
    delegations::a_login_is_wiped_when_its_operation_ends,
    claims::kinds_and_projects_are_passed_over,
    claims::a_lease_that_ran_out_can_be_claimed_again,
    claims::eight_workers_claim_each_operation_once,
    claims::two_workers_never_both_own_an_operation,
    claims::nothing_of_a_stale_worker_lands_behind_a_claim,
    dropped::a_call_that_is_dropped_happens_whole_or_not_at_all,
    holds::what_is_held_is_not_deleted,
    holds::of_a_hold_and_a_deletion_at_once_one_wins,
    holds::a_call_makes_a_trigger_due_once,
    readers::what_is_read_does_not_go_by_itself,
    readers::of_a_reader_and_an_expiry_at_once_one_wins,
    imports::an_old_database_is_taken_over,
    imports::what_is_no_old_database_is_refused,
    lists::pages_in_any_order_hold_every_row_once,
    lists::filters_find_what_they_name,
    lists::an_unknown_marker_is_told,
    lists::rows_that_come_and_go_do_not_disturb_pages,
    occurrences::a_due_trigger_is_handed_out_once,
    occurrences::a_trigger_that_was_changed_is_not_handed_out_by_what_it_said_before,
    occurrences::a_large_trigger_is_handed_out_page_by_page,
    occurrences::an_unreadable_trigger_is_set_aside_until_it_is_changed,
    occurrences::a_trigger_without_a_time_can_be_fired,
    occurrences::an_occurrence_begins_once,
    occurrences::two_occurrences_of_one_operation_do_not_run_at_once,
    occurrences::limits_hold_however_many_begin_at_once,
    occurrences::what_cannot_begin_leaves_nothing_behind,
    occurrences::an_operation_that_ends_has_its_occurrence_looked_at,
    occurrences::a_verdict_about_what_has_changed_is_void,
    occurrences::what_is_ready_is_found_by_provider_and_project,
    occurrences::what_is_long_over_is_forgotten,
    occurrences::what_was_skipped_stands_in_the_log,
    occurrences::a_plan_is_suspended_only_after_it_was_started,
    occurrences::no_statement_of_the_schedule_scans,
    occurrences::what_is_known_by_its_id_is_looked_for_by_it,
    operations::an_operation_that_is_given_back_waits_for_its_time,
    operations::a_cancel_makes_a_queued_one_due,
    operations::what_has_failed_is_taken_up_again,
    operations::the_end_is_written_everywhere_at_once,
    operations::an_end_that_does_not_fit_changes_nothing,
    operations::restores_and_verifications_follow_their_operation,
    plans::a_plan_is_read_as_it_was_written,
    plans::an_update_changes_what_it_names,
    plans::an_update_can_ask_for_a_status,
    plans::a_deleted_plan_is_gone_and_its_charge_too,
    plans::the_last_free_place_is_given_once,
    plans::what_no_engine_could_hold_is_refused,
    sequences::random_events_keep_states_legal_and_quotas_exact,
    small::limits_are_those_of_the_project_else_the_defaults,
    small::a_wrong_count_is_put_right,
    small::a_purge_removes_what_is_long_over,
    small::the_default_class_holds_for_projects_without_limits,
    small::a_bank_account_is_made_once_with_defaults,
    small::a_bank_account_moves_only_while_nothing_is_in_it,
    small::a_service_reports_itself,
    small::services_that_start_together_get_different_numbers,
    small::a_trigger_in_use_stays,
    small::a_ledger_is_numbered_and_found_again,
    stale::every_write_of_a_stale_claim_is_refused,
    steps::thousands_of_steps_are_saved_and_changed_together,
    steps::several_changes_of_one_step_count_in_their_order,
    steps::saving_again_keeps_what_was_done,
    steps::progress_is_summed,
    steps::an_unknown_step_is_told,
    migrations::migrating_twice_or_at_once_is_harmless,
    migrations::a_newer_schema_is_refused,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_on_postgresql() {
    every_case(Engine::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_on_mariadb() {
    every_case(Engine::Mysql).await;
}

async fn every_case(engine: Engine) {
    let server = Server::start(engine).await;
    migrations::an_empty_database_is_migrated_and_a_foreign_one_left_alone(server.database().await).await;
    let mut failed = Vec::new();
    for (name, case) in CASES {
        let world = server.world().await;
        // A task of its own, so that one case's panic does not keep the others from running.
        if tokio::spawn(case(world)).await.is_err() {
            failed.push(*name);
        }
    }
    assert!(failed.is_empty(), "failed on {engine:?}: {failed:?}");
}
