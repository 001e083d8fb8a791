//! Who may act: never two at once, whatever happens to the holder.

use std::{
    future::pending,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use api_tests::Suite;
use crd::names::LEASE;
use http::Request;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Namespace};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    client::Body,
};
use libtest_mimic::Trial;
use operator::lease::{Elector, Fence};
use serde_json::json;
use tokio::time::{sleep, timeout};

/// Longer than any Lease: whoever waits has got it by then.
const LONG: Duration = Duration::from_secs(45);

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.trial(
            "lease::one_candidate_holds_it_and_hands_it_over",
            handed_over,
        ),
        suite.trial(
            "lease::a_holder_that_cannot_renew_stops_before_another_begins",
            cut_off,
        ),
        suite.trial("lease::a_holder_whose_lease_is_taken_stops", taken),
        suite.trial("lease::two_lost_answers_do_not_cost_it", lost_answers),
        suite.trial("lease::without_its_namespace_it_says_what_to_do", nowhere),
    ]
}

/// An admin's client for a namespace of its own.
async fn in_namespace(suite: &Suite, name: &str) -> Result<Client> {
    let object: Namespace = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
    Api::all(suite.admin.clone())
        .create(&PostParams::default(), &object)
        .await?;
    Ok(Client::new(
        forward(suite.admin.clone(), Arc::default()),
        name,
    ))
}

/// Sends requests on; once `cut`, none is answered any more.
fn forward(
    inner: Client,
    cut: Arc<AtomicBool>,
) -> impl tower::Service<
    Request<Body>,
    Response = http::Response<Body>,
    Error = kube::Error,
    Future: Send,
> + Clone
+ Send {
    tower::service_fn(move |request| {
        let (inner, cut) = (inner.clone(), cut.clone());
        async move {
            if cut.load(Ordering::SeqCst) {
                return pending().await;
            }
            inner.send(request).await
        }
    })
}

async fn handed_over(suite: Arc<Suite>) -> Result<()> {
    let client = in_namespace(&suite, "lease-handover").await?;
    let mut first = Elector::new(client.clone(), "first".into());
    let mut second = Elector::new(client, "second".into());
    let (one, two) = (first.fence(), second.fence());
    ensure!(!one.may_act(), "nobody acts before it holds the Lease");
    timeout(LONG, first.acquire()).await??;
    ensure!(one.may_act());

    let waits = timeout(Duration::from_secs(4), second.acquire()).await;
    ensure!(waits.is_err(), "the second got a Lease that is held");
    ensure!(!two.may_act());

    first.release().await;
    ensure!(!one.may_act(), "who gave it back acts no more");
    timeout(LONG, second.acquire()).await??;
    ensure!(two.may_act());
    Ok(())
}

async fn cut_off(suite: Arc<Suite>) -> Result<()> {
    let client = in_namespace(&suite, "lease-cut-off").await?;
    let cut = Arc::new(AtomicBool::new(false));
    let cut_client = Client::new(forward(client.clone(), cut.clone()), "lease-cut-off");
    let mut first = Elector::new(cut_client, "first".into());
    let mut second = Elector::new(client, "second".into());
    let (one, two) = (first.fence(), second.fence());
    timeout(LONG, first.acquire()).await??;

    let holding = async {
        let lost = timeout(LONG, first.hold()).await?;
        ensure!(!one.may_act(), "lost, and still acting: {lost}");
        Ok(())
    };
    let taking_over = async {
        timeout(LONG, second.acquire()).await??;
        Ok(())
    };
    let cutting = async {
        // Renewed a few times before.
        sleep(Duration::from_secs(8)).await;
        ensure!(one.may_act(), "renewals keep it");
        cut.store(true, Ordering::SeqCst);
        Ok(())
    };
    tokio::select! {
        both = never_both(&one, &two) => both,
        all = async { tokio::try_join!(holding, taking_over, cutting).map(drop) } => all,
    }
}

/// Looks for ever; ends only with what must not be.
async fn never_both(one: &Fence, two: &Fence) -> Result<()> {
    loop {
        ensure!(!(one.may_act() && two.may_act()), "both may act");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Both renewals took place, and the holder did not hear of it.
async fn lost_answers(suite: Arc<Suite>) -> Result<()> {
    let inner = in_namespace(&suite, "lease-lost").await?;
    let left = Arc::new(AtomicUsize::new(0));
    let (sender, lost) = (inner, left.clone());
    let service = tower::service_fn(move |request: Request<Body>| {
        let (sender, lost, is_write) = (sender.clone(), lost.clone(), request.method() == "PUT");
        async move {
            let answer = sender.send(request).await?;
            let one_less = |left: usize| left.checked_sub(1);
            let loses = is_write && answer.status().is_success();
            if loses
                && lost
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
                    .is_ok()
            {
                let reset = io::Error::from(io::ErrorKind::ConnectionReset);
                return Err(kube::Error::Service(reset.into()));
            }
            Ok(answer)
        }
    });
    let mut first = Elector::new(Client::new(service, "lease-lost"), "first".into());
    let fence = first.fence();
    timeout(LONG, first.acquire()).await??;
    left.store(2, Ordering::SeqCst);
    // Longer than anybody may act without a renewal.
    let held = timeout(Duration::from_secs(14), first.hold()).await;
    ensure!(held.is_err(), "{held:?}");
    ensure!(fence.may_act() && left.load(Ordering::SeqCst) == 0);
    Ok(())
}

async fn taken(suite: Arc<Suite>) -> Result<()> {
    let client = in_namespace(&suite, "lease-taken").await?;
    let mut first = Elector::new(client.clone(), "first".into());
    let fence = first.fence();
    timeout(LONG, first.acquire()).await??;
    let thief = Patch::Merge(json!({ "spec": { "holderIdentity": "thief" } }));
    Api::<Lease>::default_namespaced(client.clone())
        .patch(LEASE, &PatchParams::default(), &thief)
        .await?;
    let lost = timeout(LONG, first.hold()).await?;
    ensure!(
        !fence.may_act() && lost.to_string().contains("another replica"),
        "{lost}"
    );

    first.release().await;
    let lease = Api::<Lease>::default_namespaced(client).get(LEASE).await?;
    let holder = lease.spec.and_then(|spec| spec.holder_identity);
    ensure!(
        holder.as_deref() == Some("thief"),
        "a lost Lease was given back: {holder:?}"
    );
    Ok(())
}

async fn nowhere(suite: Arc<Suite>) -> Result<()> {
    let client = Client::new(
        forward(suite.admin.clone(), Arc::default()),
        "lease-nowhere",
    );
    let mut elector = Elector::new(client, "first".into());
    let refused = timeout(LONG, elector.acquire()).await?;
    let text = format!(
        "{:#}",
        refused
            .err()
            .map_or_else(String::new, |error| error.to_string())
    );
    ensure!(
        text.contains("kubectl apply -f deploy/install.yaml"),
        "{text}"
    );
    Ok(())
}
