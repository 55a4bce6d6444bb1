//! Starts a broker with SASL/SCRAM-SHA-512 and ACLs, and creates its three users.

use anyhow::{Context, Result};
use rdkafka::ClientConfig;

use super::{Kafka, answers, blocking, settings};
use crate::deadline::{Deadline, wait_until};
use crate::engine::{Image, Service, Shared, free_port};
use crate::report::log_line;

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

impl Kafka {
    /// The secured broker that all tests of this binary share. The first call starts it, always in
    /// a container.
    ///
    /// # Errors
    ///
    /// As for [`Kafka::shared`].
    pub async fn secured() -> Result<SecuredKafka> {
        static SHARED: Shared<SecuredKafka> = Shared::new();
        SHARED.get(SecuredKafka::start).await
    }
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

    async fn start() -> Result<Self> {
        let (clients, internal, controller) = (free_port()?, free_port()?, free_port()?);
        let image = Image::choose(Service::Kafka).await?;
        let environment = settings::secured(clients, internal, controller, Self::ADMIN.name);
        let admin = Kafka::start_new(&image, internal, environment).await?;
        let kafka = Self { admin, bootstrap: format!("127.0.0.1:{clients}") };
        kafka.create_users().await?;
        let version = kafka.admin.version().await;
        log_line(format_args!(
            "Kafka {version} of image {image} with SASL/SCRAM and ACLs at {}",
            kafka.bootstrap
        ));
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
        let command = ["sh", "-c", &script].map(str::to_owned).to_vec();
        self.admin.container()?.exec(command).await.context("creating users and ACLs")?;
        for user in [Self::ADMIN, Self::ALLOWED, Self::POWERLESS] {
            let what = format!("{} can authenticate", user.name);
            let config = self.client_config(user);
            wait_until(Deadline::seconds(30), &what, async || {
                let config = config.clone();
                blocking(move || Ok(answers(&config))).await
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
