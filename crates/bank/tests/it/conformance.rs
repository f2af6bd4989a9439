use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;

use karbor_bank::conformance::{Options, run};
use karbor_bank::wrap::{Counting, Faulty, Hooked, LimitOptions, Limited, RetryOptions, Retrying};
use karbor_bank::{Bank, FileSystemBank, MemoryBank};

use crate::s3_server::S3Server;

#[tokio::test(flavor = "multi_thread")]
async fn memory_conforms() {
    let bank: Arc<dyn Bank> = Arc::new(MemoryBank::new());
    run(&bank, Options::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn file_system_conforms() {
    let directory = tempfile::tempdir().expect("a directory");
    let bank: Arc<dyn Bank> = Arc::new(FileSystemBank::create(directory.path()).expect("a bank"));
    run(&bank, Options::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_conforms() {
    let server = S3Server::start().await;
    let options = Options {
        large_object_bytes: 3 << 20,
        races: 6,
        racers: 8,
        model_steps: 120,
        // The server names its files by the whole key.
        long_keys: false,
        ..Options::default()
    };
    run(&server.retrying_bank("some/prefix"), options).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrappers_conform() {
    let memory = || Arc::new(MemoryBank::new()) as Arc<dyn Bank>;
    let limits =
        LimitOptions { bytes_per_second: NonZeroU64::new(1 << 40), concurrency: NonZeroUsize::new(3) };
    let wrapped: Vec<Arc<dyn Bank>> = vec![
        Arc::new(Counting::new(memory())),
        Arc::new(Limited::new(memory(), limits)),
        Arc::new(Retrying::new(memory(), RetryOptions::default(), 1)),
        Arc::new(Faulty::new(memory(), 1)),
        Arc::new(Hooked::new(memory(), |_, _| async {
            tokio::task::yield_now().await;
            Ok(())
        })),
    ];
    for bank in wrapped {
        run(&bank, Options { large_object_bytes: 1 << 20, races: 10, ..Options::default() }).await;
    }
}
