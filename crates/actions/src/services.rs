//! Services: the processes that have reported themselves, and whether they shall work.

use karbor_store::{Service, ServiceStatus};

use crate::{Actions, Caller, Error, Result};

/// The one kind of service that can be switched off by this API, as ever.
const ENGINE: &str = "karbor-operationengine";

/// A service, and whether it is alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceView {
    /// The service.
    pub service: Service,
    /// Whether it gave a sign of life lately.
    pub up: bool,
}

/// What is changed of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceChange {
    /// It shall work.
    Enable,
    /// It shall not.
    Disable {
        /// Why.
        reason: Option<String>,
    },
}

impl Actions {
    /// Lists services, those with this host and this kind where given.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub async fn list_services(
        &self,
        caller: &Caller,
        host: Option<&str>,
        binary: Option<&str>,
    ) -> Result<Vec<ServiceView>> {
        self.allow_admin(caller, "service:get_all")?;
        let wanted = |service: &Service| {
            host.is_none_or(|host| service.host == host)
                && binary.is_none_or(|binary| service.binary == binary)
        };
        let services = self.store().list_services().await?;
        Ok(services.into_iter().filter(wanted).map(|service| self.view(service)).collect())
    }

    /// Asks whether the caller may switch services, before anybody looks at what they sent.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub fn may_change_services(&self, caller: &Caller) -> Result<()> {
        self.allow_admin(caller, "service:update")
    }

    /// Switches a service on or off.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] for a service that is no operation engine.
    pub async fn change_service(
        &self,
        caller: &Caller,
        id: i64,
        change: ServiceChange,
    ) -> Result<ServiceView> {
        self.allow_admin(caller, "service:update")?;
        let service = self.store().get_service(id).await?;
        if service.binary != ENGINE {
            return Err(Error::invalid(format!(
                "service {id} is a {}; only services of the kind {ENGINE} can be switched off or on",
                service.binary
            )));
        }
        let status = match change {
            ServiceChange::Enable => ServiceStatus::Enabled,
            ServiceChange::Disable { reason } => ServiceStatus::Disabled { reason },
        };
        Ok(self.view(self.store().set_service_status(id, &status).await?))
    }

    fn view(&self, service: Service) -> ServiceView {
        let seen = service.updated_at.unwrap_or(service.created_at);
        let silent = self.now().seconds_since(seen).abs();
        let up = silent <= i64::from(self.settings().service_down_seconds);
        ServiceView { service, up }
    }
}
