//! The error codes of ClickHouse that kmr knows, in groups. The code decides with this list, and
//! docs/clickhouse-errors.md is generated from it.
//!
//! A test compares the names with those of a real server (`errorCodeToName`).

/// What a code means, wherever the server raises it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A value of a row does not fit.
    Row,
    /// Input ends early: a value of a row, or a message between servers.
    Truncated,
    /// The columns are not those of the start.
    Schema,
    /// Temporary, and raised before the server writes.
    Rejected,
    /// Temporary: memory. It can be raised between two table partitions of one insert.
    Memory,
    /// Too many parts; with other words in the message it is [`Partitions`](Self::Partitions).
    Parts,
    /// Too many table partitions in one insert.
    Partitions,
    /// Temporary, and raised at any time: the rows may be stored.
    Doubt,
    /// The server does not serve this user or this table, whatever the rows are.
    Denied,
    /// The server cannot run the statement. In a function of a row the values can be the reason.
    Statement,
}

/// Codes with the same meaning and the same remedy.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) kind: Kind,
    /// The meaning, for the documentation.
    #[cfg_attr(not(test), expect(dead_code, reason = "only the documentation is generated from it"))]
    pub(crate) about: &'static str,
    pub(crate) remedy: &'static str,
    /// Codes with their names, ascending.
    pub(crate) codes: &'static [(u32, &'static str)],
}

/// The group of a code.
pub(crate) fn group(code: u32) -> Option<&'static Group> {
    GROUPS.iter().find(|group| group.codes.iter().any(|(number, _)| *number == code))
}

pub(crate) const GROUPS: &[Group] = &[
    Group {
        kind: Kind::Row,
        about: "a value of a row does not fit its column",
        remedy: "correct the mapping or the table",
        codes: &[
            (6, "CANNOT_PARSE_TEXT"),
            (19, "SIZE_OF_FIXED_STRING_DOESNT_MATCH"),
            (25, "CANNOT_PARSE_ESCAPE_SEQUENCE"),
            (26, "CANNOT_PARSE_QUOTED_STRING"),
            (27, "CANNOT_PARSE_INPUT_ASSERTION_FAILED"),
            (38, "CANNOT_PARSE_DATE"),
            (41, "CANNOT_PARSE_DATETIME"),
            (53, "TYPE_MISMATCH"),
            (69, "ARGUMENT_OUT_OF_BOUND"),
            (70, "CANNOT_CONVERT_TYPE"),
            (72, "CANNOT_PARSE_NUMBER"),
            (117, "INCORRECT_DATA"),
            (128, "TOO_LARGE_ARRAY_SIZE"),
            (130, "CANNOT_READ_ARRAY_FROM_TEXT"),
            (131, "TOO_LARGE_STRING_SIZE"),
            (153, "ILLEGAL_DIVISION"),
            (190, "SIZES_OF_ARRAYS_DONT_MATCH"),
            (321, "VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE"),
            (349, "CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN"),
            (376, "CANNOT_PARSE_UUID"),
            (395, "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"),
            (407, "DECIMAL_OVERFLOW"),
            (441, "CANNOT_PARSE_DOMAIN_VALUE_FROM_STRING"),
            (467, "CANNOT_PARSE_BOOL"),
            (469, "VIOLATED_CONSTRAINT"),
            (563, "CANNOT_READ_MAP_FROM_TEXT"),
            (632, "UNEXPECTED_DATA_AFTER_PARSED_VALUE"),
            (675, "CANNOT_PARSE_IPV4"),
            (676, "CANNOT_PARSE_IPV6"),
            (691, "UNKNOWN_ELEMENT_OF_ENUM"),
        ],
    },
    Group {
        kind: Kind::Truncated,
        about: "a value or a message ends early",
        remedy: "check the network between the servers, and proxies",
        codes: &[
            (3, "UNEXPECTED_END_OF_FILE"),
            (32, "ATTEMPT_TO_READ_AFTER_EOF"),
            (33, "CANNOT_READ_ALL_DATA"),
        ],
    },
    Group {
        kind: Kind::Schema,
        about: "the table has other columns than at the start",
        remedy: "the table changed since the start: check its columns and restart",
        codes: &[
            (8, "THERE_IS_NO_COLUMN"),
            (10, "NOT_FOUND_COLUMN_IN_BLOCK"),
            (16, "NO_SUCH_COLUMN_IN_TABLE"),
            (20, "NUMBER_OF_COLUMNS_DOESNT_MATCH"),
            (36, "BAD_ARGUMENTS"),
            (47, "UNKNOWN_IDENTIFIER"),
            (122, "INCOMPATIBLE_COLUMNS"),
            (218, "TABLE_IS_DROPPED"),
            (741, "TABLE_UUID_MISMATCH"),
        ],
    },
    Group {
        kind: Kind::Rejected,
        about: "overload, a limit of the server",
        remedy: "a retry may succeed; see the server's log",
        codes: &[
            (201, "QUOTA_EXCEEDED"),
            (202, "TOO_MANY_SIMULTANEOUS_QUERIES"),
            (473, "DEADLOCK_AVOIDED"),
            (692, "TOO_MANY_MUTATIONS"),
            (700, "USER_SESSION_LIMIT_EXCEEDED"),
            (722, "ASYNC_LOAD_WAIT_FAILED"),
            (733, "TABLE_IS_BEING_RESTARTED"),
            (745, "SERVER_OVERLOADED"),
            (749, "TCP_CONNECTION_LIMIT_REACHED"),
            (762, "HTTP_CONNECTION_LIMIT_REACHED"),
            (763, "SESSION_REFUSED"), // words: quoted
            (776, "RESOURCE_LIMIT_EXCEEDED"),
            (778, "MEMORY_RESERVATION_FAILED"),
        ],
    },
    Group {
        kind: Kind::Rejected,
        about: "the table accepts no rows for now",
        remedy: "the table accepts no rows for now: check that its Keeper responds",
        codes: &[(242, "TABLE_IS_READ_ONLY")],
    },
    Group {
        kind: Kind::Rejected,
        about: "too few replicas for the quorum, before the write",
        remedy: "not enough replicas have the rows (.insert_quorum()): start the replicas",
        codes: &[(285, "TOO_FEW_LIVE_REPLICAS"), (286, "UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE")],
    },
    Group {
        kind: Kind::Rejected,
        about: "a dictionary is not loaded",
        remedy: "check the source of the dictionary",
        codes: &[(156, "DICTIONARIES_WAS_NOT_LOADED"), (510, "CACHE_DICTIONARY_UPDATE_FAIL")],
    },
    Group {
        kind: Kind::Memory,
        about: "memory",
        remedy: "lower .max_rows(), or raise the server's memory limits",
        codes: &[
            (173, "CANNOT_ALLOCATE_MEMORY"),
            (241, "MEMORY_LIMIT_EXCEEDED"),
            (777, "MEMORY_RESERVATION_KILLED"),
        ],
    },
    Group {
        kind: Kind::Parts,
        about: "parts and table partitions",
        remedy: "raise .max_rows() or .max_age() so that fewer, larger parts are written",
        codes: &[(252, "TOO_MANY_PARTS")],
    },
    Group {
        kind: Kind::Doubt,
        about: "the quorum was not reached in time",
        remedy: "not enough replicas have the rows (.insert_quorum()): start the replicas",
        codes: &[(319, "UNKNOWN_STATUS_OF_INSERT")],
    },
    Group {
        kind: Kind::Doubt,
        about: "a time limit, or a cancelled query",
        remedy: "lower .max_rows(), or raise the server's time limits",
        codes: &[
            (159, "TIMEOUT_EXCEEDED"),
            (160, "TOO_SLOW"),
            (394, "QUERY_WAS_CANCELLED"),
            (677, "THREAD_WAS_CANCELED"),
        ],
    },
    Group {
        kind: Kind::Doubt,
        about: "a server or a service is unavailable: Keeper, a shard, a source of a dictionary",
        remedy: "a retry may succeed; see the server's log",
        codes: &[
            (86, "RECEIVED_ERROR_FROM_REMOTE_IO_SERVER"),
            (95, "CANNOT_READ_FROM_SOCKET"),
            (96, "CANNOT_WRITE_TO_SOCKET"),
            (100, "UNKNOWN_PACKET_FROM_SERVER"),
            (102, "UNEXPECTED_PACKET_FROM_SERVER"),
            (198, "DNS_ERROR"),
            (203, "NO_FREE_CONNECTION"),
            (209, "SOCKET_TIMEOUT"),
            (210, "NETWORK_ERROR"),
            (225, "NO_ZOOKEEPER"),
            (236, "ABORTED"),
            (244, "UNEXPECTED_ZOOKEEPER_ERROR"),
            (254, "NO_ACTIVE_REPLICAS"),
            (265, "NO_AVAILABLE_REPLICA"),
            (279, "ALL_CONNECTION_TRIES_FAILED"),
            (289, "REPLICA_IS_NOT_IN_QUORUM"),
            (297, "SHARD_HAS_NO_CONNECTIONS"),
            (364, "RECEIVED_ERROR_TOO_MANY_REQUESTS"),
            (369, "ALL_REPLICAS_ARE_STALE"),
            (410, "EXTERNAL_SERVER_IS_NOT_RESPONDING"),
            (425, "SYSTEM_ERROR"),
            (439, "CANNOT_SCHEDULE_TASK"),
            (519, "NO_REMOTE_SHARD_AVAILABLE"),
            (529, "NOT_A_LEADER"),
            (568, "RAFT_ERROR"),
            (574, "DISTRIBUTED_TOO_MANY_PENDING_BYTES"),
            (618, "LZ4_DECODER_FAILED"),
            (659, "UNKNOWN_STATUS_OF_TRANSACTION"),
            (735, "QUERY_WAS_CANCELLED_BY_CLIENT"),
            (900, "DISTRIBUTED_CACHE_ERROR"),
            (901, "CANNOT_USE_DISTRIBUTED_CACHE"),
            (903, "DISTRIBUTED_CACHE_REGISTRY_SHUTDOWN"),
            (904, "TOO_MANY_UNAVAILABLE_SHARDS"),
            (999, "KEEPER_EXCEPTION"),
            (1000, "POCO_EXCEPTION"),
        ],
    },
    Group {
        kind: Kind::Doubt,
        about: "disks and object storage",
        remedy: "check the server's disks",
        codes: &[
            (23, "CANNOT_READ_FROM_ISTREAM"),
            (24, "CANNOT_WRITE_TO_OSTREAM"),
            (74, "CANNOT_READ_FROM_FILE_DESCRIPTOR"),
            (75, "CANNOT_WRITE_TO_FILE_DESCRIPTOR"),
            (76, "CANNOT_OPEN_FILE"),
            (77, "CANNOT_CLOSE_FILE"),
            (204, "CANNOT_FSYNC"),
            (243, "NOT_ENOUGH_SPACE"),
            (294, "CANNOT_WRITE_TO_FILE"),
            (384, "PART_IS_TEMPORARILY_LOCKED"),
            (499, "S3_ERROR"),
            (500, "AZURE_BLOB_STORAGE_ERROR"),
            (586, "CANNOT_CREATE_FILE"),
            (635, "CANNOT_POLL"),
            (641, "CANNOT_APPEND_TO_FILE"),
            (693, "AWS_ERROR"),
            (696, "ASYNC_LOAD_CANCELED"),
            (707, "GCP_ERROR"),
            (734, "CANNOT_WRITE_AFTER_BUFFER_CANCELED"),
            (737, "GOOGLE_CLOUD_ERROR"),
            (738, "PART_IS_LOCKED"),
            (1008, "TEMPORARY_DATA_NOT_IN_CACHE"),
        ],
    },
    Group {
        kind: Kind::Denied,
        about: "the table does not exist",
        remedy: "create the table, or correct its name or .database()",
        codes: &[(60, "UNKNOWN_TABLE")],
    },
    Group {
        kind: Kind::Denied,
        about: "the database does not exist",
        remedy: "create the database, or correct .database()",
        codes: &[(81, "UNKNOWN_DATABASE")],
    },
    Group {
        kind: Kind::Denied,
        about: "the user is read-only",
        remedy: "the user is read-only: use one that can insert",
        codes: &[(164, "READONLY")],
    },
    Group {
        kind: Kind::Denied,
        about: "credentials",
        remedy: "check .user() and .password(), or .bearer_token()",
        codes: &[
            (192, "UNKNOWN_USER"),
            (193, "WRONG_PASSWORD"),
            (194, "REQUIRED_PASSWORD"),
            (195, "IP_ADDRESS_NOT_ALLOWED"),
            (516, "AUTHENTICATION_FAILED"),
            (720, "USER_EXPIRED"),
            (767, "REQUIRED_SECOND_FACTOR"),
        ],
    },
    Group {
        kind: Kind::Denied,
        about: "permissions",
        remedy: "grant INSERT and SHOW COLUMNS on the table to the user",
        codes: &[(291, "DATABASE_ACCESS_DENIED"), (497, "ACCESS_DENIED"), (673, "RESOURCE_ACCESS_DENIED")],
    },
    Group {
        kind: Kind::Statement,
        about: "a setting that the server does not know",
        remedy: "remove the .setting() that this server does not know, or update the server",
        codes: &[(115, "UNKNOWN_SETTING")],
    },
    Group {
        kind: Kind::Statement,
        about: "the user's profile forbids a setting that kmr sends",
        remedy: "the user's profile does not allow the setting that the message names: remove its constraint for this user",
        codes: &[
            (452, "SETTING_CONSTRAINT_VIOLATION"),
            (471, "INVALID_SETTING_VALUE"),
            (472, "READONLY_SETTING"),
        ],
    },
    Group {
        kind: Kind::Statement,
        about: "the table's engine accepts no inserts",
        remedy: "the table's engine accepts no inserts (a view, a system table): name the table itself",
        codes: &[(48, "NOT_IMPLEMENTED"), (774, "TABLE_IS_PERMANENTLY_READ_ONLY")],
    },
    Group {
        kind: Kind::Statement,
        about: "a feature that is disabled",
        remedy: "the server has a feature disabled: enable it with the setting that the message names",
        codes: &[
            (344, "SUPPORT_IS_DISABLED"),
            (392, "QUERY_IS_PROHIBITED"),
            (401, "FEATURE_IS_NOT_ENABLED_AT_BUILD_TIME"),
            (446, "FUNCTION_NOT_ALLOWED"),
            (764, "DEDUPLICATION_IS_NOT_POSSIBLE"),
        ],
    },
    Group {
        kind: Kind::Statement,
        about: "the server does not understand the statement",
        remedy: "check the server's version, and any proxy that changes statements",
        codes: &[
            (1, "UNSUPPORTED_METHOD"),
            (46, "UNKNOWN_FUNCTION"),
            (50, "UNKNOWN_TYPE"),
            (62, "SYNTAX_ERROR"),
            (73, "UNKNOWN_FORMAT"),
            (80, "INCORRECT_QUERY"),
            (85, "FORMAT_IS_NOT_SUITABLE_FOR_INPUT"),
            (455, "SUSPICIOUS_TYPE_FOR_LOW_CARDINALITY"),
            (456, "UNKNOWN_QUERY_PARAMETER"),
            (457, "BAD_QUERY_PARAMETER"),
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_is_in_one_group() {
        let mut codes: Vec<u32> =
            GROUPS.iter().flat_map(|group| group.codes).map(|(code, _)| *code).collect();
        let count = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), count);
    }
}
