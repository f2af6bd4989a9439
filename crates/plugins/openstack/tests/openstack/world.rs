//! Projects of a cloud: one that has things, one that things are shared with, and one that has nothing.

use std::path::Path;

use karbor_openstack_client::cinder::Cinder;
use karbor_openstack_client::glance::Glance;
use karbor_openstack_client::{Cloud, Ignored, Method, Profile, Service, ServiceType, Session};
use karbor_plugin::{Access, Context, Login};
use karbor_plugins_openstack::{OpenStack, OpenStackOptions};
use karbor_types::ProjectId;
use secrecy::SecretString;
use serde_json::{Value, json};
use uuid::Uuid;

const PASSWORD: &str = "only for a test";

/// A project with one user.
pub(crate) struct Tenant {
    pub(crate) project: String,
    user: String,
    name: String,
}

/// Projects of a cloud, and what is needed to work there.
pub(crate) struct World {
    openstack: OpenStack,
    identity: Service,
    pub(crate) own: Tenant,
    stranger: Tenant,
    nobody: Tenant,
    pub(crate) session: Session,
    _spool: tempfile::TempDir,
}

impl World {
    /// Makes the projects.
    pub(crate) async fn open() -> Self {
        let file = std::env::var("KARBOR_TEST_CLOUD").expect("KARBOR_TEST_CLOUD names a clouds.yaml");
        let Profile { cloud, login } =
            Profile::from_clouds_file(Path::new(&file), "admin").expect("the entry admin");
        let cloud = Cloud::new(cloud).expect("a cloud");
        let admin = Session::open(&cloud, login).await.expect("an administrator");
        let identity = admin.service(ServiceType::Identity).expect("Keystone");
        let own = Tenant::create(&identity).await;
        let stranger = Tenant::create(&identity).await;
        let nobody = Tenant::create(&identity).await;
        let login = karbor_openstack_client::Login::Password {
            user: karbor_openstack_client::User::Id(own.user.clone()),
            password: PASSWORD.into(),
            project: Some(karbor_openstack_client::Project::Id(own.project.clone())),
        };
        let session = Session::open(&cloud, login).await.expect("a session");
        let spool = tempfile::tempdir().expect("a directory");
        let options = OpenStackOptions { cloud, login: None, spool: spool.path().to_owned() };
        let openstack = OpenStack::open(options);
        Self { openstack, identity, own, stranger, nobody, session, _spool: spool }
    }

    /// Returns the plugins. Their sessions are kept, as a process keeps them: each login costs a second.
    pub(crate) fn openstack(&self) -> &OpenStack {
        &self.openstack
    }

    pub(crate) fn context(&self) -> Context {
        self.own.context()
    }

    pub(crate) fn stranger(&self) -> Context {
        self.stranger.context()
    }

    /// Returns a project that nothing was ever shared with.
    pub(crate) fn nobody(&self) -> Context {
        self.nobody.context()
    }

    pub(crate) fn cinder(&self) -> Cinder {
        Cinder::new(&self.session).expect("Cinder")
    }

    pub(crate) fn glance(&self) -> Glance {
        Glance::new(&self.session).expect("Glance")
    }

    /// Removes the projects; what was in them is gone by then.
    pub(crate) async fn close(self) {
        for tenant in [self.own, self.stranger, self.nobody] {
            for path in [["users", &tenant.user], ["projects", &tenant.project]] {
                self.identity.delete(Service::path(&path)).await.expect("removed");
            }
        }
    }
}

/// Makes something that has a name of its own, again if the connection broke.
async fn made(identity: &Service, path: &str, body: &Value) -> Value {
    identity.request(Method::POST, path).json(body).idempotent().read().await.expect("it is made")
}

impl Tenant {
    async fn create(identity: &Service) -> Self {
        let name = format!("kit-{}", Uuid::new_v4());
        let project = json!({"project": {"name": name, "domain_id": "default"}});
        let project: Value = made(identity, "/projects", &project).await;
        let project = project["project"]["id"].as_str().expect("an id").to_owned();
        let user = json!({"user": {"name": name, "domain_id": "default", "password": PASSWORD}});
        let user: Value = made(identity, "/users", &user).await;
        let user = user["user"]["id"].as_str().expect("an id").to_owned();
        let roles: Value = identity.get("/roles").await.expect("roles");
        let roles = roles["roles"].as_array().expect("a list");
        let role = roles.iter().find(|role| role["name"] == "member").expect("the role member");
        let role = role["id"].as_str().expect("an id");
        let path = Service::path(&["projects", &project, "users", &user, "roles", role]);
        identity.put::<Ignored>(path, &json!({})).await.expect("a role");
        Self { project, user, name }
    }

    fn context(&self) -> Context {
        let mut context = Context::new(ProjectId::new(self.project.clone()).expect("an id"));
        context.access = Access::Login(Box::new(Login {
            auth_url: None,
            region: None,
            user: self.name.clone(),
            user_domain: "Default".to_owned(),
            password: SecretString::from(PASSWORD),
            project: Some(self.project.clone()),
            project_domain: "Default".to_owned(),
        }));
        context
    }
}
