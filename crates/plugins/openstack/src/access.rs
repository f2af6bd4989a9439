//! Sessions by whose right they are: opened once, kept while they are used, never more than so many.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use karbor_openstack_client::{Cloud, Domain, Login, Project, Session, User};
use karbor_plugin::{Access, Context, Error, ErrorKind, Result};
use karbor_types::ProjectId;
use tokio::sync::OnceCell;

use crate::error::Doing;

/// How many sessions are kept; the one that was used longest ago goes first.
const KEPT: usize = 64;

/// The sessions of a cloud.
#[derive(Debug)]
pub(crate) struct Sessions {
    cloud: Cloud,
    login: Option<Login>,
    kept: Mutex<VecDeque<Kept>>,
}

#[derive(Debug)]
struct Kept {
    project: ProjectId,
    access: Access,
    session: Arc<OnceCell<Session>>,
}

impl Sessions {
    pub(crate) fn new(cloud: Cloud, login: Option<Login>) -> Self {
        Self { cloud, login, kept: Mutex::default() }
    }

    /// Returns the session of a context: in its project, by its right.
    pub(crate) async fn of(&self, ctx: &Context) -> Result<Session> {
        let cell = self.cell(ctx);
        let session = cell.get_or_try_init(|| self.open(ctx)).await?;
        Ok(session.clone())
    }

    fn cell(&self, ctx: &Context) -> Arc<OnceCell<Session>> {
        let mut kept = self.lock();
        let found = kept.iter().position(|kept| kept.project == ctx.project && kept.access == ctx.access);
        let entry = found.and_then(|at| kept.remove(at)).unwrap_or_else(|| Kept {
            project: ctx.project.clone(),
            access: ctx.access.clone(),
            session: Arc::default(),
        });
        let session = Arc::clone(&entry.session);
        kept.push_back(entry);
        if kept.len() > KEPT {
            kept.pop_front();
        }
        session
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(&self, ctx: &Context) -> Result<Session> {
        let doing = || format!("reaching the cloud for project {}", ctx.project);
        let (cloud, login) = self.login(ctx)?;
        let session = Session::open(&cloud, login).await.doing(doing)?;
        // With credentials of their own, users name the project themselves.
        let is_elsewhere = matches!(ctx.access, Access::Login(_));
        let project = session.project_id().doing(doing)?;
        if !is_elsewhere && project != ctx.project.as_str() {
            let text = format!(
                "the credentials are for project {project}, and the request is about project {}; \
                 use credentials of that project",
                ctx.project
            );
            return Err(Error::new(ErrorKind::Denied, text));
        }
        Ok(session)
    }

    /// Returns where and how a context logs in.
    fn login(&self, ctx: &Context) -> Result<(Cloud, Login)> {
        match &ctx.access {
            Access::Token(token) => Ok((self.cloud.clone(), Login::Token(token.clone()))),
            Access::Trust(id) => {
                let login = self.login.as_ref().and_then(|login| login.for_trust(id)).ok_or_else(|| {
                    let text = "a trust can only be used with a user and password of this service; \
                        add them to the settings";
                    Error::new(ErrorKind::Denied, text)
                })?;
                Ok((self.cloud.clone(), login))
            }
            Access::Login(login) => {
                let settings = self.cloud.settings();
                let elsewhere = login.auth_url.as_ref().filter(|url| **url != settings.auth_url);
                let region = login.region.as_ref().filter(|region| Some(*region) != settings.region.as_ref());
                let cloud = if elsewhere.is_none() && region.is_none() {
                    self.cloud.clone()
                } else {
                    let cloud = self.cloud.elsewhere(elsewhere.cloned(), region.cloned());
                    cloud.doing(|| "preparing for the other cloud".to_owned())?
                };
                let user_domain = Domain::Name(login.user_domain.clone());
                let project_domain = Domain::Name(login.project_domain.clone());
                let project = login.project.clone().map(|project| by_id_or_name(project, project_domain));
                let password = login.password.clone();
                let user = User::Name(login.user.clone(), user_domain);
                Ok((cloud, Login::Password { user, password, project }))
            }
            _ => {
                let text = "the cloud needs the right to act for the project: ask with a token of Keystone";
                Err(Error::new(ErrorKind::Denied, text))
            }
        }
    }
}

/// Takes what looks like an id for one: 32 hexadecimal digits.
fn by_id_or_name(project: String, domain: Domain) -> Project {
    let is_id = project.len() == 32 && project.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id { Project::Id(project) } else { Project::Name(project, domain) }
}
