//! What a ClickHouse server of a test's own may have beside the plain server: a Keeper, so that there are replicated tables, and a user
//! with a password.
//!
//! The engine that is built here has no address for other replicas, so its replicated tables are described and checked as all others, but
//! never written: inserts are refused with errors that may pass, as those of a table whose Keeper is away.

/// A user who may do everything, and the password.
pub const USER: (&str, &str) = ("alice", "behind-the-looking-glass");

/// Where the engine that is built here looks for its configuration: its working directory.
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
         <alice><password>behind-the-looking-glass</password><networks><ip>::/0</ip></networks><profile>default</profile>\
         <quota>default</quota></alice></users></clickhouse>",
    ),
];

/// The same for the official image, with a Keeper inside the server.
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
        "<clickhouse><users><alice><password>behind-the-looking-glass</password><networks><ip>::/0</ip></networks>\
         <profile>default</profile><quota>default</quota></alice></users></clickhouse>",
    ),
];

/// Files of a container, by their paths.
pub(crate) fn files(is_local: bool) -> [(&'static str, &'static str); 2] {
    if is_local { LOCAL } else { OFFICIAL }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_in_both_configurations() {
        for files in [LOCAL, OFFICIAL] {
            let (_, users) = files[1];
            assert!(users.contains(&format!("<{0}><password>{1}</password>", USER.0, USER.1)), "{users}");
        }
    }
}
