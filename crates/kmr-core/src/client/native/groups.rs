//! Blocking requests about any group: its members, and its committed offsets. For `kmr lag`.

use std::ffi::{CString, c_char};
use std::fmt;
use std::ptr::{self, NonNull};
use std::slice;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::bindings as rd;
use rdkafka::client::Client;
use rdkafka::error::RDKafkaErrorCode;

use super::raw::{code, known, rd_kafka_error_code, rd_kafka_event_error, text};

/// Why a request about a group failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupError {
    /// The broker's error code, or librdkafka's.
    pub code: RDKafkaErrorCode,
    /// The text that came with it.
    pub reason: String,
}

impl fmt::Display for GroupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason.as_str() {
            "" => self.code.fmt(f),
            reason => write!(f, "{} ({reason})", self.code),
        }
    }
}

impl std::error::Error for GroupError {}

/// The id under which a client is a member of its group. `None`: it has none, or is closed.
///
/// Waits for librdkafka's main thread, which answers at once.
pub(in crate::client) fn member_id<C: ClientContext>(client: &Client<C>) -> Option<String> {
    // SAFETY: the client is alive. The text is the caller's, and freed below.
    let id = unsafe { rd::rd_kafka_memberid(client.native_ptr()) };
    if id.is_null() {
        return None;
    }
    // SAFETY: a C string that librdkafka has allocated for the caller.
    let text = unsafe { text(id) };
    // SAFETY: see above.
    unsafe { rd::rd_kafka_mem_free(client.native_ptr(), id.cast()) };
    Some(text).filter(|text| !text.is_empty())
}

/// A group, as its coordinator describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupDescription {
    /// `Stable`, `Empty`, `PreparingRebalance`, `CompletingRebalance`, `Dead`. `Unknown`: a state
    /// that librdkafka has no name for, such as `Assigning` and `Reconciling` of KIP-848.
    pub state: String,
    /// Whether it is a group of KIP-848. `false`: a classic one.
    pub is_consumer_protocol: bool,
    /// The assignor; empty without members.
    pub assignor: String,
    /// The members.
    pub members: Vec<GroupMember>,
}

/// A member of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupMember {
    /// The id that the coordinator knows the member by.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// `client.id`.
    pub client_id: String,
    /// The address that the member connects from.
    pub host: String,
    /// The assigned partitions: topic and number.
    pub partitions: Vec<(String, i32)>,
}

/// The committed offset of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOffset {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// `None`: nothing is committed.
    pub offset: Option<i64>,
    /// `NoError`, or why the offset is not known.
    pub code: RDKafkaErrorCode,
}

/// Describes a group of either protocol. Waits for the coordinator's response, up to `timeout`.
///
/// # Errors
/// The coordinator was not found in time, or it returned an error.
pub fn describe_group<C: ClientContext>(
    client: &Client<C>,
    group: &str,
    timeout: Duration,
) -> Result<GroupDescription, GroupError> {
    let name = c_string(group)?;
    let mut names: [*const c_char; 1] = [name.as_ptr()];
    let operation = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
    let event = Request::new(client, operation, timeout)?.send(|client, options, queue| {
        // SAFETY: client, options and queue are alive; librdkafka copies the names.
        unsafe { rd::rd_kafka_DescribeConsumerGroups(client, names.as_mut_ptr(), 1, options, queue) };
    })?;
    // SAFETY: the event is alive until the end of this function, and what it owns with it. A result
    // of another type is null.
    unsafe {
        let result = rd::rd_kafka_event_DescribeConsumerGroups_result(event.0.as_ptr());
        let mut count = 0;
        let groups = match result.is_null() {
            true => ptr::null_mut(),
            false => rd::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut count),
        };
        if groups.is_null() || count == 0 {
            return Err(unexpected());
        }
        let group = *groups;
        error(rd::rd_kafka_ConsumerGroupDescription_error(group))?;
        Ok(description(group))
    }
}

/// The committed offsets of a group, in all topics. Waits for the coordinator's response, up to
/// `timeout`.
///
/// # Errors
/// The coordinator was not found in time, or it returned an error.
pub fn group_offsets<C: ClientContext>(
    client: &Client<C>,
    group: &str,
    timeout: Duration,
) -> Result<Vec<GroupOffset>, GroupError> {
    let name = c_string(group)?;
    let operation = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS;
    let event = Request::new(client, operation, timeout)?.send(|client, options, queue| {
        // SAFETY: client, options and queue are alive; no list means all partitions. librdkafka
        // copies the request, which is released here, once.
        unsafe {
            let mut request = rd::rd_kafka_ListConsumerGroupOffsets_new(name.as_ptr(), ptr::null());
            rd::rd_kafka_ListConsumerGroupOffsets(client, &raw mut request, 1, options, queue);
            rd::rd_kafka_ListConsumerGroupOffsets_destroy(request);
        }
    })?;
    // SAFETY: as in `describe_group`.
    unsafe {
        let result = rd::rd_kafka_event_ListConsumerGroupOffsets_result(event.0.as_ptr());
        let mut count = 0;
        let groups = match result.is_null() {
            true => ptr::null_mut(),
            false => rd::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &raw mut count),
        };
        if groups.is_null() || count == 0 {
            return Err(unexpected());
        }
        let group = *groups;
        error(rd::rd_kafka_group_result_error(group))?;
        let elements = elements(rd::rd_kafka_group_result_partitions(group));
        let read = |element: &rd::rd_kafka_topic_partition_t| GroupOffset {
            // The topic is a C string that lives as long as the list.
            topic: text(element.topic),
            partition: element.partition,
            offset: (element.offset >= 0).then_some(element.offset),
            code: known(code(&raw const element.err)),
        };
        Ok(elements.iter().map(read).collect())
    }
}

/// A request with a queue of its own for the reply.
struct Request {
    client: *mut rd::rd_kafka_t,
    options: NonNull<rd::rd_kafka_AdminOptions_t>,
    queue: NonNull<rd::rd_kafka_queue_t>,
    timeout: Duration,
}

impl Request {
    /// The client has to outlive the request: both functions above borrow it meanwhile.
    fn new<C: ClientContext>(
        client: &Client<C>,
        operation: rd::rd_kafka_admin_op_t,
        timeout: Duration,
    ) -> Result<Self, GroupError> {
        let client = client.native_ptr();
        // SAFETY: the client is alive; both handles are owned by the value that is returned.
        unsafe {
            let queue = NonNull::new(rd::rd_kafka_queue_new(client)).ok_or_else(unexpected)?;
            match NonNull::new(rd::rd_kafka_AdminOptions_new(client, operation)) {
                Some(options) => Ok(Self { client, options, queue, timeout }),
                None => {
                    rd::rd_kafka_queue_destroy(queue.as_ptr());
                    Err(unexpected())
                }
            }
        }
    }

    /// Sends the request and waits for its reply.
    fn send(
        &self,
        send: impl FnOnce(*mut rd::rd_kafka_t, *const rd::rd_kafka_AdminOptions_t, *mut rd::rd_kafka_queue_t),
    ) -> Result<Event, GroupError> {
        let millis = i32::try_from(self.timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: options and queue are alive; a null error text of size 0 is allowed. The event is
        // owned by the value that is returned. librdkafka answers each request, at the latest when
        // its timeout has expired; the second is for the way of the answer.
        let event = unsafe {
            let options = self.options.as_ptr();
            rd::rd_kafka_AdminOptions_set_request_timeout(options, millis, ptr::null_mut(), 0);
            send(self.client, options, self.queue.as_ptr());
            rd::rd_kafka_queue_poll(self.queue.as_ptr(), millis.saturating_add(1000))
        };
        let timed_out =
            || GroupError { code: RDKafkaErrorCode::OperationTimedOut, reason: "no response".to_owned() };
        let event = Event(NonNull::new(event).ok_or_else(timed_out)?);
        // SAFETY: the event is alive, and its text with it.
        unsafe {
            match rd_kafka_event_error(event.0.as_ptr()) {
                0 => Ok(event),
                number => Err(GroupError {
                    code: known(number),
                    reason: text(rd::rd_kafka_event_error_string(event.0.as_ptr())),
                }),
            }
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        // SAFETY: both handles are owned by this value alone, and released once.
        unsafe {
            rd::rd_kafka_AdminOptions_destroy(self.options.as_ptr());
            rd::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

/// A reply.
struct Event(NonNull<rd::rd_kafka_event_t>);

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: owned by this value alone, and released once.
        unsafe { rd::rd_kafka_event_destroy(self.0.as_ptr()) };
    }
}

fn c_string(group: &str) -> Result<CString, GroupError> {
    let invalid = |_| GroupError {
        code: RDKafkaErrorCode::InvalidGroupId,
        reason: "a group id holds no zero byte".to_owned(),
    };
    CString::new(group).map_err(invalid)
}

fn unexpected() -> GroupError {
    GroupError { code: RDKafkaErrorCode::Fail, reason: "librdkafka returned no result".to_owned() }
}

/// # Safety
/// `error` is null, which is no error, or alive.
unsafe fn error(error: *const rd::rd_kafka_error_t) -> Result<(), GroupError> {
    // SAFETY: the caller's promise; the text lives as long as the error.
    unsafe {
        match rd_kafka_error_code(error) {
            0 => Ok(()),
            number => Err(GroupError { code: known(number), reason: text(rd::rd_kafka_error_string(error)) }),
        }
    }
}

/// # Safety
/// `group` is alive.
unsafe fn description(group: *const rd::rd_kafka_ConsumerGroupDescription_t) -> GroupDescription {
    // SAFETY: the caller's promise; texts and members live as long as the description. The names of
    // states are static.
    unsafe {
        let state = rd::rd_kafka_ConsumerGroupDescription_state(group);
        let count = rd::rd_kafka_ConsumerGroupDescription_member_count(group);
        let members = (0..count).map(|at| rd::rd_kafka_ConsumerGroupDescription_member(group, at));
        GroupDescription {
            state: text(rd::rd_kafka_consumer_group_state_name(state)),
            is_consumer_protocol: rd::rd_kafka_ConsumerGroupDescription_type(group)
                == rd::rd_kafka_consumer_group_type_t::RD_KAFKA_CONSUMER_GROUP_TYPE_CONSUMER,
            assignor: text(rd::rd_kafka_ConsumerGroupDescription_partition_assignor(group)),
            members: members.filter(|member| !member.is_null()).map(|one| member(one)).collect(),
        }
    }
}

/// # Safety
/// `member` is alive.
unsafe fn member(member: *const rd::rd_kafka_MemberDescription_t) -> GroupMember {
    // SAFETY: the caller's promise; what is read lives as long as the member. A member that waits
    // for its first assignment may have none.
    unsafe {
        let instance = rd::rd_kafka_MemberDescription_group_instance_id(member);
        let assignment = rd::rd_kafka_MemberDescription_assignment(member);
        let partitions = match assignment.is_null() {
            true => ptr::null(),
            false => rd::rd_kafka_MemberAssignment_partitions(assignment),
        };
        let elements = elements(partitions);
        GroupMember {
            member_id: text(rd::rd_kafka_MemberDescription_consumer_id(member)),
            instance_id: (!instance.is_null()).then(|| text(instance)).filter(|id| !id.is_empty()),
            client_id: text(rd::rd_kafka_MemberDescription_client_id(member)),
            host: text(rd::rd_kafka_MemberDescription_host(member)),
            partitions: elements.iter().map(|one| (text(one.topic), one.partition)).collect(),
        }
    }
}

/// # Safety
/// `list` is null or alive for as long as `'l`.
unsafe fn elements<'l>(
    list: *const rd::rd_kafka_topic_partition_list_t,
) -> &'l [rd::rd_kafka_topic_partition_t] {
    // SAFETY: the caller's promise; `cnt` elements are there.
    unsafe {
        match list.as_ref() {
            Some(list) if list.cnt > 0 && !list.elems.is_null() => {
                slice::from_raw_parts(list.elems, usize::try_from(list.cnt).unwrap_or(0))
            }
            _ => &[],
        }
    }
}
