//! When a call is tried again, and after how long.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Method, StatusCode};
use tokio::time::Instant;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Counts the attempts of one call.
pub(crate) struct Attempts {
    deadline: Instant,
    made: u32,
}

impl Attempts {
    pub(crate) fn within(patience: Duration) -> Self {
        Self { deadline: Instant::now() + patience, made: 0 }
    }

    /// Waits until the next attempt, at least as long as the service asked for; says no when that would be too late.
    pub(crate) async fn pause(&mut self, asked: Option<Duration>) -> bool {
        let longest = FIRST_PAUSE.saturating_mul(1 << self.made.min(10)).min(LONGEST_PAUSE);
        self.made += 1;
        // Spread over the second half, so that those who failed together do not come back together.
        let share = RandomState::new().build_hasher().finish() % 512;
        let spread = longest / 1024 * (512 + u32::try_from(share).expect("below 512"));
        let wake = Instant::now() + spread.max(asked.unwrap_or_default());
        if wake > self.deadline {
            return false;
        }
        tokio::time::sleep_until(wake).await;
        true
    }
}

/// Returns whether an answer says that the same call may succeed later.
pub(crate) fn may_help(method: &Method, is_idempotent: bool, status: StatusCode) -> bool {
    match status.as_u16() {
        // The call was not let in: it had no effect, whatever it is.
        429 => true,
        500 => *method == Method::GET || *method == Method::HEAD,
        502..=504 => is_idempotent,
        _ => false,
    }
}

/// Reads how long the service wants us to wait.
pub(crate) fn asked_pause(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    // A date is compared with the service's own clock, which need not be ours.
    let date = |text: &str| jiff::fmt::rfc2822::parse(text).ok().map(|zoned| zoned.timestamp());
    let now = date(headers.get(reqwest::header::DATE)?.to_str().ok()?)?;
    Duration::try_from(date(value)? - now).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_times_are_read() {
        let asked = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().expect("a value"));
            headers.insert("date", "Thu, 26 Nov 2026 06:51:29 GMT".parse().expect("a value"));
            asked_pause(&headers)
        };
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        assert_eq!(asked("Thu, 26 Nov 2026 06:51:39 GMT"), Some(Duration::from_secs(10)));
        assert_eq!(asked("Thu, 26 Nov 2026 06:51:00 GMT"), None);
        assert_eq!(asked("soon"), None);
        assert_eq!(asked_pause(&HeaderMap::new()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_end_and_heed_what_was_asked() {
        let start = Instant::now();
        let mut attempts = Attempts::within(Duration::from_secs(60));
        assert!(attempts.pause(Some(Duration::from_secs(20))).await);
        assert!(start.elapsed() >= Duration::from_secs(20));
        while attempts.pause(None).await {}
        assert!(start.elapsed() <= Duration::from_secs(60));
        assert!(!attempts.pause(Some(Duration::from_secs(100))).await);
    }

    #[test]
    fn what_may_have_had_an_effect_is_not_done_twice() {
        let status = |code| StatusCode::from_u16(code).expect("a status");
        for (method, is_idempotent, code, expected) in [
            (Method::GET, true, 500, true),
            (Method::DELETE, true, 500, false),
            (Method::DELETE, true, 503, true),
            (Method::POST, false, 503, false),
            (Method::POST, false, 429, true),
            (Method::POST, true, 504, true),
            (Method::GET, true, 501, false),
            (Method::GET, true, 409, false),
        ] {
            assert_eq!(may_help(&method, is_idempotent, status(code)), expected, "{method} {code}");
        }
    }
}
