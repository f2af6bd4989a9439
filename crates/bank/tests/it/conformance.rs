use std::sync::Arc;

use karbor_bank::conformance::{Options, run};
use karbor_bank::{Bank, FileSystemBank, MemoryBank};

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
