//! `karbor serve`: puts the parts together and runs them until it is told to stop.
//!
//! This is the composition root: time, randomness, the environment and the state directory come in here and
//! nowhere below.

mod accounts;
mod banks;
mod clock;
mod config;
mod declared;
mod delegations;
mod first;
mod late;
mod metrics;
mod openstack;
mod report;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use karbor_actions::{Actions, Authority, PolicyFiles, Settings, Wake};
use karbor_api::BaseUrl;
use karbor_api::identity::Identity;
use karbor_api::identity::keystone::Keystone;
use karbor_api::identity::noauth::NoAuth;
use karbor_plugin::noop::NoopProtection;
use karbor_plugin::{Provider, Registry};
use karbor_plugins_host::{Host, HostOptions};
use karbor_plugins_openstack::{OpenStack, OpenStackOptions};
use karbor_scheduler::{Firing, Scheduler};
use karbor_store::{Limit, QuotaDefaults, Quotas, Store, StoreOptions};
use karbor_types::ResourceType;
use karbor_worker::{Dependencies, Worker};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use banks::ServiceBanks;
pub(crate) use clock::now;
pub(crate) use config::Config;
use config::{IdentityKind, PluginConfig, PluginName};
use declared::Declared;
use delegations::Trusts;
use metrics::Metrics;
use openstack::ServiceCloud;
use report::Services;

/// How long requests that are under way may take when the service stops.
const DRAIN: Duration = Duration::from_secs(20);

/// The types that the no-op plugin takes: those that the old Karbor knew.
const OPENSTACK: [&str; 8] = [
    "OS::Keystone::Project",
    "OS::Nova::Server",
    "OS::Cinder::Volume",
    "OS::Glance::Image",
    "OS::Manila::Share",
    "OS::Neutron::Network",
    "OS::Trove::Instance",
    "OS::Kubernetes::Pod",
];

/// What runs in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    /// The REST API
    Api,
    /// The protection service
    Worker,
    /// The operation engine
    Scheduler,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// A JSON object a line
    Json,
}

/// Options of `karbor serve`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Settings (TOML); without it, defaults that need nothing else
    #[arg(long, env = "KARBOR_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address and port of the API; overrides the settings
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// What to run; all of it when left out
    #[arg(long = "role", value_enum)]
    roles: Vec<Role>,
    /// How logs are written
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

/// Runs the service until SIGTERM or Ctrl-C.
pub(crate) async fn run(options: &Options, state_dir: &Path) -> Result<()> {
    start_log(options.log_format)?;
    raise_file_limit();
    first::state_directory(state_dir)?;
    let mut config = Config::load(options.config.as_deref(), state_dir)?;
    if let Some(listen) = options.listen {
        config.listen = Some(listen);
    }
    let all = options.roles.is_empty();
    let has = |role| all || options.roles.contains(&role);
    let (with_api, with_worker, with_scheduler) = (has(Role::Api), has(Role::Worker), has(Role::Scheduler));
    if with_worker && !with_api && !with_scheduler {
        step_back(config.worker.nice);
    }

    let url = config.database.url.as_deref().unwrap_or_default();
    let store = Store::open(url, &StoreOptions::default()).await.context("opening the database")?;
    store.migrate().await.context("bringing the database up to date")?;
    let Parts { registry, banks, authority, trusts } = parts(&config, state_dir, store.clone()).await?;

    let stop = CancellationToken::new();
    let worker = Worker::new(
        Dependencies {
            store: store.clone(),
            registry: Arc::clone(&registry),
            banks: Arc::clone(&banks) as _,
            clock: Arc::new(now),
            owner: owner(),
        },
        config.worker.clone(),
    );
    let metrics = Metrics::new(store.clone());
    let worker = worker.with_metrics(metrics.worker.clone()).with_rights(Arc::clone(&trusts) as _);
    #[cfg(feature = "failpoints")]
    let worker = arm(worker)?;
    let handle = worker.handle();
    let mut services = Services { worker: with_worker.then(|| worker.handle()), scheduler: None };
    let taking_back = with_worker.then(|| tokio::spawn(Arc::clone(&trusts).run(stop.clone())));
    let working = with_worker.then(|| tokio::spawn(worker.run(stop.clone())));

    let wake: Wake = Arc::new(move || handle.wake());
    let actions = make_actions(&config, store.clone(), Parts { registry, banks, authority, trusts }, wake);
    let scheduling = with_scheduler.then(|| {
        let scheduler = make_scheduler(&config, &store, &actions, &metrics);
        services.scheduler = Some(scheduler.handle());
        tokio::spawn(scheduler.run(stop.clone()))
    });
    let reporting = (with_worker || with_scheduler)
        .then(|| tokio::spawn(report::run(store, host_name(), services, stop.clone())));
    let counting = tokio::spawn(late::run(actions.clone(), metrics.late_plans.clone(), stop.clone()));
    let (serving, watched) = serve_api(&config, state_dir, actions, &metrics, with_api, stop.clone()).await?;

    wait_for_signal().await?;
    info!("Stopping");
    stop.cancel();
    if let Some(serving) = serving {
        match tokio::time::timeout(DRAIN, serving).await {
            Ok(ended) => ended.context("the API ended abnormally")?,
            Err(_) => warn!("Requests were still under way after {} seconds", DRAIN.as_secs()),
        }
    }
    if let Some(watched) = watched {
        watched.await.context("the listener of watchers ended abnormally")?;
    }
    if let Some(scheduling) = scheduling {
        scheduling.await.context("the scheduler ended abnormally")?;
    }
    if let Some(working) = working {
        working.await.context("the worker ended abnormally")?.context("running the worker")?;
    }
    if let Some(taking_back) = taking_back {
        taking_back.await.context("taking back rights ended abnormally")?;
    }
    counting.await.context("counting late plans ended abnormally")?;
    if let Some(reporting) = reporting {
        reporting.await.context("reporting ended abnormally")?;
    }
    Ok(())
}

/// What is made of the settings, beside the database.
struct Parts {
    registry: Arc<Registry>,
    banks: Arc<ServiceBanks>,
    authority: Authority,
    trusts: Arc<Trusts>,
}

async fn parts(config: &Config, state_dir: &Path, store: Store) -> Result<Parts> {
    let cloud = config.openstack.as_ref().map(|table| table.connect(|name| std::env::var(name).ok()));
    let cloud = cloud.transpose()?;
    let masters = first::master_keys(&config.keys)?;
    let targets = config.openstack.as_ref().map(|table| table.restore_targets.clone()).unwrap_or_default();
    let trusts = Trusts::new(store.clone(), masters.all(), cloud.clone(), targets, Arc::new(now));
    let (banks, providers) = (&config.banks, &config.providers);
    let banks =
        ServiceBanks::attach(banks, providers, masters, &config.engine, store, cloud.as_ref()).await?;
    Ok(Parts {
        registry: Arc::new(registry(config, state_dir, cloud)?),
        banks: Arc::new(banks),
        authority: authority(config)?,
        trusts: Arc::new(trusts),
    })
}

fn make_actions(config: &Config, store: Store, parts: Parts, wake: Wake) -> Actions {
    Actions::new(karbor_actions::Parts {
        store,
        registry: parts.registry,
        authority: Arc::new(parts.authority),
        evidence: parts.banks,
        wake,
        clock: Arc::new(now),
        ids: Arc::new(Uuid::new_v4),
        settings: Settings {
            quota: QuotaDefaults(Quotas {
                plans: Limit::from_number(config.quota.plans),
                checkpoints: Limit::from_number(config.quota.checkpoints),
            }),
            ..Settings::default()
        },
    })
    .with_delegations(parts.trusts)
}

fn make_scheduler(config: &Config, store: &Store, actions: &Actions, metrics: &Metrics) -> Scheduler {
    let timetable = actions.clone();
    let parts = karbor_scheduler::Dependencies {
        store: store.clone(),
        actions: actions.clone(),
        timetable: Arc::new(move |trigger, after| {
            let (window_seconds, next) = timetable.fires_after(trigger, after)?;
            Ok(Firing { window_seconds, next })
        }),
        clock: Arc::new(now),
    };
    Scheduler::new(parts, config.scheduler.clone()).with_metrics(metrics.scheduler.clone())
}

/// What tools need of the service, without the service.
pub(crate) struct Bare {
    pub(crate) actions: Actions,
    pub(crate) banks: Arc<ServiceBanks>,
    pub(crate) registry: Arc<Registry>,
}

/// Puts together what tools need.
pub(crate) async fn bare(config: &Config, state_dir: &Path, store: Store) -> Result<Bare> {
    let parts = parts(config, state_dir, store.clone()).await?;
    let (banks, registry) = (Arc::clone(&parts.banks), Arc::clone(&parts.registry));
    Ok(Bare { actions: make_actions(config, store, parts, Arc::new(|| {})), banks, registry })
}

/// Starts the API and tells clients of this machine where it is.
async fn serve_api(
    config: &Config,
    state_dir: &Path,
    actions: Actions,
    metrics: &Metrics,
    with_api: bool,
    stop: CancellationToken,
) -> Result<(Option<JoinHandle<()>>, Option<JoinHandle<()>>)> {
    let ids: karbor_actions::Ids = Arc::new(Uuid::new_v4);
    let watched = match config.metrics.listen {
        None => None,
        Some(listen) => {
            let listener =
                TcpListener::bind(listen).await.with_context(|| format!("listening on {listen}"))?;
            let bound = listener.local_addr().context("asking for the address that was bound")?;
            info!(metrics.listen = %bound, "Watchers are answered on http://{bound}");
            let state = karbor_api::State::new(
                actions.clone(),
                Arc::new(NoAuth),
                config.api.clone(),
                Arc::clone(&ids),
            )
            .with_metrics(metrics.api.clone(), Some(Arc::clone(&metrics.exposition)));
            let (router, settings, stop) = (karbor_api::watch(state), config.api.clone(), stop.clone());
            Some(tokio::spawn(async move {
                karbor_api::serve(listener, router, &settings, stop.cancelled_owned()).await;
            }))
        }
    };
    if !with_api {
        return Ok((None, watched));
    }
    let listen = config.listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8799)));
    let listener = TcpListener::bind(listen).await.with_context(|| {
        format!("listening on {listen}: choose another address with --listen if something else is there")
    })?;
    let bound = listener.local_addr().context("asking for the address that was bound")?;
    let identity: Arc<dyn Identity> = match config.identity.kind {
        IdentityKind::Local => first::local_identity(config, state_dir, bound, Arc::new(now))?,
        IdentityKind::Keystone => {
            let settings =
                config.identity.keystone.clone().context("the settings of Keystone are missing")?;
            Arc::new(Keystone::new(settings, Arc::new(now)).context("setting up the client of Keystone")?)
        }
        IdentityKind::Noauth => {
            warn!("Callers are not identified: everybody who can reach {bound} is an administrator");
            Arc::new(NoAuth)
        }
    };
    let mut settings = config.api.clone();
    if let (None, Some(url)) = (&settings.base_url, &config.public_url) {
        settings.base_url =
            Some(BaseUrl::try_from(url.clone()).map_err(|err| anyhow!("public-url is wrong: {err}"))?);
    }
    let exposition = watched.is_none().then(|| Arc::clone(&metrics.exposition));
    let state = karbor_api::State::new(actions, identity, settings.clone(), ids)
        .with_metrics(metrics.api.clone(), exposition);
    let router = karbor_api::router(state);
    info!(api.listen = %bound, "Listening on http://{bound}");
    let serving = tokio::spawn(async move {
        karbor_api::serve(listener, router, &settings, stop.cancelled_owned()).await;
    });
    Ok((Some(serving), watched))
}

fn registry(config: &Config, state_dir: &Path, cloud: Option<ServiceCloud>) -> Result<Registry> {
    let host = Host::open(HostOptions {
        inventory: config.host.inventory.clone().unwrap_or_default(),
        spool: state_dir.join("spool"),
        environment: Arc::new(|name| std::env::var(name).ok()),
    })
    .context("reading the inventory of this host")?;
    let mut registry = Registry::default();
    for protectable in host.protectables() {
        registry.add_protectable(protectable).context("adding the types of this host")?;
    }
    let declared = match &config.declared.file {
        Some(file) => Declared::read(file)?,
        None => Declared::default(),
    };
    for protectable in declared.protectables() {
        registry.add_protectable(protectable).context("adding the declared types")?;
    }
    let cloud = cloud.map(|ServiceCloud { cloud, login }| {
        OpenStack::open(OpenStackOptions { cloud, login: Some(login), spool: state_dir.join("spool") })
    });
    for protectable in cloud.iter().flat_map(OpenStack::protectables) {
        registry.add_protectable(protectable).context("adding the types of the cloud")?;
    }
    let openstack =
        || cloud.as_ref().context("it has plugins for a cloud, and the table [openstack] is missing");
    for settings in &config.providers {
        let name = settings.name.as_str();
        let mut provider =
            Provider::new(settings.id, name, settings.description.as_str(), settings.bank.as_str());
        if let Some(target) = settings.copy_to {
            let target = serde_json::Value::from(target.to_string());
            provider = provider.with_settings(serde_json::Map::from_iter([("copy_to".to_owned(), target)]));
        }
        let wrong = || format!("the plugins of provider `{name}`");
        for plugins in &settings.plugins {
            let protections = match plugins {
                PluginConfig::Named(PluginName::Host) => host.protections(),
                PluginConfig::Named(PluginName::Noop) => {
                    vec![Arc::new(NoopProtection::new(OPENSTACK.into_iter().map(ResourceType::from))) as _]
                }
                PluginConfig::Named(PluginName::Declared) => vec![declared.protection()],
                PluginConfig::Named(PluginName::OpenStack) => {
                    openstack().with_context(wrong)?.protections().with_context(wrong)?
                }
                PluginConfig::Named(PluginName::One(plugin)) => {
                    let cloud = openstack().with_context(wrong)?;
                    vec![cloud.protection(plugin, &serde_json::Map::new()).with_context(wrong)?]
                }
                PluginConfig::Set(table) => {
                    let cloud = openstack().with_context(wrong)?;
                    vec![cloud.protection(&table.name, &table.settings).with_context(wrong)?]
                }
            };
            for protection in protections {
                provider = provider
                    .with(protection)
                    .with_context(|| format!("adding a plugin to provider `{name}`"))?;
            }
        }
        registry.add_provider(provider).context("adding the providers")?;
    }
    Ok(registry)
}

fn authority(config: &Config) -> Result<Authority> {
    let files =
        PolicyFiles { files: config.policy.files.clone(), directories: config.policy.directories.clone() };
    Authority::from_files(files).context("reading the policy")
}

#[cfg(feature = "failpoints")]
fn arm(worker: Worker) -> Result<Worker> {
    match std::env::var("KARBOR_CRASH_AT") {
        Ok(text) => Ok(Worker::with_crash_points(worker, karbor_worker::CrashPoints::abort_at(&text)?)),
        Err(_) => Ok(worker),
    }
}

async fn wait_for_signal() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Names this process among the workers of a database, for people.
fn owner() -> String {
    format!("{}:{}", host_name(), std::process::id())
}

fn host_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if host.trim().is_empty() { "localhost".to_owned() } else { host.trim().to_owned() }
}

fn start_log(format: LogFormat) -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("KARBOR_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,sqlx=warn"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    match started {
        Ok(()) => Ok(()),
        Err(err) => bail!("starting the log: {err}"),
    }
}

/// Lets the processor go to others first: what a worker does takes long anyway, and people wait for the others.
fn step_back(nice: u8) {
    use rustix::process::{Pid, getpriority_process, setpriority_process};
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return };
    // Each thread has a priority of its own, which those that it starts inherit.
    for thread in threads.flatten() {
        let Some(id) = thread.file_name().to_str().and_then(|id| Pid::from_raw(id.parse().ok()?)) else {
            continue;
        };
        let wanted = i32::from(nice.min(19));
        let step = getpriority_process(Some(id)).map(|now| now.max(wanted));
        if let Err(err) = step.and_then(|wanted| setpriority_process(Some(id), wanted)) {
            warn!(error = &err as &dyn std::error::Error, "Cannot step back for other processes");
            return;
        }
    }
}

/// Restores of many files keep some hundred open: takes what the system allows.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(err) = setrlimit(Resource::Nofile, limit) {
        warn!(error = &err as &dyn std::error::Error, "Cannot raise the limit of open files");
    }
}
