//! The name server of a cluster's network: it knows the few names that hosts
//! and pods need, and no others.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record, RecordType};
use tokio::net::UdpSocket;

use super::network::{API, GATEWAY, REGISTRY, REGISTRY_NAME};

/// How long an answer may be kept, in seconds.
const TTL: u32 = 30;
/// The longest question that is read, in bytes.
const LONGEST: usize = 1500;

/// The socket on which it answers.
pub(super) async fn bind() -> Result<UdpSocket> {
    UdpSocket::bind((GATEWAY, 53))
        .await
        .context("cannot bind the name server")
}

/// Answers for as long as it is polled.
pub(super) async fn serve(socket: UdpSocket) {
    let mut buffer = [0; LONGEST];
    loop {
        // An error is of an answer before, to somebody who is gone.
        let Ok((length, asker)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let question = buffer.get(..length).unwrap_or_default();
        if let Some(answer) = answer(question) {
            // Whoever is gone meanwhile needs no answer.
            let _sent = socket.send_to(&answer, asker).await;
        }
    }
}

/// The answer to a question; none to what is no question.
fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let question = Message::from_vec(question).ok()?;
    let query = question.queries.first()?.clone();
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.metadata.recursion_desired = question.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.add_query(query.clone());
    match address(&query.name().to_utf8()) {
        Some(address) if query.query_type() == RecordType::A => {
            answer.add_answer(Record::from_rdata(
                query.name().clone(),
                TTL,
                RData::A(A(address)),
            ));
        }
        // The name is there, but not with an address of that kind.
        Some(_) => {}
        None => answer.metadata.response_code = ResponseCode::NXDomain,
    }
    answer.to_vec().ok()
}

fn address(name: &str) -> Option<Ipv4Addr> {
    match name.trim_end_matches('.').to_ascii_lowercase().as_str() {
        REGISTRY_NAME => Some(REGISTRY),
        "kubernetes.default.svc" | "kubernetes.default.svc.cluster.local" => Some(API),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{OpCode, Query};
    use hickory_proto::rr::Name;

    fn ask(name: &str, kind: RecordType) -> Message {
        let mut question = Message::new(7, hickory_proto::op::MessageType::Query, OpCode::Query);
        question.add_query(Query::query(Name::from_utf8(name).unwrap(), kind));
        Message::from_vec(&answer(&question.to_vec().unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn the_registry_has_an_address() {
        let answer = ask("Registry.cluster.local.", RecordType::A);
        assert_eq!(answer.metadata.id, 7);
        assert_eq!(answer.answers[0].data, RData::A(A(REGISTRY)));
    }

    #[test]
    fn a_name_without_that_kind_of_address_is_not_unknown() {
        let answer = ask("registry.cluster.local.", RecordType::AAAA);
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert!(answer.answers.is_empty());
    }

    #[test]
    fn other_names_are_unknown_and_noise_has_no_answer() {
        assert_eq!(
            ask("example.org.", RecordType::A).metadata.response_code,
            ResponseCode::NXDomain
        );
        assert!(answer(b"noise").is_none());
    }
}
