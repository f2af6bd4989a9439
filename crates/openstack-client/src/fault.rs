//! What services say when they refuse: each has its own shape.

use reqwest::StatusCode;
use serde_json::Value;

use crate::error::ErrorKind;

/// How much of a reason is kept.
const REASON_MAX_CHARS: usize = 1000;

/// Returns the kind of a refusal, and its reason in the service's own words.
pub(crate) fn read(status: StatusCode, body: &[u8]) -> (ErrorKind, String) {
    let text = String::from_utf8_lossy(body);
    let document: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
    let fault = if document.is_object() { from_document(&document) } else { Fault::default() };
    let reason = fault
        .reason
        .or_else(|| from_page(&text, status))
        .unwrap_or_else(|| status.canonical_reason().unwrap_or("it gave no reason").to_owned());
    let kind = kind(status, &fault.name, &reason);
    (kind, shortened(&reason))
}

fn kind(status: StatusCode, fault: &str, reason: &str) -> ErrorKind {
    let speaks_of_quota = || {
        let reason = reason.to_ascii_lowercase();
        reason.contains("quota") || reason.contains("limit exceeded") || reason.contains("exceeds allowed")
    };
    match status.as_u16() {
        401 => ErrorKind::Unauthenticated,
        403 | 409 | 413 if fault == "OverQuota" || fault == "overLimit" || speaks_of_quota() => {
            ErrorKind::QuotaExceeded
        }
        403 => ErrorKind::Denied,
        404 | 410 => ErrorKind::NotFound,
        409 | 412 | 423 => ErrorKind::Conflict,
        413 | 507 => ErrorKind::QuotaExceeded,
        408 | 504 => ErrorKind::Timeout,
        429 | 502 | 503 => ErrorKind::Unavailable,
        400..=499 => ErrorKind::Invalid,
        _ => ErrorKind::Other,
    }
}

#[derive(Default)]
struct Fault {
    name: String,
    reason: Option<String>,
}

/// Reads `{"error": {…}}` (Keystone), `{"NeutronError": {…}}`, `{"itemNotFound": {…}}` (Nova, Cinder, Manila), and
/// `{"message": …}` (Glance).
fn from_document(document: &Value) -> Fault {
    let said =
        |value: &Value| value.as_str().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
    if let Some(reason) = said(&document["message"]) {
        return Fault { name: String::new(), reason: Some(reason) };
    }
    for (name, fault) in document.as_object().into_iter().flatten() {
        if let Some(reason) = said(fault) {
            return Fault { name: name.clone(), reason: Some(reason) };
        }
        let Some(reason) = said(&fault["message"]) else { continue };
        let reason = match said(&fault["detail"]) {
            Some(detail) => format!("{reason}: {detail}"),
            None => reason,
        };
        let name = fault["type"].as_str().unwrap_or(name).to_owned();
        return Fault { name, reason: Some(reason) };
    }
    Fault::default()
}

/// Reads a page of HTML (Glance, Swift, gateways) or plain text: its words without its title.
fn from_page(text: &str, status: StatusCode) -> Option<String> {
    let body = match text.find("<body") {
        Some(start) => &text[start..],
        None => text,
    };
    let mut words = String::with_capacity(body.len().min(REASON_MAX_CHARS));
    let mut is_tag = false;
    for c in body.chars().take(8 * REASON_MAX_CHARS) {
        match c {
            '<' => is_tag = true,
            '>' if is_tag => {
                is_tag = false;
                words.push(' ');
            }
            _ if is_tag => {}
            c => words.push(c),
        }
    }
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    let title = status.canonical_reason().unwrap_or_default();
    let numbered = format!("{} {title}", status.as_u16());
    let rest = words.strip_prefix(&numbered).or_else(|| words.strip_prefix(title)).unwrap_or(&words).trim();
    (!rest.is_empty()).then(|| rest.to_owned())
}

fn shortened(reason: &str) -> String {
    let printable = reason.chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(REASON_MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_is_understood() {
        use ErrorKind as K;
        for (status, body, kind, reason) in [
            (
                401,
                r#"{"error":{"code":401,"message":"The request you have made requires authentication.","title":"Unauthorized"}}"#,
                K::Unauthenticated,
                "The request you have made requires authentication.",
            ),
            (
                404,
                r#"{"itemNotFound": {"code": 404, "message": "Instance xx could not be found."}}"#,
                K::NotFound,
                "Instance xx could not be found.",
            ),
            (
                403,
                r#"{"forbidden": {"code": 403, "message": "Quota exceeded for cores: Requested 4"}}"#,
                K::QuotaExceeded,
                "Quota exceeded for cores: Requested 4",
            ),
            (
                403,
                r#"{"forbidden": {"code": 403, "message": "Policy doesn't allow this"}}"#,
                K::Denied,
                "Policy doesn't allow this",
            ),
            (
                413,
                r#"{"overLimit": {"code": 413, "message": "VolumeLimitExceeded: Maximum number of volumes allowed (10)", "retryAfter": "0"}}"#,
                K::QuotaExceeded,
                "VolumeLimitExceeded: Maximum number of volumes allowed (10)",
            ),
            (
                409,
                r#"{"NeutronError": {"type": "OverQuota", "message": "No more ports", "detail": ""}}"#,
                K::QuotaExceeded,
                "No more ports",
            ),
            (
                409,
                r#"{"NeutronError": {"type": "IpAddressInUse", "message": "Unable", "detail": "10.0.0.4"}}"#,
                K::Conflict,
                "Unable: 10.0.0.4",
            ),
            (
                404,
                "<html>\n <head>\n  <title>404 Not Found</title>\n </head>\n <body>\n  <h1>404 Not Found</h1>\n  No image found with ID xx<br /><br />\n </body>\n</html>",
                K::NotFound,
                "No image found with ID xx",
            ),
            (
                403,
                "<html><h1>Forbidden</h1><p>Access was denied to this resource.</p></html>",
                K::Denied,
                "Access was denied to this resource.",
            ),
            (503, "", K::Unavailable, "Service Unavailable"),
            (400, "[]", K::Invalid, "[]"),
            (
                500,
                r#"{"computeFault": {"code": 500, "message": ""}}"#,
                K::Other,
                r#"{"computeFault": {"code": 500, "message": ""}}"#,
            ),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(read(status, body.as_bytes()), (kind, reason.to_owned()), "{status} {body}");
        }
    }

    #[test]
    fn long_and_strange_reasons_are_cut_and_cleaned() {
        let (_, reason) = read(StatusCode::BAD_GATEWAY, &[b'x'; 100_000]);
        assert_eq!(reason.len(), REASON_MAX_CHARS);
        let (_, reason) = read(StatusCode::BAD_GATEWAY, br#"{"message": "a\u001b[31mb"}"#);
        assert_eq!(reason, "a [31mb");
    }
}
