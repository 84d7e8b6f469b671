//! Against brokers that misbehave in ways that no real one and no mock can be asked to.

use std::{
    future::poll_fn,
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::Fate;

/// Answers one request; none hangs up.
async fn serve(stream: &mut TcpStream, port: u16, writes: bool) -> Option<()> {
    let length = stream.read_i32().await.ok()?;
    let mut request = vec![0; usize::try_from(length).ok()?];
    stream.read_exact(&mut request).await.ok()?;
    let mut answer = request[4..8].to_vec();
    match i16::from_be_bytes([request[0], request[1]]) {
        18 => {
            answer.extend([0, 0, 0, 0, 0, 4]);
            for key in [0_u8, 3, 18, 22] {
                answer.extend([0, key, 0, 0, 0, 9]);
            }
        }
        3 => {
            answer.extend([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 9]);
            answer.extend(b"127.0.0.1");
            answer.extend(i32::from(port).to_be_bytes());
            answer.extend([0xff, 0xff, 0, 1, b'c', 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, b't', 0]);
            answer.extend([0, 0, 0, 1, 0, 0]);
            [0, 1, 0, 0, 0, 0].iter().for_each(|it: &i32| answer.extend(it.to_be_bytes()));
        }
        22 => answer.extend([0; 16]),
        0 if writes => {
            answer.extend([0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1]);
            answer.extend([0; 4 + 2 + 8 + 16 + 4]);
        }
        _ => return None,
    }
    stream.write_i32(i32::try_from(answer.len()).ok()?).await.ok()?;
    stream.write_all(&answer).await.ok()
}

/// A broker that hangs up when it is to write anything, but for the connections from that one on.
async fn broker(listener: TcpListener, connections: &AtomicUsize, writes_from: usize) {
    let port = listener.local_addr().expect("an address").port();
    loop {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let number = connections.fetch_add(1, Ordering::Relaxed);
        while serve(&mut stream, port, number >= writes_from).await.is_some() {}
    }
}

/// How many connections were made until the one frame had its fate, and which; or in two seconds.
async fn send_one(writes_from: usize) -> (usize, Option<Fate>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let server: Arc<str> = listener.local_addr().expect("an address").to_string().into();
    let connections = AtomicUsize::new(0);
    let (_close, closing) = watch::channel(None);
    let patience = Duration::from_secs(30);
    let writer = Writer::new(&"t".into(), &"c".into(), 1, &[server], patience, Instant::now());
    let mut sockets = Sockets::new(writer, closing);
    sockets.append(Partition(0), Slip(1), b"frame").expect("room");
    let mut fates = Vec::new();
    let time = Duration::from_secs(2);
    tokio::select! {
        () = broker(listener, &connections, writes_from) => {}
        () = poll_fn(|cx| sockets.poll_fates(cx, &mut fates)) => {}
        () = tokio::time::sleep(time) => {}
    }
    (connections.into_inner(), fates.first().map(|(_, fate)| *fate))
}

#[tokio::test]
async fn a_broker_that_hangs_up_is_asked_again_but_not_without_end() {
    assert_eq!(send_one(0).await, (1, Some(Fate::At(0))));
    assert_eq!(send_one(3).await, (4, Some(Fate::At(0))));
    let (connections, fate) = send_one(usize::MAX).await;
    assert_eq!(fate, None);
    assert!((4..=12).contains(&connections), "{connections} connections in two seconds");
}

#[tokio::test]
async fn what_is_for_a_name_that_nobody_knows_ends_unknown() {
    let (_close, closing) = watch::channel(None);
    let (patience, now) = (Duration::from_millis(300), Instant::now());
    let nobody: [Arc<str>; 1] = ["no-such-host.invalid:9092".into()];
    let writer = Writer::new(&"t".into(), &"c".into(), 1, &nobody, patience, now);
    let mut sockets = Sockets::new(writer, closing);
    sockets.append(Partition(0), Slip(1), b"frame").expect("room");
    let mut fates = Vec::new();
    poll_fn(|cx| sockets.poll_fates(cx, &mut fates)).await;
    assert_eq!(fates, [(Slip(1), Fate::Unknown)]);
}
