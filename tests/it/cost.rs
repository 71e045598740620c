//! Cost in proportion: known documents grow in each of their places, and in several at once; the memory and
//! output of reading them grow no faster. `make fuzz` looks for more; `make instructions` counts
//! instructions.

use ai_proxy::upstream::assembly::assemble;

use super::corpora::targets::cost::check_grown;
use super::corpora::targets::grown::steps;
use super::corpora::targets::readers::READERS;

/// Documents grown in one place, for each seed at most; a seed with fewer has each of its places grown in each way.
const SINGLE: usize = 25;
/// Buffers of a fixed size, bytes.
const ROOM: u64 = 64 * 1024;
/// Documents grown in several places at once, for each seed.
const MIXED: usize = 8;

/// Knuth's generator: the same documents in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize
    }
}

#[test]
fn grown_documents_cost_their_size_to_read() {
    std::thread::scope(|scope| {
        for reader in READERS {
            let sweep = move || {
                let mut grown = 0;
                for seed in (reader.seeds)() {
                    let (steps, mut dice) = (steps(&seed), Dice(grown));
                    let every = steps.len().div_ceil(SINGLE).max(1);
                    for step in steps.iter().step_by(every) {
                        check_grown(reader, &seed, &[*step]);
                        grown += 1;
                    }
                    for _ in 0..MIXED.min(steps.len()) {
                        check_grown(reader, &seed, &[(); 3].map(|()| (dice.roll(), dice.roll())));
                        grown += 1;
                    }
                }
                assert!(grown > 20, "{}: {grown} documents", reader.name);
            };
            std::thread::Builder::new()
                .name(reader.name.to_owned())
                .spawn_scoped(scope, sweep)
                .expect("a thread");
        }
    });
}

/// Shapes that no growth of a known document in one place reaches: data of many lines, escapes, and many
/// small parts.
#[test]
fn assembly_of_events_takes_four_times_their_size_at_most() {
    let delta = |delta: &str| format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{delta}}}]}}\n\n");
    let text = |piece: &str, size: usize| {
        delta(&format!("{{\"content\":\"{}\"}}", piece.repeat(size / piece.len())))
    };
    let end = "data: [DONE]\n\n";
    for size in [16 * 1024, 128 * 1024] {
        let members = |value: &str| -> String {
            (0..900).map(|name| format!(",\"{name}\":{value}")).collect::<String>()[1..].to_owned()
        };
        let lines = "data: 0,\n".repeat(size / 9);
        let many = size / 50;
        for (name, events) in [
            ("one text", text("x", size)),
            ("escapes", text("\\n\\u0041", size / 2).repeat(2)),
            ("halves of pairs", text("\\ud83d", size / 2).repeat(2)),
            ("small parts", delta("{\"content\":\"x\"}").repeat(many)),
            ("small parts of a list", delta("{\"a\":[1,2]}").repeat(many)),
            ("small calls", delta("{\"tool_calls\":[{\"a\":1},{}]}").repeat(many)),
            ("members", delta(&format!("{{{}}}", members("\"x\""))).repeat((size / 9000).max(2))),
            ("lists", delta(&format!("{{{}}}", members("[1]"))).repeat((size / 9000).max(2))),
            ("a long name", delta(&format!("{{\"{}\":1}}", "\\n".repeat(size / 4))).repeat(2)),
            ("a list in lines", format!("data: {{\"choices\":[],\"a\":[\n{lines}data: 0]}}\n\n")),
            ("dense", format!("data: {{\"choices\":[],\"a\":[{}0]}}\n\n", "0,".repeat(size / 2))),
            ("a long type", format!("data: {{\"choices\":[],\"type\":\"{}\"}}\n\n", "\\n".repeat(size / 2))),
            ("deep", delta(&format!("{}{}", "[".repeat(size / 4), "]".repeat(size / 4))).repeat(2)),
        ] {
            let events = events + end;
            let used = allocation_counter::measure(|| drop(assemble(events.as_bytes())));
            let (size, held) = (events.len() as u64, events.len() as u64 + used.bytes_max);
            assert!(held <= 4 * size + ROOM, "{name}: {held} bytes held for {size}");
        }
    }
}
