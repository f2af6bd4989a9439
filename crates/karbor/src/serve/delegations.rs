//! Rights that outlive a request, by Keystone's trusts: made, used, and taken back when their owners have ended.
//!
//! A trust is given by the caller to the user of this service, with the caller's roles in the caller's project. The
//! note of it in the database comes first. Should the process die between the two, the trust is found again among
//! those that were given to the service's user: by who gave it, for which project, and until when, which is another
//! second for each owner.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use karbor_actions::{Access, BoxError, Clock, DelegationError, Delegations, Login};
use karbor_openstack_client::keystone::Keystone;
use karbor_openstack_client::{Error, ErrorKind, Session};
use karbor_plugin::ErrorKind as PluginKind;
use karbor_store::{Delegation, Store};
use karbor_types::{Instant, OperationId};
use karbor_vault::{MasterKey, Salt, SystemEntropy, open_secret, seal_secret};
use karbor_worker::Rights;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::serve::openstack::ServiceCloud;

/// How often rights are compared with their owners.
const PERIOD: Duration = Duration::from_secs(5);
/// How old a note must be before its owner is missed: whoever made it may still be queueing the owner.
const GRACE_SECONDS: i64 = 120;
/// How many are looked at together.
const MANY: u64 = 100;

/// Rights, as this service gives them to its operations.
pub(crate) struct Trusts {
    store: Store,
    masters: Vec<MasterKey>,
    cloud: Option<ServiceCloud>,
    /// Where else users may restore to: beginnings of addresses of Keystone.
    targets: Vec<String>,
    clock: Clock,
    own: OnceCell<Session>,
}

impl std::fmt::Debug for Trusts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trusts").field("cloud", &self.cloud).finish_non_exhaustive()
    }
}

/// A login as it is sealed.
#[derive(Serialize, Deserialize)]
struct SealedLogin {
    auth_url: Option<String>,
    region: Option<String>,
    user: String,
    user_domain: String,
    password: String,
    project: Option<String>,
    project_domain: String,
}

impl Drop for SealedLogin {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.password);
    }
}

impl Trusts {
    pub(crate) fn new(
        store: Store,
        masters: Vec<MasterKey>,
        cloud: Option<ServiceCloud>,
        targets: Vec<String>,
        clock: Clock,
    ) -> Self {
        Self { store, masters, cloud, targets, clock, own: OnceCell::new() }
    }

    /// Takes back the rights of what has ended, until it is told to stop.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            if let Err(error) = self.compare().await {
                warn!(error = %format!("{error:#}"), "Rights of what has ended are taken back later: {error:#}");
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }

    /// Takes back the rights of what has ended.
    async fn compare(&self) -> Result<()> {
        let before = (self.clock)().plus_seconds(-GRACE_SECONDS);
        for idle in self.store.list_idle_delegations(before, MANY).await? {
            match self.end(&idle).await {
                Ok(()) => self.store.forget_delegation(&idle).await?,
                // One that cannot be taken back now does not keep the others.
                Err(error) => {
                    let owner = idle.owner;
                    warn!(%error, "The right of {owner:?} is taken back later: {error}");
                }
            }
        }
        self.store.settle_delegations(before).await?;
        Ok(())
    }

    /// Takes one right back.
    async fn end(&self, idle: &Delegation) -> karbor_openstack_client::Result<()> {
        if let Some(trust) = &idle.trust {
            return self.delete_trust(trust).await;
        }
        if self.cloud.is_none() {
            // Only a login was noted: without a cloud there are no trusts.
            return Ok(());
        }
        // Whether a trust was made is not known: look for one that ends when this one should.
        let own = self.own().await?;
        let found = Keystone::new(own)?.trusts_given_to(&own.identity().user_id).await?;
        for trust in found {
            let ends_at = trust.expires_at.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
            let is_it = trust.trustor_user_id == idle.user.as_str()
                && trust.project_id.as_deref() == Some(idle.project.as_str())
                && ends_at
                    .is_some_and(|at| at.as_second() == idle.expires_at.as_micros().div_euclid(1_000_000));
            if is_it {
                info!(trust.id = %trust.id, "Found the trust {} whose id was lost", trust.id);
                self.delete_trust(&trust.id).await?;
            }
        }
        Ok(())
    }

    /// Deletes a trust: in the place of who gave it, as only they may.
    async fn delete_trust(&self, trust: &str) -> karbor_openstack_client::Result<()> {
        let Some(ServiceCloud { cloud, login }) = &self.cloud else { return Err(no_cloud()) };
        let by_trust = login.for_trust(trust).ok_or_else(no_password)?;
        let refused = match Session::open(cloud, by_trust).await {
            Ok(session) => match Keystone::new(&session)?.delete_trust(trust).await {
                Ok(_) => {
                    info!(trust.id = trust, "Took back the trust {trust}");
                    return Ok(());
                }
                Err(error) => error,
            },
            Err(error) => error,
        };
        if !matches!(refused.kind(), ErrorKind::Unauthenticated | ErrorKind::Revoked | ErrorKind::Denied) {
            return Err(refused);
        }
        // It is gone, or who gave it has lost what it needs. An administrator may delete it even so.
        let own = self.own().await?;
        let keystone = Keystone::new(own)?;
        let stands = keystone.trusts_given_to(&own.identity().user_id).await?;
        if stands.iter().any(|standing| standing.id == trust) {
            keystone.delete_trust(trust).await.map_err(|_| refused)?;
        }
        Ok(())
    }

    async fn own(&self) -> karbor_openstack_client::Result<&Session> {
        let Some(ServiceCloud { cloud, login }) = &self.cloud else { return Err(no_cloud()) };
        self.own.get_or_try_init(|| Session::open(cloud, login.clone())).await
    }

    fn open_login(&self, operation: OperationId, sealed: &str) -> karbor_plugin::Result<Login> {
        let unreadable = |source: BoxError| {
            let text = "the credentials of the restore cannot be read with this service's master keys; \
                        ask for the restore again";
            karbor_plugin::Error::new(PluginKind::Invalid, text).with_source(source)
        };
        let bytes = from_hex(sealed).ok_or_else(|| unreadable("these are no hexadecimal digits".into()))?;
        let text =
            open_secret(&self.masters, &owner_of(operation), &bytes).map_err(|err| unreadable(err.into()))?;
        // The cause could show a part of it.
        let login: SealedLogin =
            serde_json::from_slice(&text).map_err(|_| unreadable("this is no login".into()))?;
        Ok(Login {
            auth_url: login.auth_url.clone(),
            region: login.region.clone(),
            user: login.user.clone(),
            user_domain: login.user_domain.clone(),
            password: SecretString::from(login.password.as_str()),
            project: login.project.clone(),
            project_domain: login.project_domain.clone(),
        })
    }

    /// Refuses to carry a user's wish to an address that the administrator has not named.
    fn check_target(&self, login: &Login) -> karbor_plugin::Result<()> {
        let (Some(url), Some(ServiceCloud { cloud, .. })) = (&login.auth_url, &self.cloud) else {
            return Ok(());
        };
        let bare = |url: &str| url.trim_end_matches('/').trim_end_matches("/v3").to_owned();
        let is_ours = bare(url) == bare(&cloud.settings().auth_url);
        if is_ours || self.targets.iter().any(|target| is_below(url, target)) {
            return Ok(());
        }
        let text = format!(
            "restores into the cloud at {url} are not allowed here: ask an administrator to add it to \
             restore-targets in [openstack]"
        );
        Err(karbor_plugin::Error::new(PluginKind::Denied, text))
    }
}

/// Returns whether an address is that one, or one below it.
fn is_below(url: &str, target: &str) -> bool {
    let target = target.trim_end_matches('/');
    url.strip_prefix(target).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        && !target.is_empty()
}

fn owner_of(operation: OperationId) -> String {
    format!("operation {operation}")
}

fn no_cloud() -> Error {
    Error::new(ErrorKind::Invalid, "identity", "reaching the cloud", "there is no table [openstack] any more")
}

fn no_password() -> Error {
    let reason =
        "trusts need a user with a password in [openstack]: an application credential cannot use them";
    Error::new(ErrorKind::Invalid, "identity", "using a trust", reason)
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let is_hex = text.len().is_multiple_of(2) && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    let byte = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    if is_hex { (0..text.len()).step_by(2).map(byte).collect() } else { None }
}

fn delegation_error(error: Error) -> DelegationError {
    match error.kind() {
        ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Other => {
            DelegationError::Unavailable { source: Box::new(error) }
        }
        _ => DelegationError::Refused { reason: error.reason().to_owned() },
    }
}

#[async_trait]
impl Delegations for Trusts {
    async fn trust(&self, token: &SecretString, expires_at: Instant) -> Result<String, DelegationError> {
        let Some(ServiceCloud { cloud, .. }) = &self.cloud else { return Err(delegation_error(no_cloud())) };
        let make = async {
            let trustee = self.own().await?.identity().user_id.clone();
            let session = Session::open(cloud, karbor_openstack_client::Login::Token(token.clone())).await?;
            let second = expires_at.as_micros().div_euclid(1_000_000);
            Keystone::new(&session)?.create_trust(&trustee, second).await
        };
        make.await.map(|trust| trust.id).map_err(delegation_error)
    }

    async fn revoke(&self, trust: &str) -> Result<(), DelegationError> {
        self.delete_trust(trust).await.map_err(delegation_error)
    }

    fn gives_trusts(&self) -> bool {
        self.cloud.is_some()
    }

    fn seal(&self, operation: OperationId, login: &Login) -> Result<String, BoxError> {
        let master = self.masters.first().ok_or("this service has no master key")?;
        let login = SealedLogin {
            auth_url: login.auth_url.clone(),
            region: login.region.clone(),
            user: login.user.clone(),
            user_domain: login.user_domain.clone(),
            password: login.password.expose_secret().to_owned(),
            project: login.project.clone(),
            project_domain: login.project_domain.clone(),
        };
        let text = Zeroizing::new(serde_json::to_vec(&login)?);
        let salt = Salt::generate(&SystemEntropy)?;
        Ok(to_hex(&seal_secret(master, &owner_of(operation), &text, salt)?))
    }
}

#[async_trait]
impl Rights for Trusts {
    async fn of(&self, operation: OperationId) -> karbor_plugin::Result<Access> {
        let found = self.store.delegation_of(operation).await.map_err(|err| {
            karbor_plugin::Error::new(PluginKind::Unavailable, "the database does not answer")
                .with_source(err)
        })?;
        let Some(found) = found else { return Ok(Access::None) };
        if let Some(sealed) = &found.sealed {
            let login = self.open_login(operation, sealed)?;
            self.check_target(&login)?;
            return Ok(Access::Login(Box::new(login)));
        }
        Ok(found.trust.map_or(Access::None, Access::Trust))
    }
}

#[cfg(test)]
mod tests {
    use karbor_openstack_client::{Cloud, CloudSettings, Domain, Project, User};
    use karbor_store::StoreOptions;
    use uuid::Uuid;

    use super::*;

    async fn trusts(masters: Vec<MasterKey>) -> Trusts {
        let store = Store::open("sqlite::memory:", &StoreOptions::default()).await.expect("a database");
        store.migrate().await.expect("a schema");
        let login = karbor_openstack_client::Login::Password {
            user: User::Name("karbor".to_owned(), Domain::default()),
            password: "open sesame".into(),
            project: Some(Project::Id("p".to_owned())),
        };
        let cloud = Cloud::new(CloudSettings::new("https://here/v3")).expect("fine");
        let targets = vec!["https://there.example.org".to_owned()];
        Trusts::new(store, masters, Some(ServiceCloud { cloud, login }), targets, Arc::new(crate::serve::now))
    }

    fn login(url: &str) -> Login {
        Login {
            auth_url: Some(url.to_owned()),
            region: None,
            user: "ann".to_owned(),
            user_domain: "Default".to_owned(),
            password: "hush hush".into(),
            project: Some("p".to_owned()),
            project_domain: "Default".to_owned(),
        }
    }

    fn note(operation: OperationId, sealed: String) -> Delegation {
        Delegation {
            owner: karbor_store::DelegationOwner::Operation(operation),
            project: karbor_types::ProjectId::new("p").expect("an id"),
            user: karbor_types::UserId::new("u").expect("an id"),
            trust: None,
            expires_at: crate::serve::now(),
            sealed: Some(sealed),
            created_at: crate::serve::now(),
        }
    }

    #[tokio::test]
    async fn a_login_is_opened_for_its_operation_by_any_of_the_keys() {
        let (old, new) = (MasterKey::from_bytes([1; 32]), MasterKey::from_bytes([2; 32]));
        let before = trusts(vec![old.clone()]).await;
        let (one, two) = (OperationId(Uuid::from_u128(1)), OperationId(Uuid::from_u128(2)));
        let sealed = before.seal(one, &login("https://here")).expect("sealed");
        assert!(!sealed.contains(&to_hex(b"hush")));

        let after = trusts(vec![new.clone(), old]).await;
        after.store.create_delegation(&note(one, sealed.clone())).await.expect("noted");
        after.store.create_delegation(&note(two, sealed.clone())).await.expect("noted");
        let opened = after.of(one).await.expect("opened");
        assert_eq!(opened, Access::Login(Box::new(login("https://here"))));
        assert!(!format!("{opened:?} {after:?}").contains("hush"), "secrets are not shown");
        assert_eq!(after.of(two).await.expect_err("another's").kind(), PluginKind::Invalid);
        assert_eq!(after.of(OperationId(Uuid::from_u128(3))).await.expect("looked up"), Access::None);

        let without = trusts(vec![new]).await;
        without.store.create_delegation(&note(one, sealed)).await.expect("noted");
        assert_eq!(without.of(one).await.expect_err("no key").kind(), PluginKind::Invalid);
    }

    #[tokio::test]
    async fn only_named_sites_are_reached() {
        let trusts = trusts(vec![MasterKey::from_bytes([1; 32])]).await;
        for (url, is_allowed) in [
            ("https://here", true),
            ("https://here/v3/", true),
            ("https://there.example.org/v3", true),
            ("https://there.example.org", true),
            ("https://there.example.org.evil/v3", false),
            ("http://169.254.169.254/", false),
            ("no address", false),
        ] {
            let checked = trusts.check_target(&login(url));
            assert_eq!(checked.is_ok(), is_allowed, "{url}");
        }
    }

    #[test]
    fn hexadecimal_digits_come_back() {
        assert_eq!(from_hex(&to_hex(&[0, 127, 255])), Some(vec![0, 127, 255]));
        for text in ["0", "0g", "+1", "é0"] {
            assert_eq!(from_hex(text), None, "{text}");
        }
    }
}
