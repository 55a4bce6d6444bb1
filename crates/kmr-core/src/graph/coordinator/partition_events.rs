//! What the intake reports: a partition that cannot be read, or that has been read to its end.

use super::Coordinator;
use super::repositioning::{Wanted, Why};
use super::session::Session;
use super::supervision::Failed;
use crate::config::ResetPolicy;
use crate::error::Error;
use crate::graph::fetch::routes::{Report, Reported};
use crate::member::{LogPoint, PartitionFailure};
use crate::telemetry;

impl Coordinator {
    pub(super) async fn reported(
        &mut self,
        session: &mut Session,
        Report { assignment, what }: Report,
    ) -> Result<(), Failed> {
        let partition = assignment.partition.clone();
        if self.ownership.assignment(&partition) != Some(&assignment) || session.moves.contains(&partition) {
            return Ok(()); // it was handed back meanwhile, or goes on elsewhere
        }
        let failure = match what {
            Reported::Failed(failure) => failure,
            Reported::Reached => {
                self.reached(session, &assignment);
                return Ok(());
            }
        };
        let error = match failure {
            PartitionFailure::OutOfRange { offset: lost }
                if self.setup.options.out_of_range != ResetPolicy::Fail =>
            {
                let latest = self.setup.options.out_of_range == ResetPolicy::Latest;
                let to = if latest { LogPoint::End } else { LogPoint::Low };
                session.wanted.push(Wanted { partition, why: Why::Reset { lost, to } });
                return Ok(());
            }
            PartitionFailure::OutOfRange { offset } => {
                let (low, high) = session.member.watermarks(&partition).await.unwrap_or((-1, -1));
                Error::OffsetOutOfRange { partition, offset, low, high }
            }
            PartitionFailure::Unauthorized => {
                Error::Authorization { resource: format!("topic {:?}", partition.topic()) }
            }
            PartitionFailure::Gone(reason) => {
                telemetry::partition_failed(&partition, &reason);
                return Ok(());
            }
            PartitionFailure::Unreadable { offset, reason } => {
                let what = format!("{partition} cannot be read at offset {offset}");
                Error::Client { operation: what, source: reason.into(), retryable: true }
            }
        };
        // The client itself is well: what the other partitions have finished is committed.
        Err(Failed::Task(error))
    }
}
