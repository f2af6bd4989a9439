//! The S3 server of this crate's tests as a process, for tests in other languages.
//!
//! Prints the URL of a bank in it and the directory that holds its objects. It lets in the key `id` with the secret
//! `secret`, and ends when its standard input does.

#[expect(dead_code, reason = "only the crate's own tests let it misbehave")]
#[path = "../tests/it/s3_server.rs"]
mod s3_server;

#[expect(clippy::print_stdout, reason = "this is how whoever starts it hears where it is")]
#[tokio::main]
async fn main() -> std::io::Result<()> {
    let server = s3_server::S3Server::start().await;
    println!("{}", server.location(""));
    println!("{}", server.directory().display());
    let ended = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    ended.await?.map(drop)
}
