//! Collections in pages, as each service makes them.

use karbor_openstack_client::{ErrorKind, ServiceType};
use serde_json::{Value, json};

use crate::cloud::{FakeCloud, json};

/// Lists two pages, and says how the second one was asked for.
async fn second_page(kind: ServiceType, first: Value, query: &[(&str, &str)]) -> String {
    let fake = FakeCloud::start().await;
    let service = fake.session().await.service(kind).expect("it is in the catalog");
    fake.say(json(200, &first));
    fake.say(json(200, &json!({"things": [{"id": "c"}]})));
    let found: Vec<Value> = service.pages("/things", query, "things").all().await.expect("both pages");
    assert_eq!(found, [json!({"id": "a"}), json!({"id": "b"}), json!({"id": "c"})]);
    let asked = fake.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].path, asked[1].path, "the link's host and path are not used");
    asked[1].query.clone()
}

#[tokio::test]
async fn each_service_names_the_next_page_in_its_own_way() {
    use ServiceType::{BlockStorage, Compute, Identity, Image, Network, SharedFileSystem};
    let things = json!([{"id": "a"}, {"id": "b"}]);
    let with = |name: &str, value: Value| json!({"things": things, name: value});
    let links = json!([{"rel": "next", "href": "http://inside:1/v9/things?limit=2&marker=b"}]);
    for kind in [Compute, BlockStorage, Network, SharedFileSystem] {
        let query = second_page(kind, with("things_links", links.clone()), &[("limit", "2")]).await;
        assert_eq!(query, "limit=2&marker=b", "{kind}");
    }
    let query = second_page(Image, with("next", json!("/v2/things?marker=b%20c")), &[]).await;
    assert_eq!(query, "marker=b+c");
    let query = second_page(Identity, with("links", json!({"next": "http://k/v3/things?page=2"})), &[]).await;
    assert_eq!(query, "page=2");
    // Some of Manila's collections have no links.
    let query = second_page(SharedFileSystem, json!({"things": things}), &[("limit", "2")]).await;
    assert_eq!(query, "limit=2&offset=2");
}

#[tokio::test]
async fn a_page_that_is_none_is_an_error() {
    let loops = json!({"things": [{}], "next": "/things?marker=b"});
    for (pages, reason) in [
        (vec![json!({"other": []})], "the answer has no list `things`"),
        (vec![json!({"things": {}})], "the answer has no list `things`"),
        (vec![loops.clone(), loops], "the next page is this page"),
    ] {
        let fake = FakeCloud::start().await;
        let service = fake.session().await.service(ServiceType::Image).expect("it is in the catalog");
        for page in pages {
            fake.say(json(200, &page));
        }
        let error = service.pages::<Value>("/things", &[], "things").all().await.expect_err(reason);
        assert_eq!((error.kind(), error.reason()), (ErrorKind::Other, reason));
    }
    let fake = FakeCloud::start().await;
    let service = fake.session().await.service(ServiceType::Image).expect("it is in the catalog");
    fake.say(json(200, &json!({"things": [1, "two"]})));
    let error = service.pages::<u32>("/things", &[], "things").all().await.expect_err("not a number");
    assert_eq!(error.reason(), "an entry of `things` is not what was expected");
}
