//! Composed streams: segments in parallel, in order, and by reference.

use std::io::{self};

use karbor_vault::{ComposeOptions, Grain};

use crate::support::{account, begin, commit, noise, read_stream, resource};

#[tokio::test]
async fn segments_stand_in_order_and_unchanged_ones_are_taken_by_reference() {
    let (_, account) = account().await;
    let key = resource("tree");
    let parts: Vec<Vec<u8>> =
        (0..20).map(|n| noise(n, 300_000 + 1000 * usize::try_from(n).unwrap())).collect();
    let writer = begin(&account, 1, None).await;
    let (mut composer, mut heard) =
        writer.resource(&key).compose("data", &ComposeOptions::default()).await.unwrap();
    for (tag, part) in (0..).zip(&parts) {
        let part = part.clone();
        let grain = if tag % 2 == 0 { Grain::Fine } else { Grain::Coarse };
        composer
            .produce(
                tag,
                grain,
                Box::new(move |buffer| {
                    buffer.extend_from_slice(&part);
                    Ok(())
                }),
            )
            .await
            .unwrap();
    }
    composer.finish().await.unwrap();
    commit(&writer, 1).await;
    let mut segments = Vec::new();
    while let Some(segment) = heard.recv().await {
        segments.push(segment);
    }
    let mut at = 0;
    for (segment, (tag, part)) in segments.iter().zip((0..).zip(&parts)) {
        assert_eq!((segment.tag, segment.range.clone()), (tag, at..at + part.len() as u64));
        at = segment.range.end;
    }
    assert!(read_stream(&account, 1, &key, "data").await == parts.concat());

    let writer = begin(&account, 2, Some(1)).await;
    let (mut composer, _heard) =
        writer.resource(&key).compose("data", &ComposeOptions::default()).await.unwrap();
    assert!(composer.reuse(0, segments[3].range.clone()).await.unwrap());
    let off = segments[4].range.start + 1..segments[4].range.end;
    assert!(!composer.reuse(1, off).await.unwrap(), "not at a border");
    let fresh = noise(99, 100_000);
    let produced = fresh.clone();
    let produce = Box::new(move |buffer: &mut Vec<u8>| {
        buffer.extend_from_slice(&produced);
        Ok(())
    });
    composer.produce(2, Grain::Fine, produce).await.unwrap();
    assert!(composer.reuse(3, segments[0].range.clone()).await.unwrap());
    composer.finish().await.unwrap();
    commit(&writer, 2).await;
    assert_eq!(writer.stats().read_bytes, 100_000);
    let expected = [parts[3].as_slice(), &fresh, &parts[0]].concat();
    assert!(read_stream(&account, 2, &key, "data").await == expected);
}

#[tokio::test]
async fn a_segment_that_cannot_be_produced_ends_the_stream() {
    let (_, account) = account().await;
    let writer = begin(&account, 1, None).await;
    let (mut composer, _heard) =
        writer.resource(&resource("tree")).compose("data", &ComposeOptions::default()).await.unwrap();
    composer.produce(0, Grain::Fine, Box::new(|_| Err(io::Error::other("gone")))).await.unwrap();
    let err = composer.finish().await.expect_err("a segment failed");
    assert_eq!(err.kind(), karbor_vault::ErrorKind::SourceIo);
}
