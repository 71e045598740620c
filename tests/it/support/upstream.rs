//! A provider that follows the test's script exactly: one thread per connection, raw sockets, every request
//! kept as it came.

use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::script::{Script, Step};
use super::wire::{Chunk, Head, take_chunk};
use super::{DEADLINE, eventually};

/// How often a waiting connection checks whether its peer has left or the test has ended.
const TICK: Duration = Duration::from_millis(5);

/// One request as it was received.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which accepted connection it came on, from 0.
    pub connection: usize,
    pub method: String,
    pub target: String,
    pub head: Head,
    pub body: Vec<u8>,
}

impl Request {
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

type Handler = Arc<dyn Fn(&Request) -> Script + Send + Sync>;

/// Listens on a free port of 127.0.0.1 until dropped.
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    stop: AtomicBool,
}

#[derive(Default)]
struct State {
    handlers: HashMap<String, Handler>,
    requests: Vec<Request>,
    /// Connections that the other side has closed.
    left: BTreeSet<usize>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A failed wait must not hide behind the poisoned lock that it leaves.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Upstream {
    /// Lists `models` under `/v1/models`; every other path gets 404 until scripted.
    pub fn new(models: &[&str]) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let shared = Arc::new(Shared::default());
        let upstream = Upstream { address, shared: Arc::clone(&shared), accepting: Mutex::default() };
        upstream.list(models);
        upstream.accept_from(listener);
        upstream
    }

    fn accept_from(&self, listener: TcpListener) {
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::spawn(move || accept(&listener, &shared));
        *self.accepting.lock().expect("accepting") = Some(thread);
    }

    /// As if the process were killed: every connection breaks off, and new ones are refused.
    pub fn go_down(&self) {
        self.stop();
        let thread = self.accepting.lock().expect("accepting").take();
        thread.expect("it was up").join().expect("the accepting thread");
    }

    /// Listens again, on the same port.
    pub fn come_up(&self) {
        // Earlier connections check the flag at each tick; it must not be reset before they have.
        std::thread::sleep(20 * TICK);
        self.shared.stop.store(false, Ordering::SeqCst);
        self.accept_from(eventually("the same port", || TcpListener::bind(self.address).ok()));
    }

    fn stop(&self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which then sees the flag.
        drop(TcpStream::connect(self.address));
    }

    /// The URL to configure.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replaces the list of models.
    pub fn list(&self, models: &[&str]) {
        let list = model_list(models);
        self.respond("/v1/models", Script::json(200, &list));
    }

    /// Every request for `path` gets `script`.
    pub fn respond(&self, path: &str, script: Script) {
        self.handle(path, move |_| script.clone());
    }

    /// Chat requests get `script`.
    pub fn chat(&self, script: Script) {
        self.respond("/v1/chat/completions", script);
    }

    /// Every request for `path` gets the result of `handler`.
    pub fn handle(&self, path: &str, handler: impl Fn(&Request) -> Script + Send + Sync + 'static) {
        let mut state = self.shared.lock();
        state.handlers.insert(path.to_owned(), Arc::new(handler));
    }

    /// The requests so far, without model lists.
    pub fn requests(&self) -> Vec<Request> {
        self.recorded(|request| !request.path().ends_with("/models"))
    }

    /// Forgets the requests so far, where there are too many to keep.
    pub fn forget(&self) {
        self.shared.lock().requests.clear();
    }

    /// How often the model list was asked for.
    pub fn list_requests(&self) -> Vec<Request> {
        self.recorded(|request| request.path().ends_with("/models"))
    }

    /// Waits for `count` requests, without model lists.
    pub fn wait_requests(&self, count: usize) -> Vec<Request> {
        self.wait(&format!("{count} requests at the upstream"), |state| {
            let calls = |request: &&Request| !request.path().ends_with("/models");
            state.requests.iter().filter(calls).count() >= count
        });
        self.requests()
    }

    /// The latest request, without model lists.
    pub fn last(&self) -> Request {
        self.requests().pop().expect("a request at the upstream")
    }

    /// Waits until the other side has closed this connection.
    pub fn wait_closed(&self, connection: usize) {
        let what = format!("connection {connection} closed by the proxy");
        self.wait(&what, |state| state.left.contains(&connection));
    }

    pub fn is_closed(&self, connection: usize) -> bool {
        self.shared.lock().left.contains(&connection)
    }

    fn recorded(&self, keep: impl Fn(&Request) -> bool) -> Vec<Request> {
        let state = self.shared.lock();
        state.requests.iter().filter(|r| keep(r)).cloned().collect()
    }

    fn wait(&self, what: &str, ready: impl Fn(&State) -> bool) {
        let state = self.shared.lock();
        let (_state, wait) = self
            .shared
            .changed
            .wait_timeout_while(state, DEADLINE, |state| !ready(state))
            .expect("upstream state");
        assert!(!wait.timed_out(), "never happened: {what}");
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The list as OpenAI gives it.
pub fn model_list(models: &[&str]) -> Value {
    let entries: Vec<Value> = models
        .iter()
        .map(|id| json!({"id": id, "object": "model", "created": 1, "owned_by": "test"}))
        .collect();
    json!({"object": "list", "data": entries})
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for (number, stream) in listener.incoming().enumerate() {
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let shared = Arc::clone(shared);
        std::thread::spawn(move || Connection::new(stream, number, shared).serve());
    }
}

/// Why a connection is over.
enum Over {
    /// The other side closed it.
    Left,
    /// The script or the end of the test closed it.
    Ours,
}

struct Connection {
    stream: TcpStream,
    number: usize,
    shared: Arc<Shared>,
    buffer: Vec<u8>,
    /// See [`Step::IdleClose`].
    idle: Option<Duration>,
}

impl Connection {
    fn new(stream: TcpStream, number: usize, shared: Arc<Shared>) -> Connection {
        stream.set_nodelay(true).expect("nodelay");
        stream.set_read_timeout(Some(TICK)).expect("read timeout");
        stream.set_write_timeout(Some(DEADLINE)).expect("write timeout");
        Connection { stream, number, shared, buffer: Vec::new(), idle: None }
    }

    fn serve(mut self) {
        let over = loop {
            if let Err(over) = self.exchange() {
                break over;
            }
        };
        if matches!(over, Over::Left) {
            self.shared.lock().left.insert(self.number);
            self.shared.changed.notify_all();
        }
    }

    fn exchange(&mut self) -> Result<(), Over> {
        let request = self.read_request()?;
        let script = {
            let mut state = self.shared.lock();
            state.requests.push(request.clone());
            state.handlers.get(request.path()).cloned()
        };
        self.shared.changed.notify_all();
        let script = match script {
            Some(script) => script(&request),
            None => Script::json(404, &json!({"error": {"message": "not scripted"}})),
        };
        script.0.into_iter().try_for_each(|step| self.play(step))
    }

    fn read_request(&mut self) -> Result<Request, Over> {
        let since = Instant::now();
        let head = loop {
            if let Some(head) = Head::take(&mut self.buffer) {
                break head;
            }
            if self.idle.is_some_and(|idle| since.elapsed() > idle) {
                return Err(Over::Ours);
            }
            self.fill()?;
        };
        let body = self.read_body(&head)?;
        let mut words = head.first_line.split(' ').map(str::to_owned);
        Ok(Request {
            connection: self.number,
            method: words.next().unwrap_or_default(),
            target: words.next().unwrap_or_default(),
            head,
            body,
        })
    }

    fn read_body(&mut self, head: &Head) -> Result<Vec<u8>, Over> {
        if head.is_chunked() {
            let mut body = Vec::new();
            loop {
                match take_chunk(&mut self.buffer) {
                    Chunk::Data(data) => body.extend_from_slice(&data),
                    Chunk::Final => return Ok(body),
                    Chunk::Partial => self.fill()?,
                }
            }
        }
        let length = head.content_length().unwrap_or(0);
        while self.buffer.len() < length {
            self.fill()?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    /// Reads available bytes, or returns after a tick.
    fn fill(&mut self) -> Result<(), Over> {
        if self.shared.stop.load(Ordering::SeqCst) {
            return Err(Over::Ours);
        }
        let mut bytes = [0; 65536];
        match self.stream.read(&mut bytes) {
            Ok(0) => Err(Over::Left),
            Ok(count) => {
                self.buffer.extend_from_slice(&bytes[..count]);
                Ok(())
            }
            Err(error) if is_tick(error.kind()) => Ok(()),
            Err(_) => Err(Over::Left),
        }
    }

    fn play(&mut self, step: Step) -> Result<(), Over> {
        match step {
            Step::Send(bytes) => self.stream.write_all(&bytes).map_err(|_| Over::Left),
            Step::Flood(bytes) => loop {
                self.stream.write_all(&bytes).map_err(|_| Over::Left)?;
            },
            Step::Pause(length) => {
                let end = Instant::now() + length;
                self.hold(|| Instant::now() >= end)
            }
            Step::Wait(gate) => self.hold(|| gate.pass(TICK)),
            Step::Silence => self.hold(|| false),
            Step::Fin => Err(Over::Ours),
            Step::Reset => {
                rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).expect("linger");
                Err(Over::Ours)
            }
            Step::IdleClose(idle) => {
                self.idle = Some(idle);
                Ok(())
            }
        }
    }

    /// Waits for `done`, and notices when the other side leaves.
    fn hold(&mut self, mut done: impl FnMut() -> bool) -> Result<(), Over> {
        while !done() {
            self.fill()?;
        }
        Ok(())
    }
}

fn is_tick(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
