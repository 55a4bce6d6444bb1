//! Configuration files for a ClickHouse server: a Keeper for replicated tables and a user with a
//! password; or clusters, profiles and users of a test.
//!
//! The local engine has no address for other replicas. Its replicated tables can be described and
//! checked, but not written: it rejects inserts with transient errors, as for a table whose Keeper
//! is unavailable.

/// A user with all permissions, and the password.
pub const USER: (&str, &str) = ("alice", "through-the-looking-glass");

/// Files for the local engine, which reads its configuration from its working directory.
const LOCAL: [(&str, &str); 2] = [
    (
        "/config.xml",
        "<clickhouse><users_config>/kmr-users.xml</users_config>\
         <zookeeper><implementation>testkeeper</implementation></zookeeper></clickhouse>",
    ),
    (
        "/kmr-users.xml",
        "<clickhouse><profiles><default/></profiles><quotas><default/></quotas><users>\
         <default><password></password><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota></default>\
         <alice><password>through-the-looking-glass</password><networks><ip>::/0</ip></networks><profile>default</profile>\
         <quota>default</quota></alice></users></clickhouse>",
    ),
];

/// Files for the official image, with a Keeper inside the server.
const OFFICIAL: [(&str, &str); 2] = [
    (
        "/etc/clickhouse-server/config.d/kmr.xml",
        "<clickhouse><keeper_server><tcp_port>9181</tcp_port><server_id>1</server_id>\
         <log_storage_path>/var/lib/clickhouse/coordination/log</log_storage_path>\
         <snapshot_storage_path>/var/lib/clickhouse/coordination/snapshots</snapshot_storage_path>\
         <raft_configuration><server><id>1</id><hostname>127.0.0.1</hostname><port>9234</port></server></raft_configuration>\
         </keeper_server><zookeeper><node><host>127.0.0.1</host><port>9181</port></node></zookeeper></clickhouse>",
    ),
    (
        "/etc/clickhouse-server/users.d/kmr.xml",
        "<clickhouse><users><alice><password>through-the-looking-glass</password><networks><ip>::/0</ip></networks>\
         <profile>default</profile><quota>default</quota></alice></users></clickhouse>",
    ),
];

/// Paths and contents of the files for a server with a Keeper.
pub(crate) fn files(is_local: bool) -> Vec<(&'static str, String)> {
    let files = if is_local { LOCAL } else { OFFICIAL };
    files.map(|(path, content)| (path, content.to_owned())).into()
}

/// Port of the native protocol inside the container, at which other servers reach a shard.
pub const NATIVE_PORT: u16 = 9000;

/// Parts of a server's configuration that a test needs, as XML.
///
/// Beside the users of a test there is always the user `default`, without a password.
#[derive(Clone, Debug, Default)]
pub struct ServerConfig {
    clusters: String,
    profiles: String,
    users: String,
}

impl ServerConfig {
    /// A cluster of one shard for each of `hosts`, at [`NATIVE_PORT`].
    #[must_use]
    pub fn cluster(mut self, name: &str, hosts: &[&str]) -> Self {
        let shard = |host: &&str| {
            format!(
                "<shard><internal_replication>true</internal_replication><replica><host>{host}</host>\
                 <port>{NATIVE_PORT}</port></replica></shard>"
            )
        };
        let shards: String = hosts.iter().map(shard).collect();
        self.clusters.push_str(&format!("<{name}>{shards}</{name}>"));
        self
    }

    /// A user without a password, with a profile of the same name. `profile` holds the profile's
    /// settings and constraints, such as `<readonly>1</readonly>`.
    #[must_use]
    pub fn user(mut self, name: &str, profile: &str) -> Self {
        self.profiles.push_str(&format!("<{name}>{profile}</{name}>"));
        self.users.push_str(&format!(
            "<{name}><password></password><networks><ip>::/0</ip></networks><profile>{name}</profile>\
             <quota>default</quota></{name}>"
        ));
        self
    }

    /// Paths and contents of the files.
    pub(crate) fn files(&self, is_local: bool) -> Vec<(&'static str, String)> {
        let Self { clusters, profiles, users } = self;
        let server = format!("<remote_servers>{clusters}</remote_servers>");
        if !is_local {
            return vec![
                ("/etc/clickhouse-server/config.d/kmr.xml", format!("<clickhouse>{server}</clickhouse>")),
                (
                    "/etc/clickhouse-server/users.d/kmr.xml",
                    format!("<clickhouse><profiles>{profiles}</profiles><users>{users}</users></clickhouse>"),
                ),
            ];
        }
        vec![
            (
                "/config.xml",
                format!(
                    "<clickhouse><users_config>/kmr-users.xml</users_config><tcp_port>{NATIVE_PORT}</tcp_port>\
                     {server}</clickhouse>"
                ),
            ),
            (
                "/kmr-users.xml",
                format!(
                    "<clickhouse><profiles><default/>{profiles}</profiles><quotas><default/></quotas><users><default>\
                     <password></password><networks><ip>::/0</ip></networks><profile>default</profile>\
                     <quota>default</quota></default>{users}</users></clickhouse>"
                ),
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_configurations_define_the_user() {
        for files in [LOCAL, OFFICIAL] {
            let (_, users) = files[1];
            assert!(users.contains(&format!("<{0}><password>{1}</password>", USER.0, USER.1)), "{users}");
        }
    }
}
