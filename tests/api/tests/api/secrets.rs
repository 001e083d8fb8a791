//! Pull secrets are watched by name, with no more rights than the manifests give.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use api_tests::{
    Account, Suite,
    counted::{Requests, counted},
    wait,
};
use fsm::view::SecretRef;
use k8s_openapi::{
    ByteString,
    api::core::v1::{Namespace, Secret},
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use libtest_mimic::Trial;
use operator::secrets::{self, Problem, SecretEvent, SecretHash, Secrets};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::timeout};

const TYPE: &str = "kubernetes.io/dockerconfigjson";
/// What no message may contain.
const PASSWORD: &str = "hunter2";

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.trial("secrets::a_secret_is_followed_through_its_life", life),
        suite.trial(
            "secrets::elsewhere_the_binding_to_add_is_named_and_heals_it",
            elsewhere,
        ),
        suite.trial(
            "secrets::only_those_that_are_named_are_asked_for",
            named_alone,
        ),
    ]
}

struct Scene {
    client: Client,
    requests: Requests,
    secrets: Secrets,
    events: mpsc::Receiver<SecretEvent>,
}

impl Scene {
    async fn new(suite: &Suite) -> Result<Self> {
        let (client, requests) = counted(&suite.client_of(Account::OPERATOR, None).await?);
        let (sender, events) = mpsc::channel(4);
        let secrets = Secrets::new(client.clone(), sender);
        Ok(Self {
            client,
            requests,
            secrets,
            events,
        })
    }

    /// What is said next; it never contains the password.
    async fn next(&mut self) -> Result<Result<SecretHash, Problem>> {
        let event = timeout(2 * wait::PATIENCE, self.events.recv())
            .await
            .context("nothing is said")?;
        let event = event.context("nobody watches any more")?;
        let text = format!(
            "{event:?} {}",
            event
                .found
                .as_ref()
                .map_or_else(ToString::to_string, ToString::to_string)
        );
        ensure!(!text.contains(PASSWORD), "{text}");
        Ok(event.found.map_err(|error| error.problem))
    }
}

fn named(namespace: &str, name: &str) -> SecretRef {
    SecretRef {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
    }
}

fn login(user: &str) -> Value {
    json!({ "auths": { "registry.example.com": { "username": user, "password": PASSWORD } } })
}

fn secret(name: &str, kind: &str, content: &Value) -> Result<Secret> {
    Ok(serde_json::from_value(json!({
        "metadata": { "name": name }, "type": kind,
        "data": { ".dockerconfigjson": ByteString(content.to_string().into_bytes()) },
    }))?)
}

async fn put(api: &Api<Secret>, name: &str, kind: &str, content: &Value) -> Result<()> {
    api.create(&PostParams::default(), &secret(name, kind, content)?)
        .await?;
    Ok(())
}

async fn life(suite: Arc<Suite>) -> Result<()> {
    let namespace = Account::OPERATOR.namespace;
    let (mut scene, pull) = (Scene::new(&suite).await?, named(namespace, "pull-life"));
    let api = Api::<Secret>::namespaced(suite.admin.clone(), namespace);
    scene.secrets.watch(&BTreeSet::from([pull.clone()]));
    ensure!(scene.next().await? == Err(Problem::Missing));
    ensure!(secrets::fetch(&scene.client, &pull).await.is_err());

    put(&api, "pull-life", TYPE, &login("one")).await?;
    let first = scene.next().await??;
    ensure!(secrets::fetch(&scene.client, &pull).await.is_ok());
    let change = json!({ "data": { ".dockerconfigjson": ByteString(login("two").to_string().into_bytes()) } });
    api.patch("pull-life", &PatchParams::default(), &Patch::Merge(change))
        .await?;
    ensure!(scene.next().await?? != first);
    // A label is no change of the content: the next thing said is the next change.
    let label = json!({ "metadata": { "labels": { "a": "b" } } });
    api.patch("pull-life", &PatchParams::default(), &Patch::Merge(label))
        .await?;

    let broken = json!({ "auths": { "registry.example.com": { "auth": PASSWORD } } });
    let change =
        json!({ "data": { ".dockerconfigjson": ByteString(broken.to_string().into_bytes()) } });
    api.patch("pull-life", &PatchParams::default(), &Patch::Merge(change))
        .await?;
    ensure!(matches!(scene.next().await?, Err(Problem::Malformed(_))));

    api.delete("pull-life", &DeleteParams::default()).await?;
    ensure!(scene.next().await? == Err(Problem::Missing));
    put(&api, "pull-life", "Opaque", &login("one")).await?;
    ensure!(
        scene.next().await?
            == Err(Problem::WrongType {
                found: "Opaque".to_owned()
            })
    );
    api.delete("pull-life", &DeleteParams::default()).await?;
    ensure!(scene.next().await? == Err(Problem::Missing));
    put(&api, "pull-life", TYPE, &login("one")).await?;
    ensure!(
        scene.next().await? == Ok(first),
        "the same content has the same hash"
    );
    Ok(())
}

async fn elsewhere(suite: Arc<Suite>) -> Result<()> {
    let namespace = "secrets-elsewhere";
    let object: Namespace = serde_json::from_value(json!({ "metadata": { "name": namespace } }))?;
    Api::all(suite.admin.clone())
        .create(&PostParams::default(), &object)
        .await?;
    let (mut scene, pull) = (Scene::new(&suite).await?, named(namespace, "pull"));
    let api = Api::<Secret>::namespaced(suite.admin.clone(), namespace);
    put(&api, "pull", TYPE, &login("one")).await?;
    scene.secrets.watch(&BTreeSet::from([pull.clone()]));
    let found = scene.next().await?;
    let Err(Problem::Forbidden { grant }) = found else {
        anyhow::bail!("not forbidden: {found:?}")
    };
    let fetched = secrets::fetch(&scene.client, &pull).await;
    ensure!(
        matches!(&fetched, Err(error) if matches!(error.problem, Problem::Forbidden { .. })),
        "{fetched:?}"
    );

    // The message is right if doing what it says heals it.
    let commands: Vec<_> = grant
        .split('`')
        .filter(|part| part.starts_with("kubectl "))
        .collect();
    ensure!(commands.len() == 2, "{grant}");
    for command in commands {
        let args: Vec<_> = command.split_whitespace().skip(1).collect();
        suite.kubectl(&args).await?;
    }
    scene.next().await??;
    secrets::fetch(&scene.client, &pull).await?;
    let agent = Api::<Secret>::namespaced(suite.client_of(Account::AGENT, None).await?, namespace);
    agent
        .get("pull")
        .await
        .context("the agents may not read it")?;

    suite
        .kubectl(&["-n", namespace, "create", "secret", "generic", "other"])
        .await?;
    let other = secrets::fetch(&scene.client, &named(namespace, "other")).await;
    ensure!(
        matches!(&other, Err(error) if matches!(error.problem, Problem::Forbidden { .. })),
        "{other:?}"
    );
    Ok(())
}

async fn named_alone(suite: Arc<Suite>) -> Result<()> {
    let namespace = Account::OPERATOR.namespace;
    let mut scene = Scene::new(&suite).await?;
    let both = [named(namespace, "pull-a"), named(namespace, "pull-b")];
    scene.secrets.watch(&BTreeSet::from(both.clone()));
    for _ in &both {
        ensure!(scene.next().await? == Err(Problem::Missing));
    }
    scene.secrets.watch(&BTreeSet::from([both[0].clone()]));
    let api = Api::<Secret>::namespaced(suite.admin.clone(), namespace);
    for name in ["pull-b", "pull-c", "pull-a"] {
        put(&api, name, TYPE, &login(name)).await?;
    }
    let event = timeout(wait::PATIENCE, scene.events.recv())
        .await?
        .context("nothing")?;
    ensure!(event.secret == both[0], "{event:?}");
    let all = scene.requests.with(&["secrets"]);
    ensure!(
        all.len() == 2,
        "a watch for each name and nothing else: {all:?}"
    );
    ensure!(
        all.iter()
            .all(|request| request.contains("watch=true") && request.contains("metadata.name")),
        "{all:?}"
    );
    Ok(())
}
