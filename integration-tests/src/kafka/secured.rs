//! Starts a broker with SASL/SCRAM-SHA-512 and ACLs, and creates its three users.

use anyhow::{Context, Result};
use kmr_testkit::{Deadline, Kafka, free_port};
use rdkafka::ClientConfig;
use tokio::sync::OnceCell;

use super::answers;
use super::listeners::secured;
use crate::wait::wait_until;

/// A broker whose clients have to authenticate and have only the permissions of their ACLs.
#[derive(Clone, Debug)]
pub struct SecuredKafka {
    /// The listener for administration. Its clients have all permissions without authentication.
    admin: Kafka,
    bootstrap: String,
}

/// A user of the secured broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// For `sasl.username`.
    pub name: &'static str,
    /// For `sasl.password`.
    pub password: &'static str,
}

impl SecuredKafka {
    /// [`SecuredKafka::ALLOWED`] has all permissions on topics, groups and transactional ids with
    /// this prefix.
    pub const PREFIX: &'static str = "allowed_";
    /// A super user.
    pub const ADMIN: User = User { name: "admin", password: "admin-secret" };
    /// Has all permissions on names with [`SecuredKafka::PREFIX`], and no others.
    pub const ALLOWED: User = User { name: "allowed", password: "allowed-secret" };
    /// Can authenticate and has no permission.
    pub const POWERLESS: User = User { name: "powerless", password: "powerless-secret" };

    /// The secured broker that all tests of this binary share. The first call starts it, always in
    /// a container.
    ///
    /// # Errors
    ///
    /// When it cannot be started, with the remedy. All tests get the same error.
    pub async fn shared() -> Result<Self> {
        static SHARED: OnceCell<Result<SecuredKafka, String>> = OnceCell::const_new();
        let start = async || Self::start().await.map_err(|error| format!("{error:#}"));
        SHARED.get_or_init(start).await.clone().map_err(anyhow::Error::msg)
    }

    async fn start() -> Result<Self> {
        let clients = free_port()?;
        let admin = secured(clients, Self::ADMIN.name)?.start().await?;
        let kafka = Self { admin, bootstrap: format!("127.0.0.1:{clients}") };
        kafka.create_users().await?;
        Ok(kafka)
    }

    /// `host:port` of the listener with authentication.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The same broker without authentication, for the test itself: to create topics (with
    /// [`SecuredKafka::PREFIX`] or not), produce, and read offsets.
    pub fn admin(&self) -> &Kafka {
        &self.admin
    }

    /// A client configuration with the address and this user's credentials.
    pub fn client_config(&self, user: User) -> ClientConfig {
        let mut config = self.admin.client_config();
        config.set("bootstrap.servers", &self.bootstrap);
        for (name, value) in user.settings() {
            config.set(name, value);
        }
        config
    }

    async fn create_users(&self) -> Result<()> {
        // One script for all, because each tool is a JVM of its own and they can start in parallel.
        let script = create_users_script(self.admin.bootstrap());
        self.admin.exec(&["sh", "-c", &script]).await.context("creating users and ACLs")?;
        for user in [Self::ADMIN, Self::ALLOWED, Self::POWERLESS] {
            let what = format!("{} can authenticate", user.name);
            let config = self.client_config(user);
            wait_until(Deadline::seconds(30), &what, async || {
                let config = config.clone();
                Ok(tokio::task::spawn_blocking(move || answers(&config)).await?)
            })
            .await?;
        }
        Ok(())
    }
}

impl User {
    /// The settings of a librdkafka client that authenticates as this user.
    pub fn settings(self) -> [(&'static str, &'static str); 4] {
        [
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", self.name),
            ("sasl.password", self.password),
        ]
    }
}

fn create_users_script(bootstrap: &str) -> String {
    let mut lines = vec!["pids=".to_owned()];
    for user in [SecuredKafka::ADMIN, SecuredKafka::ALLOWED, SecuredKafka::POWERLESS] {
        lines.push(format!(
            "/opt/kafka/bin/kafka-configs.sh --bootstrap-server {bootstrap} --alter --entity-type users --entity-name {} \
             --add-config 'SCRAM-SHA-512=[password={}]' & pids=\"$pids $!\"",
            user.name, user.password
        ));
    }
    let prefix = SecuredKafka::PREFIX;
    lines.push(format!(
        "/opt/kafka/bin/kafka-acls.sh --bootstrap-server {bootstrap} --add --allow-principal User:{} --operation All \
         --resource-pattern-type prefixed --topic {prefix} --group {prefix} --transactional-id {prefix} & pids=\"$pids $!\"",
        SecuredKafka::ALLOWED.name
    ));
    lines.push("for pid in $pids; do wait $pid || exit 1; done".to_owned());
    lines.join("\n")
}
