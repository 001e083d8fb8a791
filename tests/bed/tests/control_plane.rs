//! The control plane starts, serves, survives its parts' restarts and leaves
//! nothing.
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::{Duration, Instant};

use bed::control_plane::{Component, Config, ControlPlane, Identity};
use bed::run_dir::Mark;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Namespace, Node, ServiceAccount};
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::{Api, Client};

const AUDIT: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
";

fn namespace(name: &str) -> Namespace {
    Namespace {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    }
}

async fn create_namespace(client: &Client, name: &str) -> kube::Result<Namespace> {
    Api::all(client.clone())
        .create(&PostParams::default(), &namespace(name))
        .await
}

/// The marks of the processes that a control plane has left in its directory.
fn processes(cluster: &ControlPlane) -> Vec<Mark> {
    let marks = std::fs::read_dir(cluster.dir().join("processes")).unwrap();
    marks
        .map(|mark| serde_json::from_slice(&std::fs::read(mark.unwrap().path()).unwrap()).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_serves_and_leaves_nothing() {
    let config = Config {
        audit_policy: Some(AUDIT.to_owned()),
        ..Config::default()
    };
    let cluster = ControlPlane::start(config).await.unwrap();
    let client = cluster.client().await.unwrap();
    create_namespace(&client, "smoke").await.unwrap();

    let nobody = cluster.client_for(&Identity::user("nobody")).await.unwrap();
    let refused = create_namespace(&nobody, "refused").await.unwrap_err();
    assert!(
        matches!(refused, kube::Error::Api(status) if status.is_forbidden()),
        "RBAC is off"
    );

    let audit = cluster.audit().unwrap();
    let created = audit
        .iter()
        .find(|event| event.verb == "create" && event.user.username == "nobody")
        .unwrap();
    assert_eq!(created.code(), Some(403));

    let (dir, processes) = (cluster.dir().to_path_buf(), processes(&cluster));
    assert_eq!(processes.len(), 2);
    assert!(processes.iter().all(|mark| mark.lives()));
    drop(cluster);
    assert!(
        !processes.iter().any(|mark| mark.lives()),
        "a process outlived its control plane"
    );
    assert!(!dir.exists(), "{} was left", dir.display());
}

#[tokio::test(flavor = "multi_thread")]
async fn state_survives_the_restart_of_every_component() {
    let config = Config {
        controller_manager: true,
        scheduler: true,
        ..Config::default()
    };
    let cluster = ControlPlane::start(config).await.unwrap();
    let client = cluster.client().await.unwrap();
    create_namespace(&client, "kept").await.unwrap();

    for component in [
        Component::Scheduler,
        Component::ControllerManager,
        Component::ApiServer,
        Component::Etcd,
    ] {
        cluster.stop(component).await.unwrap();
        cluster.start_again(component).await.unwrap();
    }
    cluster.kill(Component::ApiServer).unwrap();
    assert!(
        Api::<Namespace>::all(client.clone())
            .get("kept")
            .await
            .is_err(),
        "a killed API server answered"
    );
    cluster.start_again(Component::ApiServer).await.unwrap();
    Api::<Namespace>::all(client.clone())
        .get("kept")
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_api_server_answers_when_it_is_thawed() {
    let cluster = ControlPlane::start(Config::default()).await.unwrap();
    let nodes = Api::<Node>::all(cluster.client().await.unwrap());
    cluster.freeze(Component::ApiServer).unwrap();
    let (everything, patience) = (ListParams::default(), Duration::from_millis(500));
    assert!(
        tokio::time::timeout(patience, nodes.list(&everything))
            .await
            .is_err(),
        "a frozen server answered"
    );
    cluster.thaw(Component::ApiServer).unwrap();
    nodes.list(&everything).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_accounts_token_is_issued_and_accepted() {
    let cluster = ControlPlane::start(Config {
        controller_manager: true,
        ..Config::default()
    })
    .await
    .unwrap();
    let accounts = Api::<ServiceAccount>::namespaced(cluster.client().await.unwrap(), "default");
    let token = accounts
        .create_token_request("default", &PostParams::default(), &TokenRequest::default())
        .await
        .unwrap();

    let mut config = kube::Config::new(cluster.server().parse().unwrap());
    config.root_cert = Some(vec![pem(&cluster.pki().certificate())]);
    config.auth_info.token = Some(token.status.unwrap().token.into());
    let account = Client::try_from(config).unwrap();
    let refused = Api::<Node>::all(account)
        .list(&ListParams::default())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("system:serviceaccount:default:default"),
        "{refused}"
    );
}

/// The bytes of a certificate in PEM.
fn pem(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    let body: String = text
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect();
    base64::engine::general_purpose::STANDARD
        .decode(body)
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_flag_is_reported_at_once_with_the_servers_words() {
    let started = Instant::now();
    let config = Config {
        api_server_flags: vec!["--no-such-flag".to_owned()],
        ..Config::default()
    };
    let error = format!("{:#}", ControlPlane::start(config).await.unwrap_err());
    assert!(error.contains("unknown flag: --no-such-flag"), "{error}");
    assert!(
        started.elapsed() < Duration::from_secs(50),
        "the deadline was waited for"
    );
}
