//! Fails on purpose: by call number, by key, by chance.
//!
//! Invariant: apart from [`Fault::Short`] and [`Fault::Flip`], which stand for damage, every fault keeps the
//! contract of the bank: a put that fails leaves all of its object or nothing.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::wrap::random::SplitMix;
use crate::wrap::{Call, Operation};
use crate::{Bank, Body, Capabilities, Error, ErrorKind, Key, Meta, Object, PutMode, Result, Version};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call is not made and fails with this kind.
    Refuse(ErrorKind),
    /// The call is made after a pause. Further rules are looked at.
    Slow(Duration),
    /// The connection breaks while the body is sent: [`ErrorKind::Unavailable`], and nothing is visible.
    Torn,
    /// The call is made and has its effect, but its reply is lost: [`ErrorKind::Unavailable`].
    LoseReply,
    /// The call never returns, and is not made.
    Hang,
    /// A get returns only the first half of what it should, as damaged media do.
    Short,
    /// A get returns its bytes with one bit in the middle flipped.
    Flip,
}

/// When something goes wrong. A new rule is for every call; each method narrows it.
#[derive(Debug, Clone)]
pub struct Rule {
    fault: Fault,
    operation: Option<Operation>,
    prefix: String,
    contained: String,
    numbers: Range<u64>,
    chance: f64,
    times_left: u64,
    seen: u64,
}

/// A fault that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fired {
    /// The call that met it.
    pub call: Call,
    /// What went wrong.
    pub fault: Fault,
}

/// Makes calls to another bank fail as its rules say. Of the rules that apply, the one added first decides.
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn Bank>,
    state: Mutex<State>,
    random: SplitMix,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<Rule>,
    fired: Vec<Fired>,
}

impl Fault {
    /// The place is full.
    pub const FULL: Self = Self::Refuse(ErrorKind::Full);
}

impl Rule {
    /// Makes a rule that always applies.
    pub fn new(fault: Fault) -> Self {
        Self {
            fault,
            operation: None,
            prefix: String::new(),
            contained: String::new(),
            numbers: 0..u64::MAX,
            chance: 1.0,
            times_left: u64::MAX,
            seen: 0,
        }
    }

    /// Only for calls of one kind.
    #[must_use]
    pub fn on(mut self, operation: Operation) -> Self {
        self.operation = Some(operation);
        self
    }

    /// Only for keys, or prefixes of listings, that start with `prefix`.
    #[must_use]
    pub fn under(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Only for keys, or prefixes of listings, that contain `text`, such as `/commits/`.
    #[must_use]
    pub fn containing(mut self, text: impl Into<String>) -> Self {
        self.contained = text.into();
        self
    }

    /// Only for these of the calls that the rule is otherwise for, counted from zero.
    #[must_use]
    pub fn at(mut self, numbers: Range<u64>) -> Self {
        self.numbers = numbers;
        self
    }

    /// Only with this probability, from zero to one.
    #[must_use]
    pub fn chance(mut self, chance: f64) -> Self {
        self.chance = chance;
        self
    }

    /// At most so often.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times_left = times;
        self
    }

    fn applies(&mut self, call: &Call, random: &SplitMix) -> bool {
        let meant = self.operation.is_none_or(|operation| operation == call.operation)
            && call.key.starts_with(&self.prefix)
            && call.key.contains(&self.contained);
        if !meant {
            return false;
        }
        let number = self.seen;
        self.seen += 1;
        let happens = self.times_left > 0
            && self.numbers.contains(&number)
            && (self.chance >= 1.0 || random.unit() < self.chance);
        if happens {
            self.times_left -= 1;
        }
        happens
    }
}

impl Faulty {
    /// Wraps `inner`, without any rules; `seed` decides what happens by chance.
    pub fn new(inner: Arc<dyn Bank>, seed: u64) -> Self {
        Self { inner, state: Mutex::default(), random: SplitMix::new(seed) }
    }

    /// Adds a rule after those that are there.
    pub fn add(&self, rule: Rule) {
        self.state(|state| state.rules.push(rule));
    }

    /// Removes all rules: from now on everything works.
    pub fn heal(&self) {
        self.state(|state| state.rules.clear());
    }

    /// Returns the faults that happened so far, in order.
    pub fn fired(&self) -> Vec<Fired> {
        self.state(|state| state.fired.clone())
    }

    fn state<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns how long to wait and what then goes wrong.
    fn decide(&self, call: &Call) -> (Duration, Option<Fault>) {
        self.state(|state| {
            let mut pause = Duration::ZERO;
            for rule in &mut state.rules {
                if !rule.applies(call, &self.random) {
                    continue;
                }
                state.fired.push(Fired { call: call.clone(), fault: rule.fault });
                match rule.fault {
                    Fault::Slow(more) => pause += more,
                    fault => return (pause, Some(fault)),
                }
            }
            (pause, None)
        })
    }

    /// Makes the call or not; `damage` is told what to do to the bytes of a reply.
    async fn around<T>(
        &self,
        call: Call,
        work: impl Future<Output = Result<T>> + Send,
        damage: impl FnOnce(T, Fault) -> T + Send,
    ) -> Result<T> {
        let (pause, fault) = self.decide(&call);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let failed = |kind, why: &'static str| {
            Err(Error::new(kind, call.operation.name(), call.key.clone()).with_source(why))
        };
        match fault {
            None | Some(Fault::Slow(_)) => work.await,
            Some(Fault::Refuse(kind)) => failed(kind, "refused on purpose"),
            Some(Fault::Torn) => failed(ErrorKind::Unavailable, "the connection broke on purpose"),
            Some(Fault::LoseReply) => {
                work.await?;
                failed(ErrorKind::Unavailable, "the reply was lost on purpose")
            }
            Some(Fault::Hang) => std::future::pending().await,
            Some(fault @ (Fault::Short | Fault::Flip)) => work.await.map(|reply| damage(reply, fault)),
        }
    }
}

#[async_trait]
impl Bank for Faulty {
    async fn put(&self, key: &Key, body: Body, mode: PutMode) -> Result<Version> {
        let call = Call::put(key, &body, &mode);
        self.around(call, self.inner.put(key, body, mode), |version, _| version).await
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<Object> {
        let call = Call::other(Operation::Get, key.as_str());
        self.around(call, self.inner.get(key, range), damaged).await
    }

    async fn head(&self, key: &Key) -> Result<Meta> {
        let call = Call::other(Operation::Head, key.as_str());
        self.around(call, self.inner.head(key), |meta, _| meta).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let call = Call::other(Operation::Delete, key.as_str());
        self.around(call, self.inner.delete(key), |(), _| ()).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Meta>> {
        let call = Call::other(Operation::List, prefix);
        self.around(call, self.inner.list(prefix, after, limit), |metas, _| metas).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn name(&self) -> String {
        self.inner.name()
    }
}

fn damaged(mut object: Object, fault: Fault) -> Object {
    let middle = object.bytes.len() / 2;
    if fault == Fault::Short {
        object.bytes.truncate(middle);
        return object;
    }
    let mut bytes = object.bytes.to_vec();
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 0x10;
    }
    object.bytes = Bytes::from(bytes);
    object
}
