//! Configuration files for a ClickHouse server with a Keeper, for replicated tables, and a user
//! with a password.
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

/// Paths and contents of the files.
pub(crate) fn files(is_local: bool) -> [(&'static str, &'static str); 2] {
    if is_local { LOCAL } else { OFFICIAL }
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
