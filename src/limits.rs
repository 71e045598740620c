//! Every compiled-in limit, in one file for an audit.
//!
//! [`crate::config::Config`] has what an operator may change; no config and no peer can change the limits
//! here.

use std::time::Duration;

/// Longest request target, bytes (414 above).
pub const MAX_TARGET: usize = 8 * 1024;
/// Longest request head, bytes, including request line and final blank line (431 above).
pub const MAX_HEAD: usize = 32 * 1024;
/// Most header fields of a request (431 above).
pub const MAX_HEADERS: usize = 100;
/// Longest chunk-size line of a chunked body, bytes, including extensions.
pub const MAX_CHUNK_LINE: usize = 1024;
/// Longest trailer section of a chunked body, bytes; trailers are read and dropped.
pub const MAX_TRAILERS: usize = 8 * 1024;
/// Bytes of empty lines to skip before a request line (400 above). RFC 9112 section 2.2 asks for one line; a
/// client that keeps its connection warm with them meets the bound later than `idle_timeout`.
pub const MAX_EMPTY_LINES: usize = 4 * 1024;
/// All chunk extensions of one request body together, bytes: they carry no content.
pub const MAX_EXTENSIONS: usize = 16 * 1024;
/// Bytes of a refused body to read and drop so that the connection stays usable.
pub const MAX_DRAIN: usize = 64 * 1024;
/// Bytes of body a client must deliver within each `client_timeout`.
pub const BODY_STEP: usize = 64 * 1024;
/// Bytes read from a client socket at once.
pub const READ_CHUNK: usize = 64 * 1024;
/// Largest `max_request_size` of a configuration, bytes.
pub const LARGEST_REQUEST: usize = 512 * 1024 * 1024;
/// Maximum of `max_response_size` and `max_stream_size`, bytes.
pub const MAX_RESPONSE: u64 = 1 << 40;
/// Maximum of `max_connections`.
pub const MAX_CONNECTIONS: u64 = 10_000;
/// Maximum of `max_keepalive_connections`.
pub const MAX_IDLE_UPSTREAMS: u64 = 10_000;
/// Maximum of `max_clients`; descriptors run out long before.
pub const MAX_CLIENTS: u64 = 1_000_000;
/// Maximum of `max_retries`.
pub const MAX_RETRIES: u64 = 100;
/// Default of `max_memory`, bytes: the available memory, up to this.
pub const MAX_DEFAULT_MEMORY: usize = 2 * 1024 * 1024 * 1024;
/// Maximum of `max_memory`, bytes.
pub const MAX_MEMORY: u64 = 1 << 40;
/// Least `max_memory`, bytes.
pub const LEAST_MEMORY: usize = 32 * 1024 * 1024;
/// Memory of the process without model lists, log lines and requests, bytes: 4.2 MiB at rest, and 10,000 idle
/// clients of 265 bytes each and 28 for a deadline.
pub const AT_REST: usize = 7 * 1024 * 1024;
/// Memory of the process itself, bytes: the part of `max_memory` that requests and responses cannot have.
pub const OWN_MEMORY: usize = AT_REST + MAX_LISTS + MAX_LOG_BYTES;
/// With less `max_memory` than this, bytes, all threads share one arena of the allocator.
pub const LITTLE_MEMORY: usize = 1024 * 1024 * 1024;
/// Least memory for all requests and responses together, bytes, even with the least `max_memory`.
pub const MIN_BUDGET: usize = 4 * 1024 * 1024;
/// A share of at most this size, bytes, may use the whole budget, so that large requests leave room for small
/// ones.
pub const LITTLE: usize = 64 * 1024;
/// Memory of a request in flight besides its body and its response, bytes: the buffers of its upstream
/// connection, and for a stream the events that only announce, an incomplete event, the end of a large one,
/// and the output of one turn for the client.
pub const SLOT_MEMORY: usize = UPSTREAM_READ_BUFFER
    + UPSTREAM_WRITE_BUFFER
    + 2 * MAX_HELD_EVENT
    + MASK_OVERLAP
    + PIECES_A_TURN * UPSTREAM_READ_BUFFER;
/// Memory of a translation, or of a document assembled from events, besides its input, in multiples of the
/// input.
pub const TRANSLATED_COPIES: usize = 3;
/// Stack of each thread, bytes: address space, of which only touched pages take memory.
pub const THREAD_STACK: usize = 512 * 1024;
/// Requests that wait for a permit; the next one gets its 503 at once.
pub const MAX_QUEUE: usize = 1024;
/// Most workers: threads that serve connections.
pub const MAX_WORKERS: usize = 64;
/// Threads for requests without an upstream that may block (health before the first round, reload).
pub const CONTROL_THREADS: usize = 16;
/// Time for a client to take the response of a control thread that has no memory to keep it, and for that
/// thread to wait for another's costly filter: anyone may ask for the model list, and these threads are few.
pub const CONTROL_TIMEOUT: Duration = Duration::from_secs(1);
/// Requests that wait for a control thread.
pub const MAX_CONTROL_QUEUE: usize = 256;
/// New connections per turn of the acceptor, so that a connect flood does not starve open connections.
pub const ACCEPT_BATCH: usize = 64;
/// Connections over `max_clients` that may be open at once to receive a 503; fewer where `max_clients` is
/// small.
pub const MAX_REFUSED: usize = 64;
/// Reads of one connection per turn, so that a fast sender does not starve other connections.
pub const READS_A_TURN: usize = 2;
/// Pipelined requests of one connection per turn, before other connections have theirs.
pub const REQUESTS_A_TURN: usize = 8;
/// Interval of checks for changes that no event reports: memory that others return, bytes of a socket that
/// could not be watched.
pub const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Largest body of a request or of a buffered response that a worker handles itself, bytes: it takes a
/// fraction of a millisecond.
pub const QUICK_BODY: usize = 64 * 1024;
/// Readiness events to take from the kernel per turn.
pub const EVENT_BATCH: usize = 256;
/// Pause of `accept` after a failure for lack of descriptors or memory.
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(200);
/// How long `accept` must not fail before the log says that it works again.
pub const ACCEPT_CALM: Duration = Duration::from_secs(2);
/// How long a drain keeps idle connections open, for requests that are already on their way.
pub const DRAIN_GRACE: Duration = Duration::from_millis(200);
/// Longest silence of a closing connection that is still read, so that the peer can fetch its response.
pub const LINGER: Duration = Duration::from_secs(2);
/// Longest time that a closing connection is still read.
pub const MAX_LINGER_TIME: Duration = Duration::from_secs(30);
/// Bytes to read and drop from a closing connection: a client may have begun a large upload before it learns
/// of the refusal.
pub const MAX_LINGER: usize = 64 * 1024 * 1024;
/// Kernel queue of connections not yet accepted (std's is 128; the kernel caps it at `somaxconn`).
pub const BACKLOG: i32 = 4096;
/// Attempts to find a port that is free on every address.
pub const PORT_TRIES: usize = 16;
/// A buffered response up to this size is copied after its head, so that both leave in one write.
pub const COALESCE: usize = 16 * 1024;

/// Longest `model` of a request, bytes, including the provider's name: every filter is compared with it, and
/// error messages quote it.
pub const MAX_MODEL: usize = 256;
/// Longest boundary of a form, characters (RFC 2046 section 5.1.1).
pub const MAX_BOUNDARY: usize = 70;
/// Most parts of a form.
pub const MAX_PARTS: usize = 256;
/// Longest head of a part of a form, bytes, including its blank line.
pub const MAX_PART_HEAD: usize = 8 * 1024;
/// Longest id of a stored response, characters.
pub const MAX_RESPONSE_ID: usize = 512;
/// Stored responses with a remembered provider.
pub const MAX_RESPONSE_OWNERS: usize = 16_384;
/// Most replicas to search for a stored response of unknown origin.
pub const MAX_SEARCHED: u32 = 16;

/// Largest head of an upstream response, bytes. The part beyond the connection's read buffer is held besides
/// it until the head is complete.
pub const MAX_UPSTREAM_HEAD: usize = 64 * 1024;
/// Most header fields of an upstream response.
pub const MAX_UPSTREAM_HEADERS: usize = 128;
/// Longest part of a `Location` that is reported, bytes.
pub const MAX_LOCATION: usize = 200;
/// Bytes a provider may send that bring the client nothing: handshake, interim responses, head, framing,
/// trailers.
pub const MAX_UNDELIVERED: u64 = 128 * 1024;
/// Reads of one response per turn, each of at most [`UPSTREAM_READ_BUFFER`] bytes.
pub const PIECES_A_TURN: usize = 8;
/// Read buffer of an upstream connection, bytes.
pub const UPSTREAM_READ_BUFFER: usize = 16 * 1024;
/// Write buffer of an upstream connection, bytes.
pub const UPSTREAM_WRITE_BUFFER: usize = 4 * 1024;
/// Bytes of a request to gather before they leave for the provider: most requests leave in one write.
pub const MAX_GATHERED: usize = 16 * 1024;
/// Bytes of one request that leave for its provider per turn.
pub const SENT_A_TURN: usize = 256 * 1024;
/// Parts of a request that leave in one write.
pub const PARTS_AT_ONCE: usize = 8;
/// Bytes of a request that are encrypted and have not left: four records of TLS.
pub const MAX_ENCRYPTED: usize = 64 * 1024;
/// Largest model list of a provider, bytes.
pub const MAX_MODEL_LIST: usize = 8 * 1024 * 1024;
/// Bytes of model lists that are read at the same time, one per replica: with many replicas each has less
/// than [`MAX_MODEL_LIST`], but at least [`LEAST_MODEL_LIST`].
pub const MAX_LISTS_IN_TRANSIT: usize = 128 * 1024 * 1024;
/// Least size limit of a model list, bytes.
pub const LEAST_MODEL_LIST: usize = 1024 * 1024;
/// Models to keep of one provider's list.
pub const MAX_MODELS: usize = 10_000;
/// Longest model id to keep of a provider's list, bytes.
pub const MAX_MODEL_ID: usize = 256;
/// Bytes of the model lists of all replicas together: each has an equal share. Models beyond it are not
/// listed.
pub const MAX_LISTS: usize = 16 * 1024 * 1024;
/// Memory of a listed model besides its id, bytes; it takes about as much in our own list.
pub const MODEL_COST: usize = 96;
/// Bytes of our own model list in memory, all variants together, including those from before a change that
/// clients are still reading. A request for one more variant without room gets 503.
pub const MAX_RENDERED_LISTS: usize = 64 * 1024 * 1024;
/// Variants of our own model list to keep for the next request: one for each filter of a token.
pub const MAX_KEPT_LISTS: usize = 16;
/// Longest time to connect to a provider, all its addresses together, without TLS.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Delay after which the next address of a provider is tried in parallel (RFC 8305 section 5).
pub const CONNECT_DELAY: Duration = Duration::from_millis(250);
/// Longest health check or model list fetch; `non_stream_timeout` may shorten it.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(10);
/// Provider entries that `check --probe` asks at once.
pub const MAX_PROBES: usize = 64;
/// Longest URL and reason of a row of `check --probe`, bytes.
pub const MAX_PLACE: usize = 512;
/// Longest kept reason of a failed check, bytes.
pub const MAX_REASON: usize = 200;
/// Delay of the next check after a failed one; it doubles up to `health_interval`.
pub const FIRST_RECHECK: Duration = Duration::from_secs(1);
/// Age of a DNS entry at which it is looked up again, off the request's path.
pub const DNS_TTL: Duration = Duration::from_secs(60);
/// Delay after a failed look-up before the next one.
pub const NEGATIVE_TTL: Duration = Duration::from_secs(1);
/// Addresses to keep of one name, and so the sockets of one attempt to connect.
pub const MAX_ADDRESSES: usize = 8;
/// Names in the DNS cache: one for each provider and proxy, and some of earlier configs.
pub const MAX_DNS_NAMES: usize = 1024;
/// Largest error response to relay unchanged, bytes; of a larger one the beginning is quoted.
pub const MAX_ERROR_BODY: usize = 256 * 1024;
/// Text quoted from an upstream's error that is not JSON, bytes.
pub const MAX_ERROR_TEXT: usize = 2 * 1024;
/// Bytes of an incomplete event to hold back; a larger event is relayed in pieces.
pub const MAX_HELD_EVENT: usize = 64 * 1024;
/// Bytes to hold back at the end of a piece of a large event, and at most of a piece of audio or an image: a
/// secret may begin there.
pub const MASK_OVERLAP: usize = 4 * 1024;
/// Bytes at the beginning of a streamed body that show whether it consists of events.
pub const MAX_BEGINNING: usize = 1024;
/// Levels of objects and arrays in a request, or in an event of an assembled document: the limit of common
/// JSON parsers.
pub const MAX_DEPTH: usize = 128;
/// Items of one list (choices, tool calls, content blocks) in an assembled document.
pub const MAX_ASSEMBLED_ITEMS: usize = 128;
/// Members and items of an assembled document that are put together from parts; each takes some 100 bytes.
pub const MAX_ASSEMBLED_NODES: usize = 1024;
/// Levels of an assembled document that are put together from parts.
pub const MAX_ASSEMBLED_DEPTH: usize = 16;
/// Most bytes of such an event that are not UTF-8: cut characters cause no more.
pub const MAX_ASSEMBLED_CUT: usize = 64;
/// Bytes of complete events to keep: they are read together, for usage and for the end of their stream.
pub const MAX_RECENT_EVENTS: usize = 2 * 1024;
/// Bytes at the end of a large event that show whether it is the terminal event.
pub const MAX_EVENT_END: usize = 16 * 1024;
/// Longest `usage` of a response to read, bytes.
pub const MAX_USAGE: usize = 4 * 1024;
/// Most tokens of one kind that one call may report: a provider's mistake can neither use up a day nor wrap a
/// counter.
pub const MAX_TOKENS_REPORTED: u64 = 1 << 30;
/// Largest buffered success to search for an error, bytes.
pub const MAX_REFUSAL: usize = 16 * 1024;
/// Longest id of a message or a tool call in a translation, bytes: ids are written more than once.
pub const MAX_ID: usize = 256;
/// Content blocks of one translated response: each adds text of its own around it.
pub const MAX_RESPONSE_BLOCKS: usize = 256;
/// Citations of one text in a translated response; further ones are left out.
pub const MAX_ANNOTATIONS: usize = 256;
/// Content blocks of one message of a translated request, including those of its tool results.
pub const MAX_BLOCKS: usize = 10_000;
/// Tool calls of one translated response.
pub const MAX_TOOL_CALLS: usize = 128;
/// Bytes of a Responses request that its translated response repeats: `instructions`, `tools` and the like. A
/// longer member is omitted.
pub const MAX_ECHO: usize = 64 * 1024;
/// Tools of a translated Responses request.
pub const MAX_TOOLS: usize = 256;
/// Longest function name in a translated request, bytes (OpenAI's limit).
pub const MAX_FUNCTION_NAME: usize = 64;
/// Longest `metadata.user_id` of a Messages request that becomes `user`, characters (OpenAI's limit).
pub const MAX_USER_ID: usize = 64;
/// Largest event of a chat stream in a translation to Anthropic's format, bytes: it is held whole.
pub const MAX_CHAT_EVENT: usize = 1024 * 1024;
/// Largest event of a chat stream that the next ones are compared with, bytes: a copy of it is kept.
pub const MAX_REPEATED: usize = 2 * 1024;
/// Events of a chat stream that the next ones are compared with, before one of them has been repeated.
pub const REPEATED_TRIES: u8 = 4;
/// Longest `Retry-After` to wait for once every replica has been tried.
pub const MAX_RETRY_WAIT: Duration = Duration::from_secs(2);
/// Pause before a lone replica is tried again after it could not be reached.
pub const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// Longest cooldown that a provider can set with `Retry-After`.
pub const MAX_COOLDOWN: Duration = Duration::from_secs(300);
/// First cooldown of a failing replica; it doubles up to [`MAX_COOLDOWN`].
pub const FIRST_COOLDOWN: Duration = Duration::from_secs(10);
/// Failures in a row that put a replica in cooldown.
pub const FAILURES_TO_COOLDOWN: u32 = 3;

/// Largest state file, bytes.
pub const MAX_STATE_FILE: u64 = 4 * 1024 * 1024;
/// Least time between two writes of the state file: what a crash may lose.
pub const JOURNAL_INTERVAL: Duration = Duration::from_secs(10);

/// Log lines that may wait for the log's thread; further lines are dropped and counted.
pub const MAX_LOG_LINES: usize = 4096;
/// Bytes of the log lines that may wait.
pub const MAX_LOG_BYTES: usize = 1024 * 1024;
/// Bytes of one write to a pipe or a terminal that has room: a longer one could block (POSIX `PIPE_BUF`).
pub const LOG_PIECE: usize = 4096;
/// Log lines about refused requests for each reason in a [`REFUSALS_INTERVAL`].
pub const MAX_REFUSAL_LINES: u32 = 20;
/// See [`MAX_REFUSAL_LINES`].
pub const REFUSALS_INTERVAL: Duration = Duration::from_secs(60);
/// Addresses of a request's `X-Forwarded-For` that are compared with `trusted_proxies`, besides its peer's.
pub const MAX_FORWARDED: usize = 32;
/// How long the log's thread lets lines gather after it has written all there were.
pub const LOG_GATHER: Duration = Duration::from_millis(5);
/// How often the log's thread checks for a change of destination while it waits for a reader.
pub const LOG_PAUSE: Duration = Duration::from_millis(100);
/// Longest wait at exit for log lines that are not written yet.
pub const LOG_FLUSH_TIMEOUT: Duration = Duration::from_millis(500);
/// Longest wait for the reader of a line on stdout or stderr.
pub const SAY_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest wait of a reload for another one.
pub const RELOAD_TIMEOUT: Duration = Duration::from_secs(3);
/// Time after `shutdown_timeout` at which the process ends unconditionally.
pub const LAST_RESORT: Duration = Duration::from_secs(1);
/// Largest time zone file, bytes; real ones have at most some 4 KB.
pub const MAX_TIME_ZONE: u64 = 256 * 1024;
/// Symbolic links followed to a file that does not exist.
pub const MAX_LINKS: usize = 40;
/// Largest config file, bytes.
pub const MAX_CONFIG_FILE: u64 = 4 * 1024 * 1024;
/// Largest `ca_file` of a provider, bytes; a system's whole bundle has some 220 KB.
pub const MAX_CA_FILE: u64 = 1024 * 1024;
/// Provider entries of a config; each replica counts.
pub const MAX_PROVIDERS: usize = 256;
/// Token entries of a config; each request is compared with all of them.
pub const MAX_TOKENS: usize = 1_000;
/// Headers configured for one provider.
pub const MAX_PROVIDER_HEADERS: usize = 32;
/// Regular expressions of one filter.
pub const MAX_PATTERNS: usize = 1000;
/// Entries of `cors_origins`.
pub const MAX_ORIGINS: usize = 1000;
/// Entries of `trusted_proxies`; see also [`MAX_FORWARDED`].
pub const MAX_TRUSTED_PROXIES: usize = 1000;
/// Problems in the report of a config: a file of garbage must not make a report of gigabytes.
pub const MAX_PROBLEMS: usize = 1000;
/// Names of one kind in the summary of a config; the rest is a number.
pub const MAX_LISTED: usize = 50;
/// Providers that the line about the first checks names as not healthy.
pub const MAX_NAMED_UNHEALTHY: usize = 10;
/// Model ids that an error suggests.
pub const MAX_HINTS: usize = 3;
/// Compiled size of one regular expression of a filter, bytes: each request's model is compared with it. Over
/// [`MAX_MODEL`] bytes usual ones take 2 to 50 µs, and the worst within this limit 70 ms.
pub const MAX_REGEX: usize = 256 * 1024;
/// Cost of filters that a worker may spend: bytes of ids times bytes of compiled patterns. It takes at most
/// 0.2 ms.
pub const QUICK_FILTER: usize = 512 * 1024;
/// Cost of a limited token's filters in a search for a stored response, in the unit of [`QUICK_FILTER`]: at
/// most 0.2 s. Providers that no filter has allowed by then are not asked.
pub const MAX_REACH: usize = 512 * 1024 * 1024;
/// Targets of one virtual model.
pub const MAX_TARGETS: usize = 16;
/// Longest request id accepted from a client or an upstream, bytes.
pub const MAX_REQUEST_ID: usize = 128;
/// Sockets that a supervisor may pass.
pub const MAX_INHERITED_SOCKETS: usize = 16;
/// Longest status sent to the supervisor, characters.
pub const MAX_STATUS: usize = 512;
/// How long the supervisor may take to read a message.
pub const NOTIFY_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest quote of client text in a log line or an error message, bytes.
pub const MAX_QUOTED: usize = 256;

/// Series of one metric; further ones are counted together under the label `other`.
pub const MAX_SERIES: usize = 10_000;
/// Hash chains of a metric's series.
pub const SERIES_BUCKETS: usize = 128;
/// Models that may become a label.
pub const MAX_LABELLED_MODELS: usize = 200;
/// Longest model id that may become a label, bytes.
pub const MAX_LABELLED_MODEL: usize = 256;

/// Time between two points of the status page's history: the monitor reads the counters this often.
pub const HISTORY_INTERVAL: Duration = Duration::from_secs(10);
/// Points of the history: an hour, 32 KB.
pub const HISTORY_POINTS: usize = 360;
/// Points between two snapshots of each provider's counters: a minute.
pub const SNAPSHOT_POINTS: usize = 6;
/// Snapshots of each provider's counters, 0.3 KB for a provider in each: "recent" reaches back to the oldest one, five minutes.
pub const RECENT_SNAPSHOTS: usize = 5;
/// Errors that the status page lists with a 4xx status, and as many others.
pub const MAX_LAST_ERRORS: usize = 50;

/// Requests that the provider of `ai-proxy demo` handles at once; further ones wait.
pub const MAX_DEMO_REQUESTS: usize = 100;
/// Largest request body of the demo provider, bytes.
pub const MAX_DEMO_BODY: usize = 32 * 1024 * 1024;
/// Time for a whole request to the demo provider to arrive, and for each write.
pub const DEMO_TIMEOUT: Duration = Duration::from_secs(15);

/// Largest buffer to keep for reuse once it is empty, bytes.
pub const KEPT_BUFFER: usize = 4 * 1024;

/// Growth of a buffer of `length` bytes that makes room for `more`: a quarter, because doubling would take
/// twice the memory.
pub fn growth(length: usize, more: usize) -> usize {
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
