//! Configuration files for a ClickHouse server: a Keeper, clusters, profiles and users of a test.

/// Parts of a server's configuration that a test needs. XML is taken as it is.
///
/// Beside the users of a test there is always the user `default`, without a password.
///
/// # Examples
///
/// ```no_run
/// # async fn example() -> kmr_testkit::Result<()> {
/// use kmr_testkit::{ClickHouse, ServerConfig};
///
/// let config = ServerConfig::default().user("reader", "<readonly>1</readonly>");
/// let server = ClickHouse::builder().config(config).start().await?;
/// let client = server.client().with_user("reader");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct ServerConfig {
    keeper: bool,
    server: String,
    clusters: String,
    profiles: String,
    users: String,
}

/// A Keeper inside the server. The official image needs the whole of it.
const OFFICIAL_KEEPER: &str = "<keeper_server><tcp_port>9181</tcp_port><server_id>1</server_id>\
     <log_storage_path>/var/lib/clickhouse/coordination/log</log_storage_path>\
     <snapshot_storage_path>/var/lib/clickhouse/coordination/snapshots</snapshot_storage_path>\
     <raft_configuration><server><id>1</id><hostname>127.0.0.1</hostname><port>9234</port></server></raft_configuration>\
     </keeper_server><zookeeper><node><host>127.0.0.1</host><port>9181</port></node></zookeeper>";

/// The engine of the local image has a Keeper for tests, in memory.
const LOCAL_KEEPER: &str = "<zookeeper><implementation>testkeeper</implementation></zookeeper>";

/// What the local image needs and the official one has.
const LOCAL_DEFAULT_USER: &str = "<default><password></password><networks><ip>::/0</ip></networks>\
     <profile>default</profile><quota>default</quota></default>";

impl ServerConfig {
    /// Port of the native protocol inside the container, at which other servers reach a shard.
    pub const NATIVE_PORT: u16 = 9000;

    /// A Keeper for replicated tables.
    ///
    /// The local image has no address for other replicas. Its replicated tables can be described
    /// and checked, but not written: it rejects inserts with transient errors, as for a table whose
    /// Keeper is unavailable.
    #[must_use]
    pub fn keeper(mut self) -> Self {
        self.keeper = true;
        self
    }

    /// A cluster of one shard for each of `hosts`, at [`ServerConfig::NATIVE_PORT`].
    #[must_use]
    pub fn cluster(mut self, name: &str, hosts: &[&str]) -> Self {
        let port = Self::NATIVE_PORT;
        let shard = |host: &&str| {
            format!(
                "<shard><internal_replication>true</internal_replication><replica><host>{host}</host>\
                 <port>{port}</port></replica></shard>"
            )
        };
        let shards: String = hosts.iter().map(shard).collect();
        self.clusters.push_str(&format!("<{name}>{shards}</{name}>"));
        self
    }

    /// A user without a password, with a profile of the same name. `profile` holds the profile's
    /// settings and constraints as XML, such as `<readonly>1</readonly>`.
    #[must_use]
    pub fn user(mut self, name: &str, profile: &str) -> Self {
        self.profiles.push_str(&format!("<{name}>{profile}</{name}>"));
        self.add_user(name, "", name);
        self
    }

    /// A user with a password and the default profile.
    #[must_use]
    pub fn user_with_password(mut self, name: &str, password: &str) -> Self {
        self.add_user(name, password, "default");
        self
    }

    /// Elements of the server's configuration as XML, such as
    /// `<max_concurrent_queries>5</max_concurrent_queries>`.
    #[must_use]
    pub fn server(mut self, xml: &str) -> Self {
        self.server.push_str(xml);
        self
    }

    fn add_user(&mut self, name: &str, password: &str, profile: &str) {
        self.users.push_str(&format!(
            "<{name}><password>{}</password><networks><ip>::/0</ip></networks><profile>{profile}</profile>\
             <quota>default</quota></{name}>",
            escaped(password)
        ));
    }

    /// Paths and contents of the files.
    pub(crate) fn files(&self, is_local: bool) -> Vec<(&'static str, String)> {
        let Self { clusters, profiles, users, .. } = self;
        let keeper = match (self.keeper, is_local) {
            (false, _) => "",
            (true, false) => OFFICIAL_KEEPER,
            (true, true) => LOCAL_KEEPER,
        };
        let server = format!("<remote_servers>{clusters}</remote_servers>{keeper}{}", self.server);
        if !is_local {
            let users = format!("<profiles>{profiles}</profiles><users>{users}</users>");
            return vec![
                ("/etc/clickhouse-server/config.d/kmr.xml", document(&server)),
                ("/etc/clickhouse-server/users.d/kmr.xml", document(&users)),
            ];
        }
        // The local image reads its configuration from its working directory.
        let port = Self::NATIVE_PORT;
        let server =
            format!("<users_config>/kmr-users.xml</users_config><tcp_port>{port}</tcp_port>{server}");
        let users = format!(
            "<profiles><default/>{profiles}</profiles><quotas><default/></quotas>\
             <users>{LOCAL_DEFAULT_USER}{users}</users>"
        );
        vec![("/config.xml", document(&server)), ("/kmr-users.xml", document(&users))]
    }
}

fn document(content: &str) -> String {
    format!("<clickhouse>{content}</clickhouse>")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_images_get_the_same_users_profiles_and_elements() {
        let config = ServerConfig::default()
            .keeper()
            .cluster("own", &["127.0.0.1"])
            .user("reader", "<readonly>1</readonly>")
            .user_with_password("alice", "a<b&c")
            .server("<max_concurrent_queries>1</max_concurrent_queries>");
        for is_local in [true, false] {
            let [(_, server), (_, users)] = &config.files(is_local)[..] else { panic!("two files") };
            assert!(
                server.contains("<own><shard>") && server.contains("<max_concurrent_queries>1<"),
                "{server}"
            );
            assert!(server.contains("<zookeeper>"), "{server}");
            assert!(users.contains("<reader><readonly>1</readonly></reader>"), "{users}");
            assert!(users.contains("<alice><password>a&lt;b&amp;c</password>"), "{users}");
        }
    }
}
