//! What rust-rdkafka has no words for, so that this module, alone in the crate, calls librdkafka
//! itself.
//!
//! - The id that Kafka gives a topic when it is created (KIP-516). A topic that was deleted and
//!   created again has another one, though its name and settings are the same: this is how a lost
//!   ledger is told from an empty one.
//! - The id that a group's coordinator gives a member when it joins. Whoever was put out and came
//!   back has another one.
//! - Being called when a producer has something to tell, so that it can be fetched by whoever waits
//!   for it, and no thread has to wait in between.
#![allow(unsafe_code, reason = "see above; everything else denies it")]

use std::{
    ffi::{CStr, CString, c_void},
    ptr,
    time::Duration,
};

use rdkafka::{
    bindings as sys,
    client::{Client, ClientContext},
    error::RDKafkaErrorCode as Code,
};

use super::{Listener, TopicId};

/// The member that this consumer is in its group at present; None or empty while it is none.
pub(super) fn member_id<C: ClientContext>(consumer: &Client<C>) -> Option<String> {
    let rk = consumer.native_ptr();
    // SAFETY: `rk` is alive as long as `consumer` is borrowed, and librdkafka allows any thread to
    // call it. The string is the caller's, who reads it while it lives and frees it once.
    unsafe {
        let id = sys::rd_kafka_memberid(rk);
        if id.is_null() {
            return None;
        }
        let owned = CStr::from_ptr(id).to_string_lossy().into_owned();
        sys::rd_kafka_mem_free(rk, id.cast());
        Some(owned)
    }
}

/// What is called, behind a thin pointer.
type Call = Box<dyn Fn() + Send + Sync>;

/// Tells when a client has something for its `poll`. It must go before its client does.
pub(super) struct Bell {
    queue: Guard<sys::rd_kafka_queue_t>,
    /// A box that librdkafka borrows for as long as it may call.
    call: *mut Call,
}

// SAFETY: librdkafka allows any thread to use a queue, and what is called may be shared and sent.
unsafe impl Send for Bell {}
// SAFETY: as above.
unsafe impl Sync for Bell {}

impl Bell {
    /// Has `call` called, with the client's queue locked, whenever something comes after there was
    /// nothing: on a thread of librdkafka's, or on one that has it do something.
    pub(super) fn hang<C: ClientContext>(client: &Client<C>, call: Call) -> Self {
        let call = Box::into_raw(Box::new(call));
        // SAFETY: the client is alive. The queue is counted, and given back by its guard. The box
        // is not touched until this is dropped, which first ends all calls.
        unsafe {
            let queue = sys::rd_kafka_queue_get_main(client.native_ptr());
            let queue = Guard(queue, sys::rd_kafka_queue_destroy);
            sys::rd_kafka_queue_cb_event_enable(queue.0, Some(ring), call.cast());
            Self { queue, call }
        }
    }

    /// Whether something waits for `poll`.
    pub(super) fn is_due(&self) -> bool {
        // SAFETY: the guard keeps the queue.
        unsafe { sys::rd_kafka_queue_length(self.queue.0) > 0 }
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        // SAFETY: the guard keeps the queue, and goes after this. librdkafka calls under the same
        // lock under which this is set, so that no call is under way behind it, and the box, which
        // came from `hang`, is nobody else's.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(self.queue.0, None, ptr::null_mut());
            drop(Box::from_raw(self.call));
        }
    }
}

/// # Safety
/// `call` is what [`Bell::hang`] gave, and its bell still hangs.
unsafe extern "C" fn ring(_: *mut sys::rd_kafka_t, call: *mut c_void) {
    // SAFETY: by contract.
    let call = unsafe { &*call.cast::<Call>() };
    call();
}

/// Asks for a topic's id. Blocks for `patience` at most.
pub(super) fn topic_id(
    client: &Client<Listener>,
    topic: &str,
    patience: Duration,
) -> Result<TopicId, Code> {
    let name = CString::new(topic).map_err(|_| Code::InvalidArgument)?;
    let patience_ms = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
    let rk = client.native_ptr();
    let mut names = [name.as_ptr()];
    // SAFETY: `rk` is alive as long as `client` is borrowed, which outlasts this function, and
    // librdkafka allows any thread to call it. `name` and `names` outlive the call that copies
    // them. Each object made here is destroyed exactly once, by the guard that follows its
    // creation, and guards drop in reverse order: the event before the queue.
    unsafe {
        let queue = Guard(sys::rd_kafka_queue_new(rk), sys::rd_kafka_queue_destroy);
        let topics = Guard(
            sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()),
            sys::rd_kafka_TopicCollection_destroy,
        );
        let options = Guard(
            sys::rd_kafka_AdminOptions_new(
                rk,
                sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            ),
            sys::rd_kafka_AdminOptions_destroy,
        );
        // Refused only for a time that is out of its range; then its default of a minute holds
        // for the request, and this function still returns in time.
        sys::rd_kafka_AdminOptions_set_request_timeout(options.0, patience_ms, ptr::null_mut(), 0);
        sys::rd_kafka_DescribeTopics(rk, topics.0, options.0, queue.0);
        let event = sys::rd_kafka_queue_poll(queue.0, patience_ms);
        if event.is_null() {
            return Err(Code::OperationTimedOut);
        }
        let event = Guard(event, sys::rd_kafka_event_destroy);
        answer(event.0)
    }
}

/// # Safety
/// `event` is a valid event.
unsafe fn answer(event: *mut sys::rd_kafka_event_t) -> Result<TopicId, Code> {
    // SAFETY: `event` is valid by contract. What is reached through it belongs to it, lives as
    // long, and is only read here; each pointer that may be null is looked at first.
    unsafe {
        let error = sys::rd_kafka_event_error(event);
        if error != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(error.into());
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err(Code::Fail);
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if topics.is_null() || count != 1 {
            return Err(Code::Fail);
        }
        let topic = *topics;
        let error = sys::rd_kafka_TopicDescription_error(topic);
        if !error.is_null() {
            let code = sys::rd_kafka_error_code(error);
            if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Err(code.into());
            }
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(topic);
        if id.is_null() {
            return Err(Code::Fail);
        }
        Ok(TopicId::from_halves(
            sys::rd_kafka_Uuid_most_significant_bits(id),
            sys::rd_kafka_Uuid_least_significant_bits(id),
        ))
    }
}

/// An object of librdkafka and what destroys it.
struct Guard<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Guard<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the pointer came from the function that makes what this one destroys,
            // and the guard is its only owner.
            unsafe { (self.1)(self.0) }
        }
    }
}
