use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use karbor_bank::wrap::{
    Call, Counting, Fault, Faulty, Hooked, LimitOptions, Limited, Moment, Operation, RetryOptions, Retrying,
    Rule,
};
use karbor_bank::{Bank, Error, ErrorKind, MemoryBank, PutMode, Version};
use tokio::time::Instant;

use crate::{body, key};

fn memory() -> Arc<dyn Bank> {
    Arc::new(MemoryBank::new())
}

fn faulty(rule: Rule) -> Arc<Faulty> {
    let faulty = Faulty::new(memory(), 7);
    faulty.add(rule);
    Arc::new(faulty)
}

#[tokio::test]
async fn counts_are_those_of_the_calls() {
    let counting = Counting::new(memory());
    counting.put(&key("k"), vec!["abc".into(), "de".into()], PutMode::Create).await.expect("a put");
    counting.put(&key("k"), body("abc"), PutMode::Create).await.expect_err("it is taken");
    let before = counting.stats();
    counting.get(&key("k"), Some(1..3)).await.expect("a get");
    counting.get(&key("absent"), None).await.expect_err("it is absent");
    counting.head(&key("k")).await.expect("a head");
    counting.list("", None, 10).await.expect("a listing");
    counting.delete(&key("k")).await.expect("a delete");

    let stats = counting.stats();
    let of = |operation| {
        let stats = stats.of(operation);
        (stats.calls, stats.failures, stats.bytes)
    };
    assert_eq!(of(Operation::Put), (2, 1, 5));
    assert_eq!(of(Operation::Get), (2, 1, 2));
    assert_eq!(of(Operation::Head), (1, 0, 0));
    assert_eq!(of(Operation::List), (1, 0, 0));
    assert_eq!(of(Operation::Delete), (1, 0, 0));
    assert_eq!((stats.calls(), stats.since(&before).calls()), (7, 5));
}

#[tokio::test(start_paused = true)]
async fn bandwidth_is_kept_by_puts_and_gets_together() {
    let options = LimitOptions { bytes_per_second: NonZeroU64::new(1000), concurrency: None };
    let limited = Limited::new(memory(), options);
    let start = Instant::now();
    let puts = (0..10).map(|n| {
        let (limited, key) = (&limited, key(&format!("k{n}")));
        async move { limited.put(&key, vec![vec![0; 500].into()], PutMode::Create).await.expect("a put") }
    });
    join_all(puts).await;
    let seconds = start.elapsed().as_secs_f64();
    assert!((4.9..5.1).contains(&seconds), "5000 bytes took {seconds} s");

    for n in 0..4 {
        limited.get(&key(&format!("k{n}")), Some(0..250)).await.expect("a get");
    }
    let seconds = start.elapsed().as_secs_f64();
    assert!((5.9..6.1).contains(&seconds), "6000 bytes took {seconds} s");

    limited.list("", None, 10).await.expect("a listing");
    assert!(start.elapsed().as_secs_f64() - seconds < 0.01, "what moves no bytes does not wait");
}

#[tokio::test(start_paused = true)]
async fn so_many_calls_run_at_once_and_no_more() {
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let watched = {
        let (running, most) = (Arc::clone(&running), Arc::clone(&most));
        Hooked::new(memory(), move |moment, _| {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            async move {
                if moment == Moment::Before {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    // All others that are let through come to this point before this one goes on.
                    tokio::task::yield_now().await;
                } else {
                    running.fetch_sub(1, Ordering::SeqCst);
                }
                Ok(())
            }
        })
    };
    let options = LimitOptions { bytes_per_second: None, concurrency: NonZeroUsize::new(3) };
    let limited = Limited::new(Arc::new(watched), options);
    let calls = (0..20).map(|n| {
        let (limited, key) = (&limited, key(&format!("k{n}")));
        async move {
            limited.put(&key, body("x"), PutMode::Create).await.expect("a put");
            limited.delete(&key).await.expect("a delete");
        }
    });
    join_all(calls).await;
    assert_eq!(most.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn attempts_are_bounded_and_their_pauses_grow() {
    let faulty = faulty(Rule::new(Fault::Refuse(ErrorKind::Unavailable)));
    let options = RetryOptions {
        attempts: NonZeroU32::new(5).expect("not zero"),
        first_delay_ms: 100,
        max_delay_ms: 300,
        ..RetryOptions::default()
    };
    let retrying = Retrying::new(Arc::clone(&faulty) as Arc<dyn Bank>, options, 3);
    let start = Instant::now();
    let error = retrying.get(&key("k"), None).await.expect_err("it never works");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert_eq!(faulty.fired().len(), 5);
    // Between half and the whole of 100 + 200 + 300 + 300 milliseconds.
    let waited = start.elapsed();
    assert!((450..=910).contains(&waited.as_millis()), "{waited:?}");
}

#[tokio::test]
async fn what_will_not_pass_is_not_tried_again() {
    for kind in [ErrorKind::Denied, ErrorKind::Full, ErrorKind::Unsupported, ErrorKind::Other] {
        let faulty = faulty(Rule::new(Fault::Refuse(kind)));
        let retrying = Retrying::new(Arc::clone(&faulty) as Arc<dyn Bank>, RetryOptions::default(), 3);
        let error = retrying.put(&key("k"), body("x"), PutMode::Create).await.expect_err("refused");
        assert_eq!((error.kind, faulty.fired().len()), (kind, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_without_reply_ends() {
    let faulty = faulty(Rule::new(Fault::Hang).times(2));
    let options = RetryOptions { attempt_timeout_seconds: 60, ..RetryOptions::default() };
    let retrying = Retrying::new(Arc::clone(&faulty) as Arc<dyn Bank>, options, 3);
    let start = Instant::now();
    retrying.put(&key("k"), body("x"), PutMode::Create).await.expect("the third attempt works");
    assert!((120..130).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_swap_whose_reply_was_lost_is_found_out() {
    let faulty = faulty(Rule::new(Fault::LoseReply).on(Operation::Put).at(1..2));
    let retrying = Retrying::new(Arc::clone(&faulty) as Arc<dyn Bank>, RetryOptions::default(), 3);
    let version = retrying.put(&key("k"), body("one"), PutMode::Create).await.expect("a put");
    let swap = retrying.put(&key("k"), body("two"), PutMode::Swap(version.clone())).await;
    assert_eq!(
        retrying.head(&key("k")).await.expect("it stands").version,
        Some(swap.expect("it had succeeded"))
    );
    let stale = retrying.put(&key("k"), body("three"), PutMode::Swap(version)).await;
    assert_eq!(stale.expect_err("it is stale").kind, ErrorKind::Precondition);
}

#[tokio::test(start_paused = true)]
async fn while_it_is_not_known_whether_a_put_succeeded_it_is_not_called_refused() {
    let faulty = faulty(Rule::new(Fault::LoseReply).on(Operation::Put).times(1));
    faulty.add(Rule::new(Fault::Refuse(ErrorKind::Unavailable)).on(Operation::Head));
    let retrying = Retrying::new(Arc::clone(&faulty) as Arc<dyn Bank>, RetryOptions::default(), 3);
    let error = retrying.put(&key("k"), body("x"), PutMode::Create).await.expect_err("nobody can tell");
    assert_eq!(error.kind, ErrorKind::Unavailable);
}

#[tokio::test]
async fn faults_do_what_they_are_called() {
    let put = |faulty: Arc<Faulty>| async move { faulty.put(&key("k"), body("0123"), PutMode::Create).await };
    for fault in [Fault::Torn, Fault::FULL, Fault::Refuse(ErrorKind::Denied)] {
        let faulty = faulty(Rule::new(fault).on(Operation::Put));
        let kind = put(Arc::clone(&faulty)).await.expect_err("it is to fail").kind;
        let expected = match fault {
            Fault::Refuse(kind) => kind,
            _ => ErrorKind::Unavailable,
        };
        assert_eq!(kind, expected, "{fault:?}");
        let nothing = faulty.get(&key("k"), None).await.expect_err("nothing is visible");
        assert_eq!(nothing.kind, ErrorKind::NotFound, "{fault:?}");
    }

    let lost = faulty(Rule::new(Fault::LoseReply).on(Operation::Put));
    assert_eq!(put(Arc::clone(&lost)).await.expect_err("no reply").kind, ErrorKind::Unavailable);
    assert_eq!(lost.get(&key("k"), None).await.expect("the effect is there").bytes, "0123");
    let again = put(Arc::clone(&lost)).await.expect_err("it is taken");
    assert_eq!(again.kind, ErrorKind::AlreadyExists, "a failure is not turned into another one");

    for (fault, bytes) in [(Fault::Short, "01"), (Fault::Flip, "01\"3")] {
        let damaged = faulty(Rule::new(fault).on(Operation::Get).times(1));
        put(Arc::clone(&damaged)).await.expect("a put");
        assert_eq!(damaged.get(&key("k"), None).await.expect("a get").bytes, bytes, "{fault:?}");
        assert_eq!(damaged.get(&key("k"), None).await.expect("a get").bytes, "0123", "only once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_call_is_made_after_its_pause() {
    let slow = faulty(Rule::new(Fault::Slow(Duration::from_secs(3))));
    slow.add(Rule::new(Fault::LoseReply).on(Operation::Put));
    let start = Instant::now();
    slow.put(&key("k"), body("x"), PutMode::Create).await.expect_err("further rules apply");
    slow.get(&key("k"), None).await.expect("it was put");
    assert_eq!(start.elapsed().as_secs(), 6);
}

#[tokio::test]
async fn rules_choose_by_number_key_and_chance() {
    let refuse = || Rule::new(Fault::FULL);
    let outcomes = |rule: Rule| async move {
        let faulty = faulty(rule);
        let mut refused = Vec::new();
        for n in 0..6 {
            let key = key(&format!("{}/{n}", if n % 2 == 0 { "even" } else { "odd" }));
            if faulty.put(&key, body("x"), PutMode::Create).await.is_err() {
                refused.push(n);
            }
            faulty.list("", None, 1).await.expect("listings are not meant");
        }
        refused
    };
    assert_eq!(outcomes(refuse().on(Operation::Put)).await, [0, 1, 2, 3, 4, 5]);
    assert_eq!(outcomes(refuse().on(Operation::Put).at(2..4)).await, [2, 3]);
    assert_eq!(outcomes(refuse().under("even/")).await, [0, 2, 4]);
    assert_eq!(
        outcomes(refuse().under("even/").at(1..2)).await,
        [2],
        "numbers count the calls that are meant"
    );
    assert_eq!(outcomes(refuse().containing("dd/")).await, [1, 3, 5]);
    assert_eq!(outcomes(refuse().under("odd/").times(2)).await, [1, 3]);
    assert_eq!(outcomes(refuse().chance(0.0)).await, Vec::<i32>::new());

    let chance = || async {
        let faulty = faulty(refuse().chance(0.25));
        for n in 0..400 {
            drop(faulty.get(&key(&format!("k{n}")), None).await);
        }
        let fired: Vec<String> = faulty.fired().into_iter().map(|fired| fired.call.key).collect();
        faulty.heal();
        faulty.put(&key("k"), body("x"), PutMode::Create).await.expect("it is healed");
        fired
    };
    let fired = chance().await;
    assert!((60..140).contains(&fired.len()), "{} of 400", fired.len());
    assert_eq!(fired, chance().await, "a seed repeats");
}

#[tokio::test]
async fn hooks_see_each_call_and_may_lose_it_or_its_reply() {
    let seen = Arc::new(Mutex::new(Vec::<(Moment, Call)>::new()));
    let hooked = {
        let seen = Arc::clone(&seen);
        Hooked::new(memory(), move |moment, call: Call| {
            seen.lock().expect("not poisoned").push((moment, call.clone()));
            async move {
                match (call.key.as_str(), moment) {
                    ("never", Moment::Before) | ("unanswered", Moment::After { .. }) => {
                        Err(Error::new(ErrorKind::Unavailable, call.operation.name(), call.key))
                    }
                    _ => Ok(()),
                }
            }
        })
    };
    hooked.put(&key("never"), body("x"), PutMode::Create).await.expect_err("it is not made");
    hooked.put(&key("unanswered"), body("xyz"), PutMode::Create).await.expect_err("its reply is lost");
    let swap = PutMode::Swap(Version("stale".to_owned()));
    hooked.put(&key("k"), body("x"), swap.clone()).await.expect_err("the version is stale");

    let seen = std::mem::take(&mut *seen.lock().expect("not poisoned"));
    let call = |key: &str, body_bytes, mode: &PutMode| Call {
        operation: Operation::Put,
        key: key.to_owned(),
        mode: Some(mode.clone()),
        body_bytes,
    };
    let refused = Moment::After { error: Some(ErrorKind::Precondition) };
    let expected = [
        (Moment::Before, call("never", 1, &PutMode::Create)),
        (Moment::Before, call("unanswered", 3, &PutMode::Create)),
        (Moment::After { error: None }, call("unanswered", 3, &PutMode::Create)),
        (Moment::Before, call("k", 1, &swap)),
        (refused, call("k", 1, &swap)),
    ];
    assert_eq!(seen, expected);
    let listed = hooked.list("", None, 10).await.expect("a listing");
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].key, key("unanswered"));
}

#[tokio::test]
async fn a_caller_stopped_at_a_hook_has_not_called() {
    let memory = MemoryBank::new();
    let hooked = Hooked::new(Arc::new(memory.clone()), |moment, _| async move {
        if moment == Moment::Before { std::future::pending().await } else { Ok(()) }
    });
    let key = key("k");
    let mut put = Box::pin(hooked.put(&key, body("x"), PutMode::Create));
    assert!(futures::poll!(put.as_mut()).is_pending());
    drop(put);
    assert_eq!(memory.contents(), []);
}
