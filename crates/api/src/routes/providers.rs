//! Providers.

use karbor_types::ProviderId;

use crate::call::{Answer, Call};
use crate::paging::Strictness;
use crate::views;

pub(super) async fn list(call: Call) -> Answer {
    let request = call.list(Strictness::Lenient)?;
    let page = call.actions().list_providers(&call.caller, &request).await?;
    let next = if page.more { page.items.last().map(|provider| provider.id().to_string()) } else { None };
    let shown: Vec<_> = page.items.iter().map(|provider| views::provider(provider, call.version)).collect();
    call.many("providers", &shown, next.as_deref())
}

pub(super) async fn show(call: Call) -> Answer {
    let id: ProviderId = call.member_id("provider")?;
    let provider = call.actions().get_provider(&call.caller, id).await?;
    call.one("provider", views::provider(&provider, call.version))
}
