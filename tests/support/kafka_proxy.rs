//! Between a broker and all that talk to it: a proxy that knows the requests of Kafka's protocol by their numbers, and
//! keeps back or loses what a test wants. See `Broker::start_behind_proxy`.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// A request of Kafka's protocol, by its API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// A producer's, to the leader of a partition: records.
    Produce = 0,
    /// A producer's, to the coordinator: commit or abort.
    EndTxn = 26,
    /// The coordinator's, to the leader of a partition of the transaction.
    WriteTxnMarkers = 27,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It waits, and so does what comes behind it, until another fate is set.
    Held,
    /// It never arrives, and its connection breaks.
    Lost,
    /// It arrives; instead of the answer the connection breaks.
    AnswerLost,
}

#[derive(Default)]
struct Orders {
    fate: Mutex<Option<(Request, Fate)>>,
    is_cut: Mutex<bool>,
    changed: Condvar,
    healed: Condvar,
}

/// The proxy. Its threads end with their connections.
pub struct KafkaProxy {
    address: SocketAddr,
    orders: Arc<Orders>,
}

impl KafkaProxy {
    /// Starts one to a port on loopback, on which nobody needs to listen yet.
    pub fn start(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let proxy = Self { address: listener.local_addr().unwrap(), orders: Arc::default() };
        let orders = proxy.orders.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // Refused, the client is refused too.
                let Ok(broker) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let _ = client.set_nodelay(true).and_then(|()| broker.set_nodelay(true));
                Connection { client, broker, orders: orders.clone(), unanswered: Mutex::default() }.serve();
            }
        });
        proxy
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Sets the fate of all requests of a kind, from now on.
    pub fn set(&self, request: Request, fate: Fate) {
        self.change(Some((request, fate)));
    }

    /// Lets everything pass, also what is held.
    pub fn clear(&self) {
        self.change(None);
    }

    /// The network is cut: whatever is on its way, in either direction, arrives when it is healed. No connection breaks by
    /// itself.
    pub fn cut(&self) {
        *self.orders.is_cut.lock().unwrap() = true;
    }

    pub fn heal(&self) {
        *self.orders.is_cut.lock().unwrap() = false;
        self.orders.healed.notify_all();
    }

    fn change(&self, rule: Option<(Request, Fate)>) {
        *self.orders.fate.lock().unwrap() = rule;
        self.orders.changed.notify_all();
    }
}

impl Orders {
    fn wait_while_cut(&self) {
        drop(self.healed.wait_while(self.is_cut.lock().unwrap(), |is_cut| *is_cut).unwrap());
    }

    /// The fate of a request of that API key. Waits while it is held.
    fn fate_of(&self, api_key: i16) -> Option<Fate> {
        let of_it = |order: Option<(Request, Fate)>| {
            order.filter(|(request, _)| *request as i16 == api_key).map(|(_, fate)| fate)
        };
        let mut order = self.fate.lock().unwrap();
        while of_it(*order) == Some(Fate::Held) {
            order = self.changed.wait(order).unwrap();
        }
        of_it(*order)
    }
}

struct Connection {
    client: TcpStream,
    broker: TcpStream,
    orders: Arc<Orders>,
    /// Correlation IDs of the requests whose answers are to be lost.
    unanswered: Mutex<BTreeSet<[u8; 4]>>,
}

impl Connection {
    fn serve(self) {
        let there = Arc::new(self);
        let back = there.clone();
        std::thread::spawn(move || {
            let _ = there.requests();
            there.close();
        });
        std::thread::spawn(move || {
            let _ = back.answers();
            back.close();
        });
    }

    fn close(&self) {
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.broker.shutdown(Shutdown::Both);
    }

    /// A request begins with its API key, the version of that, and the correlation ID that its answer begins with.
    fn requests(&self) -> io::Result<()> {
        loop {
            let frame = frame(&self.client)?;
            let fate = match frame[4..] {
                [high, low, ..] => self.orders.fate_of(i16::from_be_bytes([high, low])),
                _ => None,
            };
            match fate {
                Some(Fate::Lost) => return Ok(()),
                Some(Fate::AnswerLost) => {
                    let correlation = frame[8..12].try_into().expect("four bytes");
                    self.unanswered.lock().unwrap().insert(correlation);
                }
                Some(Fate::Held) | None => {}
            }
            self.orders.wait_while_cut();
            (&self.broker).write_all(&frame)?;
        }
    }

    fn answers(&self) -> io::Result<()> {
        loop {
            let frame = frame(&self.broker)?;
            if self.unanswered.lock().unwrap().contains(&frame[4..8]) {
                return Ok(());
            }
            self.orders.wait_while_cut();
            (&self.client).write_all(&frame)?;
        }
    }
}

/// The next message, with the four bytes that tell its length.
fn frame(mut stream: &TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut frame = vec![0; 4 + u32::from_be_bytes(length) as usize];
    frame[..4].copy_from_slice(&length);
    stream.read_exact(&mut frame[4..])?;
    Ok(frame)
}
