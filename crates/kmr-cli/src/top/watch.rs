//! The tasks that query the status servers, each at its own pace.

use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;

use super::address::Address;
use super::client::{Action, Client};
use super::problem::Problem;
use super::status::Answer;
use super::token::Token;

/// What a task reports of the consumer at a place.
#[derive(Debug)]
pub(super) enum Update {
    Status(usize, Box<Result<Answer, Problem>>),
    Acted(usize, Action, Result<(), String>),
}

/// The tasks, one for each server. They end with this, or with the receiver of the updates.
pub(super) struct Watch {
    clients: Vec<Client>,
    updates: Sender<Update>,
    tasks: JoinSet<()>,
}

impl Watch {
    pub(super) fn start(addresses: &[Address], interval: Duration, updates: Sender<Update>) -> Self {
        let clients: Vec<Client> = addresses.iter().cloned().map(Client::new).collect();
        let mut tasks = JoinSet::new();
        for (place, client) in clients.iter().cloned().enumerate() {
            let updates = updates.clone();
            tasks.spawn(async move {
                loop {
                    let result = Box::new(client.status().await);
                    if updates.send(Update::Status(place, result)).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(interval).await;
                }
            });
        }
        Self { clients, updates, tasks }
    }

    /// Sends an action. Its result is an update, and so is a status right after it.
    pub(super) fn act(&mut self, place: usize, action: Action, token: Token) {
        let Some(client) = self.clients.get(place).cloned() else { return };
        let updates = self.updates.clone();
        self.tasks.spawn(async move {
            let result = client.act(action, &token).await;
            // Once the screen is closed, no task receives it.
            let _ = updates.send(Update::Acted(place, action, result)).await;
            let status = Box::new(client.status().await);
            let _ = updates.send(Update::Status(place, status)).await;
        });
    }

    /// Waits until a task failed.
    pub(super) async fn failed(&mut self) -> anyhow::Error {
        loop {
            match self.tasks.join_next().await {
                Some(Err(error)) => return anyhow::Error::from(error).context("a task ended"),
                Some(Ok(())) => {}
                None => std::future::pending().await,
            }
        }
    }
}

/// A status of each server, and a second one after the interval: rates need two.
pub(super) async fn twice(addresses: &[Address], interval: Duration) -> Vec<Vec<Result<Answer, Problem>>> {
    let mut tasks = JoinSet::new();
    for (place, address) in addresses.iter().cloned().enumerate() {
        tasks.spawn(async move {
            let client = Client::new(address);
            let first = client.status().await;
            if first.as_ref().is_ok_and(|answer| !answer.status.is_ended()) {
                tokio::time::sleep(interval).await;
                (place, vec![first, client.status().await])
            } else {
                (place, vec![first])
            }
        });
    }
    let mut results: Vec<_> = addresses.iter().map(|_| Vec::new()).collect();
    while let Some(ended) = tasks.join_next().await {
        if let Ok((place, answers)) = ended {
            results[place] = answers;
        }
    }
    results
}
