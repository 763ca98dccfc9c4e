//! Many requests at once, requests that are given up, and agents that do not answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use blink_wire::Spawn;
use tokio::task::JoinSet;

use super::*;
use crate::link::deadline::Deadlines;

/// Deadlines that pass within moments, however slow the machine is: none of them passes for an agent that does its part.
fn short() -> Deadlines {
    Deadlines {
        tick: Duration::from_millis(20),
        answer: Duration::from_millis(1000),
        freeze: Duration::from_millis(2000),
        grace: Duration::from_millis(400),
    }
}

/// A link to an agent with these deadlines and so many requests at once, and whether the sandbox was ended.
async fn connected(
    deadlines: Deadlines,
    requests: usize,
    can: &[&str],
) -> (Link, Agent, Arc<AtomicBool>) {
    let (io, mut agent) = Agent::pair();
    let ended = Arc::new(AtomicBool::new(false));
    let told = ended.clone();
    let options = Options {
        end_sandbox: Box::new(move || told.store(true, Ordering::Relaxed)),
        deadlines,
        requests,
        ..options()
    };
    let connecting = Link::connect(io, DEADLINE, options);
    let greeting = async {
        agent.next().await.unwrap();
        let hello = Hello {
            protocol: VERSION,
            program: "fake".into(),
            capabilities: can.iter().map(|name| (*name).to_owned()).collect(),
            boot_id: "0".into(),
        };
        agent
            .send(&Frame::new(FrameType::HANDSHAKE, 0, hello.to_body()))
            .await;
    };
    let (link, ()) = within(async { tokio::join!(connecting, greeting) }).await;
    (link.unwrap(), agent, ended)
}

fn spawn(timeout: Option<Duration>) -> Request {
    Request::Spawn(Spawn {
        argv: vec![b"x".to_vec().into()],
        timeout_ms: timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap()),
        ..Spawn::default()
    })
}

fn done(request: u64) -> Frame {
    Frame::new(FrameType::RPC_RESPONSE, request, Response::Done.to_body())
}

fn stat() -> Request {
    Request::Stat(blink_wire::PathOptions {
        path: b"/".to_vec().into(),
        follow: false,
        owner: None,
    })
}

#[tokio::test]
async fn calls_beyond_the_limit_wait_for_their_turn_in_order() {
    let (link, mut agent, _) = connected(Deadlines::default(), 2, &[]).await;
    let mut calls = JoinSet::new();
    for _ in 0..50 {
        let link = link.clone();
        calls.spawn(async move { link.call(&stat()).await.map(drop) });
        // Each is there before the next one comes.
        tokio::task::yield_now().await;
    }
    let serving = async {
        for next in 1..=50 {
            let id = agent.next_request().await;
            assert_eq!(id, next);
            agent.send(&done(id)).await;
        }
    };
    within(serving).await;
    while let Some(result) = within(calls.join_next()).await {
        result.unwrap().unwrap();
    }
}

#[tokio::test]
async fn what_is_urgent_does_not_wait_for_a_turn() {
    let (link, mut agent, _) = connected(Deadlines::default(), 1, &[]).await;
    let _held = link.open(&spawn(None)).await.unwrap();
    let request = stat();
    let waiting = link.call(&request);
    let kill = Request::Signal(blink_wire::Signal {
        process: ProcessId(1),
        signal: 9,
        tree: true,
    });
    let serving = async {
        assert_eq!(agent.next_request().await, 1);
        let id = agent.next_request().await;
        agent.send(&done(id)).await;
    };
    within(async {
        tokio::select! {
            biased;
            _ = waiting => panic!("it has no turn"),
            (killed, ()) = async { tokio::join!(link.call(&kill), serving) } => killed.unwrap(),
        }
    })
    .await;
}

#[tokio::test]
async fn the_links_end_wakes_those_who_wait_for_a_turn() {
    let (link, _agent, _) = connected(Deadlines::default(), 1, &[]).await;
    let _held = link.open(&spawn(None)).await.unwrap();
    let request = stat();
    let calls = async { tokio::join!(link.call(&request), link.call(&request)) };
    let closing = async {
        tokio::task::yield_now().await;
        link.close(Error::new(ErrorKind::SandboxDied, "closed"));
    };
    let ((first, second), ()) = within(async { tokio::join!(calls, closing) }).await;
    for result in [first, second] {
        let error = result.unwrap_err();
        assert_eq!(
            (error.kind(), error.message()),
            (ErrorKind::SandboxDied, "closed")
        );
    }
}

#[tokio::test]
async fn a_timeout_holds_while_its_turn_does_not_come() {
    let (link, _agent, _) = connected(Deadlines::default(), 1, &[]).await;
    let _held = link.open(&spawn(None)).await.unwrap();
    let command = Command::new("x").timeout(Duration::from_millis(50));
    let error = within(exec(&link, &command)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    assert!(error.message().contains("turn"), "{error:?}");
    assert!(link.dead().is_none());
}

/// An agent as it should be, which knows what the host may not do: it counts streams, and every request that it has taken
/// is answered or was given up.
#[derive(Default)]
struct Model {
    open: HashMap<u64, ()>,
    most: usize,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Calls that come in bursts, are given up at any moment, and answered in any order: all that were not given up are
    /// answered, and the agent never has more of them than the limit. One thread runs both ends, so that a call waits for
    /// nothing but its turn and its answer.
    #[test]
    fn no_call_waits_for_what_does_not_come(
        limit in 1..6_usize,
        calls in proptest::collection::vec((0..4_u8, any::<bool>()), 1..80),
        order in proptest::collection::vec(any::<prop::sample::Index>(), 80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (link, mut agent, _) = connected(Deadlines::default(), limit, &[]).await;
            let mut waiting = JoinSet::new();
            for (pause, give_up) in calls {
                let link = link.clone();
                for _ in 0..pause {
                    tokio::task::yield_now().await;
                }
                waiting.spawn(async move {
                    let request = stat();
                    let call = link.call(&request);
                    match give_up {
                        false => within(call).await.map(drop),
                        true => tokio::select! {
                            biased;
                            result = call => result.map(drop),
                            () = async { for _ in 0..pause { tokio::task::yield_now().await } } => Ok(()),
                        },
                    }
                });
            }
            let serving = async {
                let mut model = Model::default();
                let mut order = order.iter().cycle();
                loop {
                    // Takes what has come; answers one of the open requests where nothing comes.
                    let next = tokio::time::timeout(Duration::from_millis(1), agent.next()).await;
                    match next {
                        Ok(Some(frame)) => match frame.frame_type {
                            FrameType::RPC_REQUEST => {
                                model.open.insert(frame.request_id, ());
                                model.most = model.most.max(model.open.len());
                            }
                            FrameType::ERROR => {
                                model.open.remove(&frame.request_id);
                            }
                            _ => {}
                        },
                        Ok(None) => return model.most,
                        Err(_) => {
                            let mut ids: Vec<u64> = model.open.keys().copied().collect();
                            ids.sort_unstable();
                            if let Some(index) = order.next().filter(|_| !ids.is_empty()) {
                                let id = *index.get(&ids);
                                model.open.remove(&id);
                                agent.send(&done(id)).await;
                            }
                        }
                    }
                }
            };
            let calling = async {
                let mut results = Vec::new();
                while let Some(result) = waiting.join_next().await {
                    results.push(result.unwrap());
                }
                link.close(Error::new(ErrorKind::SandboxDied, "closed"));
                results
            };
            let (results, most) = tokio::join!(calling, serving);
            for result in results {
                prop_assert!(result.is_ok(), "{:?}", result);
            }
            prop_assert!(most <= limit, "{} requests at once", most);
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_long_command_goes_in_parts_that_others_overtake() {
    let (link, mut agent, _) = connected(Deadlines::default(), 9, &[Hello::REQUEST_PARTS]).await;
    let spawn = Request::Spawn(Spawn {
        argv: vec![vec![b'x'; 3 << 20].into()],
        ..Spawn::default()
    });
    let (opening, ping) = (link.open(&spawn), link.call(&Request::Ping));
    let serving = async {
        let (mut body, mut ping_at) = (Vec::new(), None);
        loop {
            let frame = agent.next().await.unwrap();
            assert!(frame.body.len() <= LINK_BODY_LIMIT as usize);
            match (frame.frame_type, frame.request_id) {
                (FrameType::RPC_PART, 1) => body.extend_from_slice(&frame.body),
                (FrameType::RPC_REQUEST, 2) => {
                    ping_at = Some(body.len());
                    agent.send(&done(2)).await;
                }
                (FrameType::RPC_REQUEST, 1) => {
                    body.extend_from_slice(&frame.body);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        (body, ping_at)
    };
    let (stream, pong, (body, ping_at)) =
        within(async { tokio::join!(opening, ping, serving) }).await;
    assert_eq!(Request::from_body(&body), Ok(spawn));
    assert!(ping_at.is_some_and(|at| at < body.len() / 2));
    assert!(stream.is_ok() && pong.is_ok());
}

#[tokio::test]
async fn what_is_too_long_is_refused_before_it_is_sent() {
    let long = |bytes: usize| {
        Request::Spawn(Spawn {
            argv: vec![vec![b'x'; bytes].into()],
            ..Spawn::default()
        })
    };
    let (new, _agent, _) = connected(Deadlines::default(), 9, &[Hello::REQUEST_PARTS]).await;
    let (old, _old_agent, _) = connected(Deadlines::default(), 9, &[]).await;
    let path = Request::Stat(blink_wire::PathOptions {
        path: vec![b'x'; 2 << 20].into(),
        follow: false,
        owner: None,
    });
    for (link, request) in [(&new, long(9 << 20)), (&old, long(2 << 20)), (&new, path)] {
        let error = within(link.open(&request))
            .await
            .err()
            .expect("it is too long");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error:?}");
    }
}

/// A sandbox is ended where an agent does this with a request.
async fn is_ended(request: Request, words: &str, serve: impl AsyncFnOnce(&mut Agent)) {
    let (link, mut agent, ended) = connected(short(), 9, &[]).await;
    let calling = async {
        let stream = link.open(&request).await?;
        stream.opened().await?;
        stream.exit().await.map(drop)
    };
    let serving = async {
        serve(&mut agent).await;
        std::future::pending::<()>().await;
    };
    let error = within(async {
        tokio::select! {
            result = calling => result.unwrap_err(),
            () = serving => unreachable!(),
        }
    })
    .await;
    assert_eq!(error.kind(), ErrorKind::SandboxDied, "{error:?}");
    assert!(error.message().contains(words), "{error:?}");
    assert!(ended.load(Ordering::Relaxed), "the sandbox was not ended");
}

/// Answers heartbeats for ever.
async fn beat(agent: &mut Agent) {
    while let Some(frame) = agent.next().await {
        if frame.frame_type == FrameType::HEARTBEAT {
            agent.send(&frame).await;
        }
    }
}

#[tokio::test]
async fn an_agent_that_says_nothing_to_a_request_is_ended() {
    let timeout = Some(Duration::from_millis(100));
    is_ended(
        spawn(None),
        "starting a program",
        async |agent: &mut Agent| {
            agent.drain().await;
        },
    )
    .await;
    is_ended(
        spawn(timeout),
        "starting a program",
        async |agent: &mut Agent| beat(agent).await,
    )
    .await;
    is_ended(
        spawn(None),
        "starting a program",
        async |agent: &mut Agent| beat(agent).await,
    )
    .await;
    is_ended(
        Request::Processes,
        "listing processes",
        async |agent: &mut Agent| beat(agent).await,
    )
    .await;
    is_ended(
        Request::Freeze,
        "holding the disk still",
        async |agent: &mut Agent| beat(agent).await,
    )
    .await;
    is_ended(stat(), "a file operation", async |agent: &mut Agent| {
        agent.drain().await
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_reads_nothing_is_ended() {
    is_ended(spawn(None), "starting a program", async |_: &mut Agent| {}).await;
    is_ended(
        Request::Wait(ProcessId(1)),
        "waiting for a process",
        async |_: &mut Agent| {},
    )
    .await;
}

#[tokio::test]
async fn an_agent_that_ends_no_program_is_ended() {
    let timeout = Some(Duration::from_millis(100));
    is_ended(
        spawn(timeout),
        "did not end a program",
        async |agent: &mut Agent| {
            let id = agent.next_request().await;
            agent.send(&attached(id)).await;
            beat(agent).await;
        },
    )
    .await;
    // Also long before a program's time is over.
    for timeout in [None, Some(Duration::from_secs(3600))] {
        is_ended(
            spawn(timeout),
            "no sign of life",
            async |agent: &mut Agent| {
                let id = agent.next_request().await;
                agent.send(&attached(id)).await;
                agent.drain().await;
            },
        )
        .await;
    }
}

#[tokio::test]
async fn a_live_agent_may_take_its_time() {
    let (link, mut agent, ended) = connected(short(), 9, &[]).await;
    let waiting = async { link.call(&Request::Wait(ProcessId(1))).await };
    let running = async {
        let stream = link.open(&spawn(None)).await?;
        stream.opened().await
    };
    let serving = async {
        agent.next_request().await;
        let id = agent.next_request().await;
        agent.send(&attached(id)).await;
        let mut beats = 0;
        // Several times the deadline.
        while beats < 12 {
            let frame = agent.next().await.unwrap();
            if frame.frame_type == FrameType::HEARTBEAT {
                beats += 1;
                agent.send(&frame).await;
            }
        }
        agent
            .send(&Frame::new(
                FrameType::RPC_RESPONSE,
                1,
                Response::Ended(report()).to_body(),
            ))
            .await;
    };
    let (waited, started, ()) = within(async { tokio::join!(waiting, running, serving) }).await;
    assert_eq!(waited.unwrap(), Response::Ended(report()));
    assert!(started.is_ok() && !ended.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_program_whose_time_is_over_waits_for_who_reads_its_output() {
    let (link, mut agent, ended) = connected(short(), 9, &[]).await;
    let timeout = Some(Duration::from_millis(50));
    let stream = link.open(&spawn(timeout)).await.unwrap();
    let id = agent.next_request().await;
    agent.send(&attached(id)).await;
    agent.send(&Frame::new(FrameType::STDOUT, id, "late")).await;
    tokio::select! {
        () = beat(&mut agent) => {}
        () = tokio::time::sleep(short().grace * 3) => {}
    }
    assert!(link.dead().is_none() && !ended.load(Ordering::Relaxed));
    assert_eq!(
        &within(stream.chunk(Channel::Stdout))
            .await
            .unwrap()
            .unwrap()[..],
        b"late"
    );
    let error = within(async {
        tokio::select! {
            result = stream.exit() => result.unwrap_err(),
            () = async { beat(&mut agent).await; std::future::pending().await } => unreachable!(),
        }
    })
    .await;
    assert_eq!(error.kind(), ErrorKind::SandboxDied, "{error:?}");
}
