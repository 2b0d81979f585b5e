//! How far an import or export has come: a bar for people, one line at the end for everybody.

use std::{fmt::Display, time::Instant};

use indicatif::{ProgressBar, ProgressStyle};

pub(super) struct Progress {
    /// Hidden by itself when stderr is no terminal.
    bar: ProgressBar,
    verb: &'static str,
    began: Instant,
    done: u64,
    failed: u64,
}

impl Progress {
    /// `bytes` of input are to be read, if that is known.
    pub(super) fn new(verb: &'static str, bytes: Option<u64>) -> Self {
        let (bar, template) = match bytes {
            Some(bytes) => (ProgressBar::new(bytes), "{bar:30} {percent:>3} %  {msg}"),
            None => (ProgressBar::new_spinner(), "{spinner} {msg}"),
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        Self { bar: bar.with_style(style), verb, began: Instant::now(), done: 0, failed: 0 }
    }

    /// One more; `position` bytes of the input are behind it.
    pub(super) fn done(&mut self, position: u64) {
        self.done += 1;
        if position > self.bar.position() {
            self.bar.set_position(position);
        }
        if !self.bar.is_hidden() && self.done.is_multiple_of(64) {
            self.bar.set_message(format!("{} keys, {:.0}/s", self.done, self.rate()));
        }
    }

    pub(super) fn failed(&mut self, what: impl Display) {
        self.failed += 1;
        self.bar.suspend(|| eprintln!("{what}"));
    }

    fn rate(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let done = self.done as f64;
        done / self.began.elapsed().as_secs_f64().max(1e-3)
    }

    /// Says how it was; whether nothing failed.
    pub(super) fn finish(self) -> bool {
        let Self { ref bar, verb, began, done, failed } = self;
        bar.finish_and_clear();
        let seconds = began.elapsed().as_secs_f64();
        eprintln!("{verb} {done} keys in {seconds:.1} s ({:.0}/s), {failed} failed", self.rate());
        failed == 0
    }
}
