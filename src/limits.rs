//! Every compiled-in ceiling, in one place so that an audit reads one file.
//!
//! What an operator may change stands in [`crate::config::Config`]; what is here is the outer wall:
//! no config and no peer can move it.

use std::time::Duration;

/// Longest request target, bytes (414 above it).
pub const MAX_TARGET: usize = 8 * 1024;
/// Longest request head, bytes, request line and final blank line included (431 above it).
pub const MAX_HEAD: usize = 32 * 1024;
/// Most header fields of a request (431 above it).
pub const MAX_HEADERS: usize = 100;
/// Longest chunk-size line of a chunked body, extensions included, bytes.
pub const MAX_CHUNK_LINE: usize = 1024;
/// Longest trailer section of a chunked body, bytes; trailers are read and dropped.
pub const MAX_TRAILERS: usize = 8 * 1024;
/// Bytes of empty lines ahead of a request line that are skipped (400 above it). RFC 9112 section 2.2 asks for one line; a client
/// that keeps its connection warm with them meets the bound later than `idle_timeout`.
pub const MAX_EMPTY_LINES: usize = 4 * 1024;
/// All chunk extensions of one request body together, bytes: they deliver nothing.
pub const MAX_EXTENSIONS: usize = 16 * 1024;
/// What is left of a refused body is read and dropped up to this many bytes, so the connection lives on.
pub const MAX_DRAIN: usize = 64 * 1024;
/// Bytes of body a client must deliver within each `client_timeout`.
pub const BODY_STEP: usize = 64 * 1024;
/// Bytes read from a client socket at once.
pub const READ_CHUNK: usize = 64 * 1024;
/// Largest `max_request_size` that a configuration may have, bytes.
pub const LARGEST_REQUEST: usize = 512 * 1024 * 1024;
/// `max_memory` where the configuration names none, bytes: what there is, up to this.
pub const MAX_DEFAULT_MEMORY: usize = 2 * 1024 * 1024 * 1024;
/// Least `max_memory`, bytes.
pub const LEAST_MEMORY: usize = 32 * 1024 * 1024;
/// What the process holds without any model list, log line or request, bytes: 4.2 MiB at rest, and 10,000 idle clients of 265 bytes each and 28 for
/// its deadline.
pub const AT_REST: usize = 7 * 1024 * 1024;
/// What the process holds of its own, bytes: that much of `max_memory` is not for requests and responses.
pub const OWN_MEMORY: usize = AT_REST + MAX_LISTS + MAX_LOG_BYTES;
/// A process that may have less than this keeps one arena of its allocator for all threads, bytes.
pub const LITTLE_MEMORY: usize = 1024 * 1024 * 1024;
/// Bytes that requests and responses may hold together, however little memory there is.
pub const MIN_BUDGET: usize = 4 * 1024 * 1024;
/// A share of at most so many bytes may use the whole budget, so that large requests leave room for small ones.
pub const LITTLE: usize = 64 * 1024;
/// What a request takes while it is under way, beside its body and its response, bytes: the buffers of its connection to the provider, and
/// of a stream the events that only announce, an event that is not complete, the end of a large one, and what a turn adds for the client.
pub const SLOT_MEMORY: usize = UPSTREAM_READ_BUFFER
    + UPSTREAM_WRITE_BUFFER
    + 2 * MAX_HELD_EVENT
    + MASK_OVERLAP
    + PIECES_A_TURN * UPSTREAM_READ_BUFFER;
/// What a body that is translated, or events that a document is assembled from, hold beside themselves, times their size.
pub const TRANSLATED_COPIES: usize = 3;
/// Stack of each thread, bytes: address space, of which the system provides what is touched.
pub const THREAD_STACK: usize = 512 * 1024;
/// Requests waiting for a place; above it the next one gets its 503 at once.
pub const MAX_QUEUE: usize = 1024;
/// Most workers: threads that serve connections.
pub const MAX_WORKERS: usize = 64;
/// Threads for requests that need no upstream but may wait (health before the first round, reload).
pub const CONTROL_THREADS: usize = 16;
/// How long a client may take for the response of a control thread where there is no memory to keep it, and how long that thread waits for a
/// costly filter of another: anyone may ask for the model list, and these threads are few.
pub const CONTROL_TIMEOUT: Duration = Duration::from_secs(1);
/// Control requests waiting for a control thread.
pub const MAX_CONTROL_QUEUE: usize = 256;
/// New connections taken in one turn of the acceptor, so that a connect flood does not starve the others.
pub const ACCEPT_BATCH: usize = 64;
/// Connections over `max_clients` that may be open at once to get a 503; fewer where `max_clients` is small.
pub const MAX_REFUSED: usize = 64;
/// Reads of one connection in one turn, so that a fast sender does not starve the others.
pub const READS_A_TURN: usize = 2;
/// Pipelined requests of one connection that are handled at once before other connections get their turn.
pub const REQUESTS_A_TURN: usize = 8;
/// Pause between two looks for what nothing reports: memory that others give back, bytes of a socket that could not be watched.
pub const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Largest body, of a request or of a buffered response, that is looked at on a worker, bytes: it takes a fraction of a
/// millisecond.
pub const QUICK_BODY: usize = 64 * 1024;
/// Readiness events taken from the kernel in one turn.
pub const EVENT_BATCH: usize = 256;
/// Pause of `accept` after it failed for lack of descriptors or memory.
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(200);
/// How long `accept` must not have failed before it is said to work again.
pub const ACCEPT_CALM: Duration = Duration::from_secs(2);
/// How long a drain keeps idle connections open and serves what comes on them, for requests that are on their way.
pub const DRAIN_GRACE: Duration = Duration::from_millis(200);
/// How long a connection that is being closed is read on without a byte, so that the peer can fetch its response.
pub const LINGER: Duration = Duration::from_secs(2);
/// How long such a connection is read on in all.
pub const MAX_LINGER_TIME: Duration = Duration::from_secs(30);
/// Bytes read and dropped from it: a client may have begun a large upload before it learns that it is refused.
pub const MAX_LINGER: usize = 64 * 1024 * 1024;
/// Kernel queue of connections not yet accepted (std's is 128; the kernel caps it at `somaxconn`).
pub const BACKLOG: i32 = 4096;
/// A buffered response up to this size is copied after its head, so that both leave in one write.
pub const COALESCE: usize = 16 * 1024;

/// Longest `model` of a request, bytes, provider's name included: it is compared with every filter, and echoed.
pub const MAX_MODEL: usize = 256;
/// Longest boundary of a form, characters (RFC 2046 section 5.1.1).
pub const MAX_BOUNDARY: usize = 70;
/// Most parts of a form.
pub const MAX_PARTS: usize = 256;
/// Longest head of a part of a form, bytes, its blank line included.
pub const MAX_PART_HEAD: usize = 8 * 1024;
/// Longest id of a stored response, characters.
pub const MAX_RESPONSE_ID: usize = 512;
/// Stored responses whose provider is remembered.
pub const MAX_RESPONSE_OWNERS: usize = 16_384;
/// Replicas that are asked for a stored response when it is not known which has it.
pub const MAX_SEARCHED: u32 = 16;

/// Largest head of an upstream response, bytes. The part of it beyond the read buffer of its connection is held beside that until the head is complete.
pub const MAX_UPSTREAM_HEAD: usize = 64 * 1024;
/// Most header fields of an upstream response.
pub const MAX_UPSTREAM_HEADERS: usize = 128;
/// Bytes a provider may send that give the client nothing: handshake, interim responses, head, framing, trailers.
pub const MAX_UNDELIVERED: u64 = 128 * 1024;
/// Reads of one response, each of at most [`UPSTREAM_READ_BUFFER`] bytes, before others have their turn.
pub const PIECES_A_TURN: usize = 8;
/// Read buffer of an upstream connection, bytes.
pub const UPSTREAM_READ_BUFFER: usize = 16 * 1024;
/// Write buffer of an upstream connection, bytes.
pub const UPSTREAM_WRITE_BUFFER: usize = 4 * 1024;
/// Bytes of a request that are gathered before they leave for the provider: most requests leave in one write.
pub const MAX_GATHERED: usize = 16 * 1024;
/// Bytes of one request that leave for its provider before others have their turn.
pub const SENT_A_TURN: usize = 256 * 1024;
/// Largest model list of a provider, bytes.
pub const MAX_MODEL_LIST: usize = 8 * 1024 * 1024;
/// Bytes of model lists that are read at the same time, one for each replica: with many replicas each may have fewer than
/// [`MAX_MODEL_LIST`], but never fewer than [`LEAST_MODEL_LIST`].
pub const MAX_LISTS_IN_TRANSIT: usize = 128 * 1024 * 1024;
/// What a model list may have in any case, bytes.
pub const LEAST_MODEL_LIST: usize = 1024 * 1024;
/// Models kept of one provider's list.
pub const MAX_MODELS: usize = 10_000;
/// Longest model id kept of a provider's list, bytes.
pub const MAX_MODEL_ID: usize = 256;
/// Bytes that the model lists of all replicas may take together: each has its equal share. What is beyond it is not listed.
pub const MAX_LISTS: usize = 16 * 1024 * 1024;
/// What a model of a list takes beside its id, bytes: in memory, and about as much in our own list.
pub const MODEL_COST: usize = 96;
/// Bytes of our own model list in all its variants that are in memory at once, those included that clients have still to take
/// from before a change. When there is no room for another, the request for it gets 503.
pub const MAX_RENDERED_LISTS: usize = 64 * 1024 * 1024;
/// Variants of our own model list (one for each filter of a token) that are kept for the next request.
pub const MAX_KEPT_LISTS: usize = 16;
/// Longest time a connection to a provider may take, all its addresses together, TLS not included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an address of a provider may be silent before the next is tried beside it (RFC 8305 section 5).
pub const CONNECT_DELAY: Duration = Duration::from_millis(250);
/// Longest health check or model list fetch; `non_stream_timeout` may shorten it.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(10);
/// How soon a provider whose check failed is checked again; it doubles up to `health_interval`.
pub const FIRST_RECHECK: Duration = Duration::from_secs(1);
/// How long an address stays in the DNS cache before it is looked up again, off the request's path.
pub const DNS_TTL: Duration = Duration::from_secs(60);
/// Addresses kept of one name, and so the sockets of one attempt to connect.
pub const MAX_ADDRESSES: usize = 8;
/// Names kept in the DNS cache: one for each provider and proxy, and some of earlier configs.
pub const MAX_DNS_NAMES: usize = 1024;
/// Largest error response that is relayed as it is, bytes; of a larger one its beginning is quoted.
pub const MAX_ERROR_BODY: usize = 256 * 1024;
/// Text quoted from an upstream's error that is not JSON, bytes.
pub const MAX_ERROR_TEXT: usize = 2 * 1024;
/// Bytes of an incomplete event that are held back; a larger event is passed on in pieces.
pub const MAX_HELD_EVENT: usize = 64 * 1024;
/// Bytes at the end of a piece of a large event that are held back, and at most of a piece of sound or pictures: a secret may begin
/// there.
pub const MASK_OVERLAP: usize = 4 * 1024;
/// Bytes at the beginning of a streamed body that are looked at for whether it is one of events.
pub const MAX_BEGINNING: usize = 1024;
/// Levels of objects and arrays in a request, or in an event that a document is assembled from: what the usual JSON parsers take.
pub const MAX_DEPTH: usize = 128;
/// Items of one list (choices, tool calls, content blocks) in a document that is assembled from events.
pub const MAX_ASSEMBLED_ITEMS: usize = 128;
/// Members and items that such a document is put together from, beside those that come whole: each takes some 100 bytes.
pub const MAX_ASSEMBLED_NODES: usize = 1024;
/// Levels of such a document that are put together from parts.
pub const MAX_ASSEMBLED_DEPTH: usize = 16;
/// Bytes of such an event that are no UTF-8, at most: more of them are no cut characters.
pub const MAX_ASSEMBLED_CUT: usize = 64;
/// Events of a stream whose reports of usage are looked for together, bytes.
pub const MAX_UNREAD: usize = 2 * 1024;
/// Bytes of complete events that are kept for the end of a stream, which looks for its terminal event among at least half of them.
pub const TERMINAL_TAIL: usize = 4 * 1024;
/// Bytes at the end of an event that is not held that are looked at for whether it is the stream's last.
pub const MAX_EVENT_END: usize = 16 * 1024;
/// Longest `usage` of a response that is read, bytes.
pub const MAX_USAGE: usize = 4 * 1024;
/// Tokens of a kind that are believed of one call: no provider's typing error can use up a day, or wrap a counter.
pub const MAX_TOKENS_REPORTED: u64 = 1 << 30;
/// Largest buffered success that is searched for an error, bytes.
pub const MAX_REFUSAL: usize = 16 * 1024;
/// Longest id of a message or a tool call that is translated, bytes: ids are written more than once.
pub const MAX_ID: usize = 256;
/// Content blocks of one translated response: what stands around each is written for it alone.
pub const MAX_RESPONSE_BLOCKS: usize = 256;
/// Content blocks of one message of a translated request, those of its tool results included.
pub const MAX_BLOCKS: usize = 10_000;
/// Tool calls of one translated response.
pub const MAX_TOOL_CALLS: usize = 128;
/// Bytes of a Responses request that its translated response repeats: `instructions`, `tools` and the like. A longer member is left out.
pub const MAX_ECHO: usize = 64 * 1024;
/// Tools of a Responses request that is translated.
pub const MAX_TOOLS: usize = 256;
/// Longest name of a function in a translated request, bytes: what OpenAI takes.
pub const MAX_FUNCTION_NAME: usize = 64;
/// Longest `metadata.user_id` of a Messages request that is given on as `user`, characters: what OpenAI takes.
pub const MAX_USER_ID: usize = 64;
/// Largest event of a chat stream that is translated to Anthropic's format, bytes: such an event is held whole.
pub const MAX_CHAT_EVENT: usize = 1024 * 1024;
/// Longest `Retry-After` that is waited for when every replica has been tried.
pub const MAX_RETRY_WAIT: Duration = Duration::from_secs(2);
/// Longest cooldown a provider can ask for with `Retry-After`.
pub const MAX_COOLDOWN: Duration = Duration::from_secs(300);
/// First cooldown of a failing replica; it doubles up to [`MAX_COOLDOWN`].
pub const FIRST_COOLDOWN: Duration = Duration::from_secs(10);
/// Failures in a row that put a replica in cooldown.
pub const FAILURES_TO_COOLDOWN: u32 = 3;

/// Largest state file, bytes.
pub const MAX_STATE_FILE: u64 = 4 * 1024 * 1024;
/// How often the state file is written where something has changed: what a crash may lose.
pub const JOURNAL_INTERVAL: Duration = Duration::from_secs(10);

/// Lines of the log that may wait for the log's thread; beyond them a line is dropped and counted.
pub const MAX_LOG_LINES: usize = 4096;
/// Bytes that these lines may have.
pub const MAX_LOG_BYTES: usize = 1024 * 1024;
/// Bytes written at once to a pipe or a terminal that has room: more could wait for its reader (POSIX `PIPE_BUF`).
pub const LOG_PIECE: usize = 4096;
/// How often the log's thread looks whether the log goes elsewhere, while it waits for a reader.
pub const LOG_PAUSE: Duration = Duration::from_millis(100);
/// How long the end of the process waits for the lines that are not written yet.
pub const LOG_FLUSH_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a line on stdout or stderr waits for its reader.
pub const SAY_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a reload waits for another to end.
pub const RELOAD_TIMEOUT: Duration = Duration::from_secs(3);
/// Largest file of a time zone, bytes; the largest there is has some 4 KB.
pub const MAX_TIME_ZONE: u64 = 256 * 1024;
/// Symbolic links followed to a file that does not exist.
pub const MAX_LINKS: usize = 40;
/// Largest config file, bytes.
pub const MAX_CONFIG_FILE: u64 = 4 * 1024 * 1024;
/// Largest `ca_file` of a provider, bytes; a system's whole bundle is some 220 KB.
pub const MAX_CA_FILE: u64 = 1024 * 1024;
/// Provider entries in a config, replicas counted each.
pub const MAX_PROVIDERS: usize = 256;
/// Token entries in a config; each request is compared with all of them.
pub const MAX_TOKENS: usize = 1_000;
/// Compiled size of one regular expression of a filter, bytes: each request's model is compared with it. Over [`MAX_MODEL`] bytes,
/// usual ones take 2 to 50 µs, and the worst that fit 70 ms.
pub const MAX_REGEX: usize = 256 * 1024;
/// What filters may cost on a worker: bytes of ids times bytes of compiled patterns. It takes 0.2 ms at most.
pub const QUICK_FILTER: usize = 512 * 1024;
/// What a search for a stored response may cost a limited token's filters, as [`QUICK_FILTER`] counts: 0.2 s at most. Providers of which
/// it is not known by then whether the token may call them are not asked.
pub const MAX_REACH: usize = 512 * 1024 * 1024;
/// Targets of one virtual model.
pub const MAX_TARGETS: usize = 16;
/// Longest request id taken over from a client or an upstream, bytes.
pub const MAX_REQUEST_ID: usize = 128;
/// Sockets that a supervisor may hand over.
pub const MAX_INHERITED_SOCKETS: usize = 16;
/// Longest status sent to the supervisor, characters.
pub const MAX_STATUS: usize = 512;
/// How long the supervisor may take to read a message.
pub const NOTIFY_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest piece of client text in a log line or an error message, bytes.
pub const MAX_QUOTED: usize = 256;

/// Series of one metric; what comes beyond them is counted together under the label `other`.
pub const MAX_SERIES: usize = 10_000;
/// Chains that a metric's series are spread over.
pub const SERIES_BUCKETS: usize = 128;
/// Models that may be a label.
pub const MAX_LABELLED_MODELS: usize = 200;
/// Longest model id that may be a label, bytes.
pub const MAX_LABELLED_MODEL: usize = 256;

/// Requests that the provider of `ai-proxy demo` serves at a time; further ones wait.
pub const MAX_DEMO_REQUESTS: usize = 100;
/// Largest request body that it takes, bytes.
pub const MAX_DEMO_BODY: usize = 32 * 1024 * 1024;
/// For a whole request to it to arrive, and for each write.
pub const DEMO_TIMEOUT: Duration = Duration::from_secs(15);

/// A larger buffer than this, bytes, is given back when what it holds is forgotten.
pub const KEPT_BUFFER: usize = 4 * 1024;

/// What a buffer of `length` bytes grows by, so that `more` have room: a quarter, for twice the bytes would stand in memory otherwise.
pub fn growth(length: usize, more: usize) -> usize {
    /// Least growth, bytes.
    const MIN_GROWTH: usize = 256;
    (length / 4).max(more).max(MIN_GROWTH)
}

const _: () =
    assert!(MAX_TARGET < MAX_HEAD, "a target that is too long must be distinguished from a head that is");
const _: () = assert!(MAX_HEAD <= READ_CHUNK, "one read must be able to hold a whole head");
const _: () = assert!(MAX_CHUNK_LINE < READ_CHUNK && MAX_TRAILERS < READ_CHUNK);
const _: () = assert!(MAX_UPSTREAM_HEAD as u64 <= MAX_UNDELIVERED);
const _: () = assert!(MAX_DRAIN <= MAX_LINGER);
const _: () = assert!(MAX_TOOL_CALLS < MAX_RESPONSE_BLOCKS, "text may come before each call");
const _: () = assert!(
    SLOT_MEMORY > 2 * MAX_HEAD && SLOT_MEMORY <= MIN_BUDGET / 8,
    "a few requests fit the least memory"
);
const _: () = assert!(OWN_MEMORY + MIN_BUDGET <= LEAST_MEMORY);
