//! A small HTTP/1.1 server: no more than AWS clients need, but it may break its own answers off.
//!
//! A library would refuse to announce a length and not keep it, which is one of the faults that are to be played.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::body::Bytes;
use chrono::Utc;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// Longest request; AWS Query requests are some kilobytes.
const REQUEST_LIMIT: usize = 4 << 20;

/// What a client asks.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// With the query string.
    pub path: String,
    /// As they came, in their order.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl Request {
    /// A header, whatever the case of its name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name))?;
        Some(value)
    }
}

/// An answer that can be written.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    /// Without length and connection, which `ending` decides.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    pub ending: Ending,
}

/// How an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// As it should.
    Whole,
    /// Only the first half of the announced length is sent, then the connection is closed.
    Short,
    /// Nothing is sent; the connection is closed.
    Closed,
    /// Nothing is sent, and the connection stays open.
    Hung,
}

impl Reply {
    /// A whole answer of that content type, with the server's time.
    pub fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let date = Utc::now().format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let headers = vec![("Content-Type".to_owned(), content_type.to_owned()), ("Date".to_owned(), date)];
        Self { status, headers, body: body.into(), ending: Ending::Whole }
    }

    /// A whole answer in XML.
    pub fn xml(status: u16, body: impl Into<Bytes>) -> Self {
        Self::new(status, "text/xml;charset=UTF-8", body)
    }
}

type Answering = Pin<Box<dyn Future<Output = Reply> + Send>>;
type Handler = Arc<dyn Fn(Request) -> Answering + Send + Sync>;

/// A server on a thread of its own, on loopback; both end when it is dropped.
pub struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts one that answers by `handler`.
    pub fn start<F>(handler: impl Fn(Request) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |request| Box::pin(handler(request)));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    () = accept(listener, handler) => {}
                    _ = stopped => {}
                }
            });
            // Hung connections end with it.
            runtime.shutdown_timeout(Duration::from_secs(1));
        });
        Self { address, stop: Some(stop), thread: Some(thread) }
    }

    /// As in `http://127.0.0.1:1234`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, handler: Handler) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let handler = handler.clone();
            // A client that goes away in the middle is nothing to report.
            tokio::spawn(async move { serve(stream, handler).await.ok() });
        }
    }
}

async fn serve(stream: TcpStream, handler: Handler) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream).await? {
        let reply = handler(request).await;
        match reply.ending {
            Ending::Closed => return Ok(()),
            // Until the client loses patience.
            Ending::Hung => while stream.read(&mut [0; 64]).await? > 0 {},
            Ending::Whole => write(stream.get_mut(), &reply, reply.body.len()).await?,
            Ending::Short => {
                write(stream.get_mut(), &reply, reply.body.len() / 2).await?;
                return stream.get_mut().shutdown().await;
            }
        }
    }
    Ok(())
}

/// The next request of the connection; `None` when the client has closed it.
async fn read(stream: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.take(REQUEST_LIMIT as u64).read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let malformed = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    let mut words = lines.first().ok_or_else(malformed)?.split(' ').map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Err(malformed()) };
    let headers = lines[1..].iter().filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
    let mut request = Request { method, path, headers, body: Bytes::new() };
    let length: usize = request.header("content-length").map_or(Ok(0), str::parse).map_err(|_| malformed())?;
    if length > REQUEST_LIMIT || request.header("transfer-encoding").is_some() {
        return Err(malformed());
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    request.body = body.into();
    Ok(Some(request))
}

/// Writes an answer, of whose body only the first `sent` bytes.
async fn write(stream: &mut TcpStream, reply: &Reply, sent: usize) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} -\r\nContent-Length: {}\r\n", reply.status, reply.body.len());
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&reply.body[..sent]).await?;
    stream.flush().await
}
