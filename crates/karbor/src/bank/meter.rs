//! Progress of work that this process does itself.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use karbor_vault::ProgressSink;

use crate::client::{Output, bytes};

/// A bar on a terminal, nothing elsewhere.
pub(crate) struct Meter {
    bar: ProgressBar,
    stored: AtomicU64,
}

impl Meter {
    pub(crate) fn new(output: &Output) -> Arc<Self> {
        let hidden = output.is_json() || !std::io::stderr().is_terminal();
        let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        let template =
            "[{bar:32}] {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left {msg}";
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("=> "));
        Arc::new(Self { bar, stored: AtomicU64::new(0) })
    }

    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl ProgressSink for Meter {
    fn advance(&self, done: u64, stored: u64) {
        self.bar.inc(done);
        if stored > 0 {
            let all = self.stored.fetch_add(stored, Ordering::Relaxed) + stored;
            self.bar.set_message(format!("({} added)", bytes(all)));
        }
    }

    fn total(&self, bytes: u64) {
        self.bar.set_length(bytes);
    }
}
