//! The rules that the safety of the protocol rests on, each by its name.
//!
//! Outside of tests every rule is kept, and the question costs nothing. A test leaves one out, to show that the
//! checks find what the rule is for.

/// A rule of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A session answers a condemned list only when it leans on none of it.
    #[cfg(test)]
    AnswerHonestly,
    /// A sweep waits until every session that it listed is resolved.
    Resolve,
    /// A fence keeps a commit record out.
    Fence,
    /// What is freed is marked a second time, after all are resolved.
    MarkAgain,
    /// What sessions at work pin is marked.
    Pins,
    /// A writer reads condemned lists, then lists the index, then reads what is gone.
    WriterOrder,
    /// A pin is put before the tombstone is looked for.
    PinFirst,
    /// Marking lists tombstones before sessions, so that a pin that was granted is seen.
    TombstonesFirst,
    /// A commit counts only if its session is not gone as a whole.
    GoneEndsSessions,
    /// A session that is named as a whole takes with it packs that nobody has seen yet.
    WholeSessions,
    /// Sessions are gone as a whole only after they were condemned and all were resolved.
    CondemnSessions,
    /// One epoch at a time.
    Sequential,
    /// What was folded stays gone.
    FoldBeforeRemove,
    /// A merged index object is there before those that it stands for are removed.
    MergeBeforeRemove,
    /// Only readers are forgotten without a word; of every other session it is remembered how it ended.
    ForgetOnlyReaders,
    /// Final lists decide: what is deleted is what stands there, not what this sweeper would have put.
    StandingFinalList,
}

/// Returns whether a rule is kept: always, but in tests that leave it out.
#[cfg(not(test))]
pub(crate) const fn kept(_rule: Rule) -> bool {
    true
}

#[cfg(test)]
thread_local! {
    static LEFT_OUT: std::cell::Cell<Option<Rule>> = const { std::cell::Cell::new(None) };
}

/// Returns whether a rule is kept.
#[cfg(test)]
pub(crate) fn kept(rule: Rule) -> bool {
    LEFT_OUT.get() != Some(rule)
}

/// Leaves a rule out on this thread while `run` runs.
#[cfg(test)]
pub(crate) fn without<T>(rule: Option<Rule>, run: impl FnOnce() -> T) -> T {
    LEFT_OUT.set(rule);
    let out = run();
    LEFT_OUT.set(None);
    out
}
