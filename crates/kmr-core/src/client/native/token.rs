//! Sets the token of a client for SASL/OAUTHBEARER.

use std::ffi::{CString, c_char};
use std::ptr;
use std::time::UNIX_EPOCH;

use rdkafka::ClientContext;

use super::raw::rd_kafka_oauthbearer_set_token;
use crate::credentials::token::Token;

/// Bytes for librdkafka's reason.
const REASON: usize = 512;

/// Sets the token for the connections that the client opens from now on, and for those that it
/// authenticates again. Connections that wait for a token are opened at once. Does not block.
///
/// The token has no [`problem`](Token::problem): the reasons for those contain it.
///
/// # Errors
/// The token has expired, or the client does not use OAUTHBEARER.
pub(in crate::client) fn set_token<C: ClientContext>(
    client: &rdkafka::client::Client<C>,
    token: &Token,
) -> Result<(), String> {
    let text = |text: &str| CString::new(text).map_err(|_| "the token contains a zero byte".to_owned());
    let (value, principal) = (text(&token.value)?, text(&token.principal)?);
    let extensions = token.extensions.iter().flat_map(|(name, value)| [text(name), text(value)]);
    let extensions = extensions.collect::<Result<Vec<CString>, String>>()?;
    let mut pointers: Vec<*const c_char> = extensions.iter().map(|text| text.as_ptr()).collect();
    let expires = token.expires_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    // librdkafka computes in microseconds. A later time would be one in the past.
    let expires = i64::try_from(expires.as_millis()).unwrap_or(i64::MAX).min(i64::MAX / 1_000);
    let mut reason = [0_u8; REASON];
    // SAFETY: the client is alive, the texts and the list of extensions live until the call
    // returns, and librdkafka copies them. The reason is written with its end into `REASON` bytes.
    // The function takes locks of its own.
    let code = unsafe {
        rd_kafka_oauthbearer_set_token(
            client.native_ptr(),
            value.as_ptr(),
            expires,
            principal.as_ptr(),
            if pointers.is_empty() { ptr::null_mut() } else { pointers.as_mut_ptr() },
            pointers.len(),
            reason.as_mut_ptr().cast(),
            REASON,
        )
    };
    if code == 0 {
        return Ok(());
    }
    let end = reason.iter().position(|byte| *byte == 0).unwrap_or(REASON);
    Err(String::from_utf8_lossy(&reason[..end]).into_owned())
}
