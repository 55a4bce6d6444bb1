//! What a token endpoint returns: a token, or an error.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::AuthError;

/// The longest text of a provider that an error shows, in characters.
const LONGEST_TEXT: usize = 300;

/// A token, with what is known about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) token: String,
    pub(super) life: Duration,
    /// The claim `sub`, if the token is a JWT.
    pub(super) subject: Option<String>,
}

#[derive(Deserialize)]
struct TokenReply {
    access_token: String,
    /// Seconds. Some providers send text.
    expires_in: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct ErrorReply {
    error: String,
    error_description: Option<String>,
}

/// The claims of a JWT that are of use here.
#[derive(Default, Deserialize)]
struct Claims {
    sub: Option<String>,
    exp: Option<f64>,
}

pub(super) fn read(url: &str, status: u16, body: &[u8]) -> Result<Reply, AuthError> {
    let unavailable = |reason: String| AuthError::Unavailable { url: url.to_owned(), reason };
    if status != 200 {
        let error: Option<ErrorReply> = serde_json::from_slice(body).ok();
        let text = error.map(|error| {
            let description = error.error_description.map(|text| format!(": {text}")).unwrap_or_default();
            format!(", {}{description}", error.error)
        });
        let text: String =
            text.unwrap_or_default().chars().filter(|c| !c.is_control()).take(LONGEST_TEXT).collect();
        let reason = format!("status {status}{text}");
        return Err(match status {
            // RFC 6749 5.2: the request is wrong, or the client is not known.
            400 | 401 | 403 => AuthError::Rejected { url: url.to_owned(), reason },
            _ => unavailable(reason),
        });
    }
    let Ok(reply) = serde_json::from_slice::<TokenReply>(body) else {
        return Err(unavailable("status 200, but the body has no access_token".to_owned()));
    };
    let claims = claims(&reply.access_token);
    let life = match reply.expires_in.as_ref().and_then(seconds) {
        Some(life) => life,
        None => claims.exp.and_then(until).ok_or_else(|| {
            unavailable(
                "the body has no expires_in, and the token no claim exp: its life is not known".to_owned(),
            )
        })?,
    };
    Ok(Reply { token: reply.access_token, life, subject: claims.sub })
}

/// A life that ends at a time which can be written.
fn seconds(value: &serde_json::Value) -> Option<Duration> {
    let seconds = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())?;
    Duration::try_from_secs_f64(seconds).ok().filter(|life| SystemTime::now().checked_add(*life).is_some())
}

/// The time until a moment in seconds since the Unix epoch.
fn until(moment: f64) -> Option<Duration> {
    let moment = UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(moment).ok()?)?;
    Some(moment.duration_since(SystemTime::now()).unwrap_or_default())
}

/// The claims of a JWT, without a check of its signature: the broker checks it.
fn claims(token: &str) -> Claims {
    let payload = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    payload.and_then(|payload| serde_json::from_slice(&payload).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(claims: &str) -> String {
        format!("e30.{}.c2lnbmF0dXJl", URL_SAFE_NO_PAD.encode(claims))
    }

    fn ok(body: &str) -> Reply {
        read("https://id/token", 200, body.as_bytes()).unwrap()
    }

    fn failed(status: u16, body: &str) -> String {
        read("https://id/token", status, body.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_token_has_the_life_that_the_provider_or_the_token_names() {
        let life = |seconds| Duration::from_secs(seconds);
        let token = jwt(r#"{"sub":"svc-kmr","exp":4000000000}"#);
        let reply = ok(&format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":300}}"#));
        assert_eq!(
            reply,
            Reply { token: token.clone(), life: life(300), subject: Some("svc-kmr".to_owned()) }
        );
        assert_eq!(ok(r#"{"access_token":"opaque","expires_in":"3599"}"#).life, life(3599));
        let named_by_token = ok(&format!(r#"{{"access_token":"{token}"}}"#)).life;
        assert!(named_by_token > life(1_000_000_000), "{named_by_token:?}");
        assert!(failed(200, r#"{"access_token":"opaque"}"#).contains("expires_in"));
        // The last one ends after the last time that can be written.
        for seconds in ["-1", "1e30", "1e19"] {
            let text = failed(200, &format!(r#"{{"access_token":"opaque","expires_in":{seconds}}}"#));
            assert!(text.contains("expires_in"), "{text}");
        }
    }

    #[test]
    fn an_error_has_the_providers_words_and_no_token() {
        let text = failed(401, r#"{"error":"invalid_client","error_description":"unknown client"}"#);
        assert!(
            text.contains("rejects") && text.contains("status 401, invalid_client: unknown client"),
            "{text}"
        );
        assert!(failed(503, "<html>secret</html>").contains("no token from https://id/token: status 503"));
        let text = failed(200, r#"{"token":"secret"}"#);
        assert!(text.contains("access_token") && !text.contains("secret"), "{text}");
    }
}
