//! Services and their heartbeats.

use karbor_types::Instant;
use sea_query::{Expr, ExprTrait, Func, Order, Query};

use crate::sql::{Row, Table, Transaction, not_found};
use crate::store::transaction::transaction;
use crate::{Error, Result, Service, ServiceStatus, Store};

impl Table for Service {
    const TABLE: &'static str = "services";
    const WHAT: &'static str = "service";
    const COLUMNS: &'static [&'static str] =
        &["id", "binary_name", "host", "enabled", "disabled_reason", "created_at", "updated_at"];

    fn read(row: &Row) -> Result<Self> {
        let status = if row.truth("enabled")? {
            ServiceStatus::Enabled
        } else {
            ServiceStatus::Disabled { reason: row.optional_text("disabled_reason")? }
        };
        Ok(Self {
            id: row.number("id")?,
            binary: row.text("binary_name")?,
            host: row.text("host")?,
            status,
            created_at: row.instant("created_at")?,
            updated_at: row.optional_instant("updated_at")?,
        })
    }
}

impl Store {
    /// Notes that a service is alive; the first time it is added, and has no heartbeat yet.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name of more than 255 characters.
    pub async fn heartbeat(&self, binary: &str, host: &str, now: Instant) -> Result<Service> {
        for (what, name) in [("the name of a service", binary), ("the host of a service", host)] {
            if name.chars().count() > 255 {
                return Err(Error::Invalid { what, reason: "it has more than 255 characters".to_owned() });
            }
        }
        let is_it = Expr::col("binary_name").eq(binary).and(Expr::col("host").eq(host));
        transaction!(self, "noting a heartbeat", |tx| {
            let mut update = Query::update();
            update.table(Service::TABLE).value("updated_at", now.as_micros()).and_where(is_it.clone());
            if tx.execute(&update).await? == 0 {
                add_service(tx, binary, host, now).await?;
            }
            let rows = tx.rows(Service::select().and_where(is_it.clone())).await?;
            rows.first().map(Service::read).unwrap_or_else(|| Err(not_found::<Service>(binary)))
        })
    }

    /// Lists services, ordered by number.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn list_services(&self) -> Result<Vec<Service>> {
        let mut select = Service::select();
        select.order_by("id", Order::Asc);
        self.rows("listing services", &select).await?.iter().map(Service::read).collect()
    }

    /// Returns a service.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn get_service(&self, id: i64) -> Result<Service> {
        let rows =
            self.rows("looking up a service", Service::select().and_where(Expr::col("id").eq(id))).await?;
        rows.first().map(Service::read).unwrap_or_else(|| Err(not_found::<Service>(&id.to_string())))
    }

    /// Sets whether a service shall work; its heartbeat stays.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn set_service_status(&self, id: i64, status: &ServiceStatus) -> Result<Service> {
        let (enabled, reason) = match status {
            ServiceStatus::Enabled => (1i64, None),
            ServiceStatus::Disabled { reason } => (0i64, reason.clone()),
        };
        transaction!(self, "enabling or disabling a service", |tx| {
            let mut update = Query::update();
            update.table(Service::TABLE).value("enabled", enabled).value("disabled_reason", reason.clone());
            update.and_where(Expr::col("id").eq(id));
            if tx.execute(&update).await? == 0 {
                return Err(not_found::<Service>(&id.to_string()));
            }
            let rows = tx.rows(Service::select().and_where(Expr::col("id").eq(id))).await?;
            rows.first().map(Service::read).unwrap_or_else(|| Err(not_found::<Service>(&id.to_string())))
        })
    }
}

async fn add_service(tx: &mut Transaction, binary: &str, host: &str, now: Instant) -> Result<()> {
    let newest = Query::select().expr_as(Func::max(Expr::col("id")), "newest").from(Service::TABLE).take();
    let rows = tx.rows(&newest).await?;
    let newest = rows.first().map(|row| row.optional_number("newest")).transpose()?.flatten();
    let values = vec![
        ("id", Expr::val(newest.map_or(1, |newest| newest + 1))),
        ("binary_name", Expr::val(binary)),
        ("host", Expr::val(host)),
        ("enabled", Expr::val(1i64)),
        ("created_at", Expr::val(now.as_micros())),
    ];
    match tx.insert::<Service>(binary, values).await {
        // Another one took the number, or added this service: look again.
        Err(Error::AlreadyExists { .. }) => Err(Error::Busy { doing: "noting a heartbeat", source: None }),
        done => done,
    }
}
