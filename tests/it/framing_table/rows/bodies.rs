//! The length of a body: `Content-Length`, transfer codings, chunks and trailers.

use super::{BAD, BODY, CHUNKS, Fate, Row, UNKNOWN_CODING, chat, refused, relayed, row};

pub fn lengths() -> Vec<Row> {
    let mut rows: Vec<Row> = [
        ("two lengths", "Content-Length: 16\r\nContent-Length: 17"),
        ("two lengths, the second 0", "Content-Length: 16\r\nContent-Length: 0"),
        ("three lengths, the last another", "Content-Length: 16\r\nContent-Length: 16\r\nContent-Length: 1"),
        ("two lengths in two cases", "content-length: 16\r\nCONTENT-LENGTH: 5"),
        ("a list of lengths", "Content-Length: 16, 17"),
        ("a list of the same length", "Content-Length: 16, 16"),
        ("a list with an empty member", "Content-Length: 16,"),
        ("a positive length", "Content-Length: +16"),
        ("a negative length", "Content-Length: -16"),
        ("minus nought", "Content-Length: -0"),
        ("a hexadecimal length", "Content-Length: 0x10"),
        ("an octal length", "Content-Length: 0o20"),
        ("a length with a point", "Content-Length: 16.0"),
        ("a length with an exponent", "Content-Length: 16e0"),
        ("a length with an underscore", "Content-Length: 1_6"),
        ("a length with a space", "Content-Length: 1 6"),
        ("a length with a unit", "Content-Length: 16b"),
        ("a length in quotes", "Content-Length: \"16\""),
        ("a length with a parameter", "Content-Length: 16;q=1"),
        ("an empty length", "Content-Length:"),
        ("a length in full-width digits", "Content-Length: \u{ff11}\u{ff16}"),
        ("a length in Arabic digits", "Content-Length: \u{661}\u{666}"),
        ("a space between name and colon", "Content-Length : 16"),
        ("a vertical tab before a length", "Content-Length:\x0b16"),
        ("a folded length", "Content-Length:\r\n 16"),
        ("a length with a bare CR", "Content-Length: 16\r7"),
        ("a length with NUL", "Content-Length: 16\0"),
    ]
    .into_iter()
    .map(|(name, lines)| refused(name, chat(lines, BODY), BAD))
    .collect();
    for length in [
        "100001",
        "4294967296",
        "4294967312",
        "100000000000000",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "18446744073709551632",
        "340282366920938463463374607431768211472",
    ] {
        let lines = format!("Content-Length: {length}");
        rows.push(refused(&format!("a length of {length}"), chat(&lines, BODY), (413, "body_too_large")));
    }
    for (name, lines) in [
        ("a length", "Content-Length: 16"),
        ("the same length twice", "Content-Length: 16\r\nContent-Length: 16"),
        ("a length with zeros ahead", "Content-Length: 00000000000000000000000016"),
        ("a length within white space", "Content-Length: \t16 \t"),
    ] {
        rows.push(relayed(name, chat(lines, BODY)));
    }
    let empty = (400, "invalid_json");
    rows.push(row("no length", chat("X-A: b", ""), &[empty], Fate::Kept, 0));
    rows.push(row("a length of 0", chat("Content-Length: 0", ""), &[empty], Fate::Kept, 0));
    // A length that is too small: the rest of the body is no request.
    let short = chat("Content-Length: 15", BODY);
    rows.push(row("a length that is too small", short, &[empty, BAD], Fate::Closed, 0));
    rows
}

pub fn codings() -> Vec<Row> {
    let mut rows: Vec<Row> = [
        ("chunked twice", "Transfer-Encoding: chunked, chunked"),
        ("chunked on two lines", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        ("chunked, then gzip", "Transfer-Encoding: chunked, gzip"),
        ("chunked, then identity", "Transfer-Encoding: chunked, identity"),
        (
            "chunked, then identity on a line of its own",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        ),
        ("chunked, then an unknown one", "Transfer-Encoding: chunked\r\nTransfer-Encoding: x"),
        ("an empty coding", "Transfer-Encoding:"),
        ("a coding of commas", "Transfer-Encoding: ,,"),
        ("chunked in a list with empty members", "Transfer-Encoding: , chunked ,"),
        ("a space before the coding's colon", "Transfer-Encoding : chunked"),
        ("a tab before the coding's colon", "Transfer-Encoding\t: chunked"),
        ("a space before the coding's name", " Transfer-Encoding: chunked"),
        ("a vertical tab before the coding", "Transfer-Encoding: \x0bchunked"),
        ("a form feed behind the coding", "Transfer-Encoding: chunked\x0c"),
        ("NUL behind the coding", "Transfer-Encoding: chunked\0"),
        ("a folded coding", "Transfer-Encoding:\r\n chunked"),
        ("a folded coding by a tab", "Transfer-Encoding:\r\n\tchunked"),
        ("a bare LF before the coding", "X-A: b\nTransfer-Encoding: chunked"),
        ("a bare CR before the coding", "X-A: b\rTransfer-Encoding: chunked"),
        ("a coding without its colon", "Transfer-Encoding chunked"),
    ]
    .into_iter()
    .map(|(name, lines)| refused(name, chat(lines, CHUNKS), BAD))
    .collect();
    for (name, coding) in [
        ("xchunked", "xchunked"),
        ("chunkedx", "chunkedx"),
        ("chunk", "chunk"),
        ("identity", "identity"),
        ("gzip", "gzip"),
        ("gzip, then chunked", "gzip, chunked"),
        ("identity, then chunked", "identity, chunked"),
        ("chunked with a parameter", "chunked;q=1"),
        ("chunked in quotes", "\"chunked\""),
        ("chunked behind a semicolon", ";chunked"),
        ("chunked and a word", "chunked x"),
        ("chunked behind a backslash", "\\chunked"),
        ("chunked by a Kelvin sign", "chun\u{212a}ed"),
    ] {
        let lines = format!("Transfer-Encoding: {coding}");
        rows.push(refused(name, chat(&lines, CHUNKS), UNKNOWN_CODING));
    }
    for (name, lines) in [
        ("chunked", "Transfer-Encoding: chunked"),
        ("chunked in capitals", "TRANSFER-ENCODING: CHUNKED"),
        ("chunked within tabs", "Transfer-Encoding:\tchunked\t"),
    ] {
        rows.push(relayed(name, chat(lines, CHUNKS)));
    }
    // Other names are other fields: the length counts, and the upstream gets no second framing.
    for (name, lines) in [
        ("a coding with an underscore", "Content-Length: 16\r\nTransfer_Encoding: chunked"),
        ("a coding with a letter ahead", "Content-Length: 16\r\nX-Transfer-Encoding: chunked"),
        ("TE is no coding", "Content-Length: 16\r\nTE: chunked"),
        ("a content coding is no coding", "Content-Length: 16\r\nContent-Encoding: identity"),
    ] {
        rows.push(relayed(name, chat(lines, BODY)));
    }
    let old = String::from_utf8(chat("Transfer-Encoding: chunked", CHUNKS)).expect("text");
    rows.push(refused("chunked in HTTP/1.0", old.replace("HTTP/1.1", "HTTP/1.0"), BAD));
    rows
}

pub fn length_against_coding() -> Vec<Row> {
    [
        ("CL.TE", "Content-Length: 6\r\nTransfer-Encoding: chunked", "0\r\n\r\nG"),
        ("TE.CL", "Transfer-Encoding: chunked\r\nContent-Length: 4", "5c\r\nG"),
        ("TE.CL, length 0", "Transfer-Encoding: chunked\r\nContent-Length: 0", CHUNKS),
        ("CL.TE, coding in capitals", "Content-Length: 6\r\nTRANSFER-ENCODING: CHUNKED", "0\r\n\r\nG"),
        ("CL.TE, unknown coding", "Content-Length: 16\r\nTransfer-Encoding: xchunked", BODY),
        ("CL.TE, identity", "Content-Length: 16\r\nTransfer-Encoding: identity", BODY),
        ("CL.TE, space before the colon", "Content-Length: 6\r\nTransfer-Encoding : chunked", "0\r\n\r\nG"),
        ("CL.TE, folded", "Content-Length: 6\r\nTransfer-Encoding:\r\n chunked", "0\r\n\r\nG"),
        ("CL.TE, empty coding", "Content-Length: 16\r\nTransfer-Encoding:", BODY),
        ("TE.TE", "Content-Length: 4\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: cow", "5c\r\nG"),
        ("CL.CL.TE", "Content-Length: 6\r\nContent-Length: 6\r\nTransfer-Encoding: chunked", "0\r\n\r\nG"),
        ("CL.TE, the length too large", "Content-Length: 99999999999\r\nTransfer-Encoding: chunked", CHUNKS),
    ]
    .into_iter()
    .map(|(name, lines, rest)| refused(name, chat(lines, rest), BAD))
    .collect()
}

fn chunked(rest: &str) -> Vec<u8> {
    chat("Transfer-Encoding: chunked", rest)
}

pub fn chunk_sizes() -> Vec<Row> {
    let mut rows: Vec<Row> = [
        ("a chunk size with a sign", "+10"),
        ("a negative chunk size", "-10"),
        ("a chunk size with its base", "0x10"),
        ("a chunk size with an h", "10h"),
        ("a space before a chunk size", " 10"),
        ("a tab before a chunk size", "\t10"),
        ("a space behind a chunk size", "10 "),
        ("a tab behind a chunk size", "10\t"),
        ("a chunk size with a space", "1 0"),
        ("a chunk size with an underscore", "1_0"),
        ("a chunk size in quotes", "\"10\""),
        ("an empty chunk size", ""),
        ("an extension without a size", ";a=b"),
        ("a chunk size of letters", "zz"),
        ("a chunk size with NUL", "10\0"),
        ("a chunk size with a bare CR", "10\r0"),
        ("a chunk size in full-width digits", "\u{ff11}\u{ff10}"),
        ("a chunk size of 17 digits", "FFFFFFFFFFFFFFFFF"),
        ("a chunk size that wraps round to 16", "10000000000000010"),
        ("a chunk size that wraps round to 0", "10000000000000000"),
        ("an extension without its semicolon", "10 a=b"),
        ("an extension with a bare LF in quotes", "10;a=\"b\nc\""),
        ("an extension with a bare CR", "10;a\rb"),
        ("an extension that ends in CR", "10;a\r"),
        ("an extension with NUL", "10;a=\0"),
        ("an extension with a control character", "10;a=\x01"),
    ]
    .into_iter()
    .map(|(name, line)| refused(name, chunked(&format!("{line}\r\n{BODY}\r\n0\r\n\r\n")), BAD))
    .collect();
    for (name, size) in [
        ("the largest chunk size", "FFFFFFFFFFFFFFFF"),
        ("the largest signed chunk size", "7fffffffffffffff"),
        ("a chunk size over 32 bits", "100000010"),
    ] {
        // A refusal when the size is read is fine as well: no byte of such a body can count.
        rows.push(refused(name, chunked(&format!("{size}\r\n{BODY}\r\n0\r\n\r\n")), (413, "body_too_large")));
    }
    let long = format!("10;{}\r\n{BODY}\r\n0\r\n\r\n", "x".repeat(2000));
    rows.push(refused("an extension of 2,000 bytes", chunked(&long), BAD));
    let huge = format!("10;{}", "x".repeat(200_000));
    rows.push(refused("an extension without an end", chunked(&huge), BAD));
    let zeros = format!("{}10\r\n{BODY}\r\n0\r\n\r\n", "0".repeat(1000));
    rows.push(refused("a chunk size with 1,000 zeros ahead", chunked(&zeros), BAD));
    for (name, line) in [
        ("a chunk size with zeros ahead", "000010"),
        ("an extension", "10;a"),
        ("an extension with a value", "10;a=b;c=\"d e\""),
        ("an extension within white space", "10 ; a = b"),
    ] {
        rows.push(relayed(name, chunked(&format!("{line}\r\n{BODY}\r\n0\r\n\r\n"))));
    }
    let capital =
        "A\r\n{\"model\":\"\r\na\r\np1/m\"}    \r\n00\r\n\r\n".replace("a\r\np1/m\"}    ", "6\r\np1/m\"}");
    rows.push(relayed("a chunk size in capitals, a last one of two digits", chunked(&capital)));
    rows
}

pub fn chunk_ends() -> Vec<Row> {
    [
        ("bare LF behind a chunk size (TERM.EXT)", "10\n{\"model\":\"p1/m\"}\r\n0\r\n\r\n"),
        ("bare LF behind an extension (EXT.TERM)", "10;a\n{\"model\":\"p1/m\"}\r\n0\r\n\r\n"),
        ("bare CR behind a chunk size", "10\r{\"model\":\"p1/m\"}\r\n0\r\n\r\n"),
        ("CR CR LF behind a chunk size", "10\r\r\n{\"model\":\"p1/m\"}\r\n0\r\n\r\n"),
        ("bare LF behind chunk data", "10\r\n{\"model\":\"p1/m\"}\n0\r\n\r\n"),
        ("bare CR behind chunk data", "10\r\n{\"model\":\"p1/m\"}\r0\r\n\r\n"),
        ("nothing behind chunk data", "10\r\n{\"model\":\"p1/m\"}0\r\n\r\n"),
        ("one byte over behind chunk data", "10\r\n{\"model\":\"p1/m\"}X\r\n0\r\n\r\n"),
        ("two bytes over for the line end (spill)", "10\r\n{\"model\":\"p1/m\"}XX0\r\n\r\n"),
        ("chunk data one byte short", "11\r\n{\"model\":\"p1/m\"}\r\n0\r\n\r\n"),
        ("chunk data one byte long", "f\r\n{\"model\":\"p1/m\"}\r\n0\r\n\r\n"),
        ("bare LF behind the last chunk", "10\r\n{\"model\":\"p1/m\"}\r\n0\n\r\n"),
        ("bare LF for the end", "10\r\n{\"model\":\"p1/m\"}\r\n0\r\n\n"),
        ("LF LF for the end", "10\r\n{\"model\":\"p1/m\"}\r\n0\n\n"),
        ("CR and another byte for the end", "10\r\n{\"model\":\"p1/m\"}\r\n0\r\n\rX"),
        ("an empty line between chunks", "8\r\n{\"model\"\r\n\r\n8\r\n:\"p1/m\"}\r\n0\r\n\r\n"),
        ("a body that is not chunked", BODY),
    ]
    .into_iter()
    .map(|(name, rest)| refused(name, chunked(rest), BAD))
    .collect()
}

pub fn trailers() -> Vec<Row> {
    let ended = |trailers: &str| chunked(&format!("10\r\n{BODY}\r\n0\r\n{trailers}\r\n"));
    let mut rows: Vec<Row> = [
        ("a trailer without a colon", "X-A\r\n"),
        ("a trailer without a name", ": b\r\n"),
        ("a trailer with a space before its colon", "X-A : b\r\n"),
        ("a folded trailer", "X-A: b\r\n c\r\n"),
        ("a trailer with a bare LF", "X-A: b\nX-B: c\r\n"),
        ("a trailer with a bare CR", "X-A: b\rX-B: c\r\n"),
        ("a trailer with NUL", "X-A: b\0\r\n"),
        ("a trailer with DEL", "X-A: b\x7f\r\n"),
        ("a request line as trailer", "GET /?smuggled HTTP/1.1\r\n"),
    ]
    .into_iter()
    .map(|(name, trailers)| refused(name, ended(trailers), BAD))
    .collect();
    let many = "X-A: b\r\n".repeat(2000);
    rows.push(refused("trailers of 16,000 bytes", ended(&many), BAD));
    for (name, trailers) in [
        ("a trailer", "X-A: b\r\n"),
        ("a trailer that frames", "Content-Length: 500\r\nTransfer-Encoding: chunked\r\n"),
        ("a trailer that authorizes", "Authorization: Bearer other\r\nHost: elsewhere\r\n"),
        ("a trailer that closes", "Connection: close\r\n"),
    ] {
        rows.push(relayed(name, ended(trailers)));
    }
    rows
}
