//! `verify`: proves that every committed record is in the table or a dead letter. `sum` has the
//! audit of folded rows.
//!
//! 1. The committed offsets are read first, then the dead letters, then log and table. So a record
//!    below the committed offset has to be in one of them by then, whatever is delivered meanwhile.
//! 2. The window bounds memory, whatever the sizes of topic and table: one bit for each offset of a
//!    window and side, for each of the workers, and at most 2 bytes for each dead letter, each
//!    replay and each missing record.
//! 3. A replay is a record of its own. It also accounts for the record that it repeats, whose dead
//!    letter may be gone.

use std::process::ExitCode;
use std::sync::Arc;

use kmr_cli_support::output;

mod args;
mod audit;
mod commits;
mod dead_letters;
mod notes;
mod offset_sets;
mod partition_account;
mod replays;
mod report;
mod sum;
mod table_facts;
mod table_rows;
mod topic_log;

pub(crate) use args::VerifyArgs;
use audit::Audit;

/// Compares and prints. Exit code 1 if the audit finds a fault.
pub(crate) async fn verify(args: VerifyArgs) -> anyhow::Result<ExitCode> {
    let (as_json, column) = (args.json, args.sum.clone());
    let audit = Arc::new(Audit::open(args).await?);
    let (passes, text) = match column {
        Some(column) => {
            let report = audit.run_sum(&column).await?;
            (report.passes(), if as_json { report.json().to_string() } else { report.text() })
        }
        None => {
            let report = audit.run().await?;
            (report.passes(), if as_json { report.json().to_string() } else { report.text() })
        }
    };
    output::result(&text);
    Ok(if passes { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
