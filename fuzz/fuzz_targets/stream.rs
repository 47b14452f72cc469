//! Fuzzes the parsers of the load client: HTTP, events, chunks. Nothing panics, and the result depends neither on where the
//! reads end nor on earlier chunks. The first byte of the input selects a head that is put before the rest, and the size of
//! the reads.

#![no_main]

#[allow(dead_code)]
#[path = "../../crates/load/src/response.rs"]
mod response;
#[allow(dead_code)]
#[path = "../../crates/load/src/chunk.rs"]
mod chunk;
#[allow(dead_code)]
#[path = "../../crates/load/src/stream.rs"]
mod stream;

use chunk::{Chunk, ChunkParser};
use libfuzzer_sys::fuzz_target;
use response::{Piece, ResponseParser};
use stream::{StreamItem, StreamParser};

const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
const UNSIZED: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";

/// What was parsed: statuses, tokens, errors, `[DONE]`s, token counts, the end, or a malformed part.
#[derive(Debug, Default, PartialEq)]
struct Parsed {
    status: Option<u16>,
    texts: Vec<(bool, String)>,
    errors: Vec<String>,
    done: usize,
    usage: Vec<Option<u64>>,
    ended: bool,
    broken: bool,
}

fuzz_target!(|data: &[u8]| {
    let Some((control, data)) = data.split_first() else { return };
    let head = [&[][..], CHUNKED, UNSIZED][usize::from(control % 3)];
    let whole = [head, data].concat();
    let cut = usize::from(control / 3) + 1;
    let at_once = read([whole.as_slice()]);
    assert_eq!(at_once, read(whole.chunks(cut)));
});

fn read<'a>(reads: impl IntoIterator<Item = &'a [u8]>) -> Parsed {
    let mut parsed = Parsed::default();
    let (mut response, mut stream) = (ResponseParser::default(), StreamParser::default());
    let mut chunks = ChunkParser::default();
    for bytes in reads {
        if step(bytes, &mut response, &mut stream, &mut chunks, &mut parsed).is_err() {
            parsed.broken = true;
        }
        if parsed.broken || parsed.ended {
            break;
        }
    }
    parsed
}

fn step(
    mut input: &[u8],
    response: &mut ResponseParser,
    stream: &mut StreamParser,
    chunks: &mut ChunkParser,
    parsed: &mut Parsed,
) -> Result<(), String> {
    loop {
        match response.next(&mut input)? {
            Piece::Head(status) => parsed.status = Some(status),
            Piece::Body(bytes) => {
                stream.push(bytes)?;
                while let Some(item) = stream.next_item() {
                    let data = match item {
                        StreamItem::Data(data) => data,
                        StreamItem::Done => {
                            parsed.done += 1;
                            continue;
                        }
                        StreamItem::Error(data) => {
                            parsed.errors.push(String::from_utf8_lossy(data).into_owned());
                            continue;
                        }
                    };
                    let content = |chunk: &Chunk<'_>| {
                        let (text, reason) = (chunk.text().into_owned(), chunk.finish_reason().map(|it| it.into_owned()));
                        (chunk.has_choice(), chunk.has_token(), chunk.has_text(), text, reason, chunk.error(), chunk.usage)
                    };
                    let mut fresh = ChunkParser::default();
                    let alone = fresh.read(data).as_ref().map(content).ok();
                    let chunk = chunks.read(data);
                    assert_eq!(alone, chunk.as_ref().map(content).ok());
                    let chunk = chunk?;
                    parsed.errors.extend(chunk.error());
                    if chunk.has_choice() {
                        parsed.texts.push((chunk.has_text(), chunk.text().into_owned()));
                    }
                    if let Some(usage) = chunk.usage {
                        parsed.usage.push(usage.completion_tokens());
                    }
                }
            }
            Piece::NeedMore => return Ok(()),
            Piece::End => {
                parsed.ended = true;
                return Ok(());
            }
        }
    }
}
